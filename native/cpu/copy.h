// Copies runs of strided elements into contiguous memory; only their size matters, not what they mean.
#pragma once

#include <cstring>

#include "cpu/layout.h"

namespace steepest::STEEPEST_LEVEL::layout {

constexpr std::int64_t kCopyTile = 65536;  // bytes that one task moves

inline Loops<1> loopsOf(const View& v) {
  Loops<1> loops;
  for (int i = 0; i < v.rank; ++i) loops.add(v.shape[i], {v.strides[i]});
  return loops;
}

// Elements start .. start + n, row-major, of the strided `from`.
template <class T>
void copyRun(const T* from, const Loops<1>& loops, std::int64_t start, std::int64_t n, T* to) {
  const std::int64_t step = loops.rank ? loops.at[loops.rank - 1].step[0] : 0;
  Walk<1> walk(loops, start);
  while (n > 0) {
    const std::int64_t run = std::min(n, walk.run());
    const T* p = from + walk.offset();
    if (step == 1)
      std::memcpy(to, p, static_cast<std::size_t>(run) * sizeof(T));
    else if (step == 0)
      std::fill_n(to, run, *p);
    else
      for (std::int64_t i = 0; i < run; ++i) to[i] = p[i * step];
    walk.advance(run);
    to += run;
    n -= run;
  }
}

// Calls f with a value of the unsigned type that has the size of the dtype.
template <class F>
decltype(auto) bySize(DType dtype, F f) {
  switch (sizeOf(dtype)) {
    case 1:
      return f(std::uint8_t{});
    case 2:
      return f(std::uint16_t{});
    case 4:
      return f(std::uint32_t{});
    default:
      return f(std::uint64_t{});
  }
}

// The bits of a number in a dtype: integers are rounded toward zero and wrap.
template <class T>
T bitsOf(double x, DType dtype) {
  const auto bits = [](auto value) {
    T r{};
    std::memcpy(&r, &value, std::min(sizeof r, sizeof value));
    return r;
  };
  switch (dtype) {
    case DType::float32:
      return bits(static_cast<float>(x));
    case DType::float64:
      return bits(x);
    case DType::bfloat16: {
      const float f = static_cast<float>(x);
      std::uint32_t u;
      std::memcpy(&u, &f, sizeof u);
      return bits(static_cast<std::uint16_t>(f != f ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16));
    }
    default: {
      const std::int64_t whole = x > -9.2e18 && x < 9.2e18 ? static_cast<std::int64_t>(x) : 0;
      return static_cast<T>(static_cast<std::uint64_t>(whole));
    }
  }
}

}  // namespace steepest::STEEPEST_LEVEL::layout
