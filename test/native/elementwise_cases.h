// Builds elementwise instructions for the tests and runs them at one dispatch level.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "elementwise.gen.h"
#include "ops.gen.h"
#include "runtime/levels.h"

namespace steepest::test {

inline const char* const kRowNames[] = {
#define ROW(name) #name,
    STEEPEST_ELEMENTWISE(ROW)
#undef ROW
};

inline bf16 toBf16(float f) {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  if (f != f) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float fromBf16(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

// Memory of one dtype, read and written as float64.
struct Memory {
  DType dtype;
  std::vector<std::byte> bytes;

  Memory(DType dtype, std::int64_t count) : dtype(dtype), bytes(static_cast<std::size_t>(count) * sizeOf(dtype)) {}
  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size() / sizeOf(dtype)); }
  template <class T>
  T& as(std::int64_t i) {
    return reinterpret_cast<T*>(bytes.data())[i];
  }
  void set(std::int64_t i, double x) {
    switch (dtype) {
      case DType::float32:
        as<float>(i) = static_cast<float>(x);
        break;
      case DType::bfloat16:
        as<bf16>(i) = toBf16(static_cast<float>(x));
        break;
      case DType::float64:
        as<double>(i) = x;
        break;
      case DType::int32:
        as<std::int32_t>(i) = static_cast<std::int32_t>(x);
        break;
      case DType::uint8:
        as<std::uint8_t>(i) = static_cast<std::uint8_t>(static_cast<std::int64_t>(x));
        break;
    }
  }
  double get(std::int64_t i) {
    switch (dtype) {
      case DType::float32:
        return as<float>(i);
      case DType::bfloat16:
        return fromBf16(as<bf16>(i));
      case DType::float64:
        return as<double>(i);
      case DType::int32:
        return as<std::int32_t>(i);
      default:
        return as<std::uint8_t>(i);
    }
  }
};

struct StepCode {
  Ew op;
  DType from, to;
  std::vector<int> sources;
};

struct Chain {
  std::vector<double> constants;
  std::vector<StepCode> steps;
  std::vector<std::int64_t> outputs;
  std::vector<std::int64_t> shape;

  std::vector<double> words() const {
    std::vector<double> w{static_cast<double>(constants.size())};
    w.insert(w.end(), constants.begin(), constants.end());
    w.push_back(static_cast<double>(steps.size() * 6));
    for (const StepCode& s : steps) {
      w.insert(w.end(), {static_cast<double>(s.op), static_cast<double>(s.from), static_cast<double>(s.to)});
      int k = 0;
      for (const int r : s.sources) w.push_back(r), ++k;
      for (; k < 3; ++k) w.push_back(-1);
    }
    w.push_back(static_cast<double>(outputs.size()));
    for (const auto o : outputs) w.push_back(static_cast<double>(o));
    w.push_back(static_cast<double>(shape.size()));
    for (const auto n : shape) w.push_back(static_cast<double>(n));
    return w;
  }
};

inline View viewOf(DType dtype, const std::vector<std::int64_t>& shape) {
  View v;
  v.dtype = dtype;
  v.rank = static_cast<int>(shape.size());
  std::int64_t stride = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    v.shape[i] = shape[static_cast<std::size_t>(i)];
    v.strides[i] = stride;
    stride *= v.shape[i];
  }
  return v;
}

inline void run(const Level& level, const Chain& chain, const std::vector<View>& in, const std::vector<View>& out, int threads) {
  const std::vector<double> words = chain.words();
  std::vector<View> blankIn = in, blankOut = out;
  for (View& v : blankIn) v.data = nullptr;
  for (View& v : blankOut) v.data = nullptr;
  const auto kernel = level.kernels()[static_cast<int>(Op::elementwise_)](Spec{blankIn, blankOut, words, threads});
  // A wall behind the scratch shows a kernel that asks for too little.
  std::vector<std::byte> scratch(kernel->workspace + 192, std::byte{0x5a});
  auto* at = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64);
  Pool pool(threads);
  std::atomic<int> fault{0};
  kernel->run(Call{in, out, at, pool, fault});
  for (int i = 0; i < 64; ++i) CHECK(at[kernel->workspace + static_cast<std::size_t>(i)] == std::byte{0x5a});
}

// One row on contiguous operands.
inline Memory apply(const Level& level, Ew op, std::vector<Memory*> operands, DType from, DType to, int threads = 1) {
  const std::int64_t n = operands[0]->size();
  Memory result(to, n);
  Chain chain;
  chain.shape = {n};
  std::vector<View> in;
  for (Memory* m : operands) {
    in.push_back(viewOf(m->dtype, {n}));
    in.back().data = m->bytes.data();
  }
  const int count = static_cast<int>(operands.size());
  chain.steps.push_back(count == 1   ? StepCode{op, from, to, {0}}
                        : count == 2 ? StepCode{op, from, to, {0, 1}}
                                     : StepCode{op, from, to, {0, 1, 2}});
  chain.outputs = {count};
  View out = viewOf(to, {n});
  out.data = result.bytes.data();
  run(level, chain, in, {out}, threads);
  return result;
}

}  // namespace steepest::test
