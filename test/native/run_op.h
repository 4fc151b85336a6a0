// Runs one op of the table on host arrays, at a level and with a number of threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "ops.gen.h"
#include "runtime/levels.h"

struct Array {
  steepest::View view;
  std::vector<std::byte> bytes;

  template <class T>
  static Array of(steepest::DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
    Array a = empty(dtype, shape);
    if (!values.empty()) std::memcpy(a.bytes.data(), values.data(), values.size() * sizeof(T));
    return a;
  }
  static Array empty(steepest::DType dtype, const std::vector<std::int64_t>& shape) {
    Array a;
    a.view.dtype = dtype;
    a.view.rank = static_cast<int>(shape.size());
    std::int64_t step = 1;
    for (int i = a.view.rank - 1; i >= 0; --i) {
      a.view.shape[i] = shape[static_cast<std::size_t>(i)];
      a.view.strides[i] = step;
      step *= a.view.shape[i];
    }
    a.bytes.assign(a.view.bytes(), std::byte{0xAB});
    return a;
  }
  // Whether it holds these numbers, bit for bit.
  template <class T>
  bool holds(const std::vector<T>& values) const {
    return bytes.size() == values.size() * sizeof(T) && (values.empty() || std::memcmp(bytes.data(), values.data(), bytes.size()) == 0);
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
};

// Fills the outputs; gives the fault.
inline int runOp(const steepest::Level& level, steepest::Op op, std::vector<Array>& in, std::vector<Array>& out,
                 const std::vector<double>& attrs, int threads) {
  std::vector<steepest::View> ins, outs;
  for (Array& a : in) ins.push_back(a.view);
  for (Array& a : out) outs.push_back(a.view);
  const auto kernel = level.kernels()[static_cast<int>(op)]({ins, outs, attrs, threads});
  for (std::size_t i = 0; i < in.size(); ++i) ins[i].data = in[i].bytes.data();
  for (std::size_t i = 0; i < out.size(); ++i) outs[i].data = out[i].bytes.data();
  std::vector<std::byte> scratch(kernel->workspace + 64);
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64);
  steepest::Pool pool(threads);
  std::atomic<int> fault{0};
  kernel->run({ins, outs, aligned, pool, fault});
  return fault;
}

// Calls body(level, threads) for all levels that this machine runs, with 1, 2 and 5 threads.
template <class F>
void atAllLevels(F&& body) {
  for (const steepest::Level& level : steepest::levels()) {
    for (const int threads : {1, 2, 5}) body(level, threads);
  }
}
