// Runs the kernel of a row on plain arrays, at one dispatch level and pool size.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "attrs/update.gen.h"
#include "ops.gen.h"
#include "runtime/kernel.h"
#include "runtime/levels.h"

namespace update_test {

using namespace steepest;

struct Array {
  DType dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  Array(DType dtype, std::vector<std::int64_t> shape) : dtype(dtype), shape(std::move(shape)) {
    std::int64_t n = 1;
    for (std::int64_t d : this->shape) n *= d;
    bytes.resize(static_cast<std::size_t>(n) * sizeOf(dtype));
  }
  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size() / sizeOf(dtype)); }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(bytes.data());
  }
  double at(std::int64_t i) const {
    switch (dtype) {
      case DType::float32:
        return reinterpret_cast<const float*>(bytes.data())[i];
      case DType::float64:
        return reinterpret_cast<const double*>(bytes.data())[i];
      case DType::bfloat16:
        return std::bit_cast<float>(static_cast<std::uint32_t>(reinterpret_cast<const bf16*>(bytes.data())[i].bits) << 16);
      case DType::int32:
        return reinterpret_cast<const std::int32_t*>(bytes.data())[i];
      default:
        return reinterpret_cast<const std::uint8_t*>(bytes.data())[i];
    }
  }
  void set(std::int64_t i, double x) {
    if (dtype == DType::float64) {
      as<double>()[i] = x;
    } else if (dtype == DType::float32) {
      as<float>()[i] = static_cast<float>(x);
    } else if (dtype == DType::bfloat16) {
      const float f = static_cast<float>(x);
      const std::uint32_t u = std::bit_cast<std::uint32_t>(f);
      as<bf16>()[i] = {static_cast<std::uint16_t>(f != f ? 0x7fc0 : (u + 0x7fff + (u >> 16 & 1)) >> 16)};
    } else if (dtype == DType::int32) {
      as<std::int32_t>()[i] = static_cast<std::int32_t>(x);
    } else {
      as<std::uint8_t>()[i] = static_cast<std::uint8_t>(x);
    }
  }
  View view(bool data) {
    View v;
    v.data = data ? bytes.data() : nullptr;
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
};

inline Array normal(DType dtype, std::vector<std::int64_t> shape, unsigned seed, double scale = 1) {
  Array a(dtype, std::move(shape));
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(0, scale);
  for (std::int64_t i = 0; i < a.size(); ++i) a.set(i, draw(random));
  return a;
}
inline Array scalar(DType dtype, double x) {
  Array a(dtype, {});
  a.set(0, x);
  return a;
}

// Outputs may be the same objects as inputs. Gives the fault.
inline int run(const Level& level, Op op, const std::vector<Array*>& in, const std::vector<Array*>& out, const std::vector<double>& attrs,
               int threads = 1, int fault = 0) {
  std::vector<View> inViews, outViews;
  for (Array* a : in) inViews.push_back(a->view(false));
  for (Array* a : out) outViews.push_back(a->view(false));
  const Spec spec{inViews, outViews, attrs, threads};
  const std::unique_ptr<Kernel> kernel = level.kernels()[static_cast<int>(op)](spec);
  for (std::size_t i = 0; i < in.size(); ++i) inViews[i] = in[i]->view(true);
  for (std::size_t i = 0; i < out.size(); ++i) outViews[i] = out[i]->view(true);
  std::vector<std::byte> scratch(kernel->workspace + 64);
  std::byte* aligned = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64) % 64;
  Pool pool(threads);
  std::atomic<int> state{fault};
  kernel->run({inViews, outViews, aligned, pool, state});
  return state;
}

struct Options {
  UpdateAttrs::Rule rule;
  std::vector<double> hyper;
  double lrScale = 1;
  bool scale = false, check = false, stochastic = false, master = false, blockwise = false;
  double site = 0;
  int parameters = 1;  // the next has twice the learning rate and the next site, and so on

  std::vector<double> words() const {
    std::vector<double> w{static_cast<double>(static_cast<int>(rule)), static_cast<double>(hyper.size())};
    w.insert(w.end(), hyper.begin(), hyper.end());
    for (double x : {scale ? 1. : 0., check ? 1. : 0., stochastic ? 1. : 0., master ? 1. : 0., blockwise ? 1. : 0.}) w.push_back(x);
    w.push_back(parameters);
    for (int i = 0; i < parameters; ++i) w.push_back(lrScale * (1 + i));
    w.push_back(parameters);
    for (int i = 0; i < parameters; ++i) w.push_back(site + i);
    return w;
  }
};

inline Array arguments(double lr, double step) {
  Array a(DType::float64, {3});
  a.set(0, lr);
  a.set(1, step);
  return a;
}

using Numbers = std::vector<double>;

inline Numbers numbersOf(const Array& a) {
  Numbers r;
  for (std::int64_t i = 0; i < a.size(); ++i) r.push_back(a.at(i));
  return r;
}

struct State {
  Array p;
  std::vector<Array> slots;
  State(Array start, int count) : p(std::move(start)) {
    const DType dtype = p.dtype == DType::float64 ? DType::float64 : DType::float32;
    for (int i = 0; i < count; ++i) slots.emplace_back(dtype, p.shape);
  }
  // In place, or into fresh arrays that then take the place of the old ones.
  int step(const Level& level, const Options& o, Array& g, double lr, double t, int threads = 1, bool inPlace = true,
           Array* scale = nullptr) {
    Array args = arguments(lr, t);
    State next = *this;
    if (!inPlace) {
      next.p.bytes.assign(next.p.bytes.size(), std::byte{0xff});
      for (Array& s : next.slots) s.bytes.assign(s.bytes.size(), std::byte{0xff});
    }
    State& target = inPlace ? *this : next;
    std::vector<Array*> in{&args}, out{&target.p};
    if (scale) in.push_back(scale);
    in.insert(in.end(), {&p, &g});
    for (Array& s : slots) in.push_back(&s);
    for (Array& s : target.slots) out.push_back(&s);
    const int fault = run(level, Op::update_, in, out, o.words(), threads);
    if (!inPlace) *this = next;
    return fault;
  }
  bool operator==(const State& other) const {
    if (p.bytes != other.p.bytes) return false;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i].bytes != other.slots[i].bytes) return false;
    }
    return true;
  }
};

inline double worst(const Array& got, const Numbers& expect) {
  double error = 0, size = 1e-300;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double d = std::fabs(got.at(i) - expect[static_cast<std::size_t>(i)]);
    error = d <= error ? error : d;  // keeps NaN
    size = std::fmax(size, std::fabs(expect[static_cast<std::size_t>(i)]));
  }
  return error / size;
}

}  // namespace update_test
