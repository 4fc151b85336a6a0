// Moving elements, by their size alone.
#pragma once

#include "cpu/copy.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

// The element that is number i, row-major, of a strided operand.
__device__ inline std::int64_t offsetOf(const layout::Loops<1>& loops, std::int64_t i) {
  std::int64_t offset = 0;
  for (int d = loops.rank - 1; d >= 0; --d) {
    offset += (d ? i % loops.at[d].n : i) * loops.at[d].step[0];
    i /= loops.at[d].n;
  }
  return offset;
}

// How wide an access may be where all of these are multiples of it.
inline std::size_t unitOf(std::initializer_list<std::uintptr_t> all, std::size_t least) {
  std::size_t unit = 16;
  for (const std::uintptr_t x : all)
    while (unit > least && x % unit) unit /= 2;
  return unit;
}
template <class T>
std::uintptr_t address(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p);
}

// f(a value of an unsigned type of that many bytes).
template <class F>
void byUnit(std::size_t bytes, F&& f) {
  switch (bytes) {
    case 1:
      return f(std::uint8_t{});
    case 2:
      return f(std::uint16_t{});
    case 4:
      return f(std::uint32_t{});
    case 8:
      return f(std::uint64_t{});
    default:
      return f(uint4{});
  }
}

}  // namespace steepest::cuda
