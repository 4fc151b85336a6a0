// Numbers in eight bits on the device: the map of native/cpu/blockwise_map.h as a kernel argument, and its look-ups in shared memory.
#pragma once

#include "cpu/blockwise_map.h"
#include "cuda/launch.h"
#include "math/vec.h"

namespace steepest::cuda {

// Travels by value: one kilobyte of values and one of borders of a map.
struct QuantTable {
  float values[256], borders[256];
  int shift, first, cells;
};

inline QuantTable quantTable(bool either) {
  const BlockMap& map = blockMap(either);
  QuantTable t{};
  t.shift = map.shift, t.first = map.first, t.cells = map.cells;
  for (int i = 0; i < 256; ++i) t.values[i] = map.values[i], t.borders[i] = std::numeric_limits<float>::infinity();
  for (int i = 0; i < 255; ++i) t.borders[i] = borderOf(map.values[i], map.values[i + 1]);
  return t;
}

// What a block looks up: the code below the border of a cell is found once from the borders.
struct QuantLookup {
  float values[256], borders[256];
  std::uint8_t below[2 * 3000];

  // By all threads of a block; they meet before use.
  __device__ void fill(const QuantTable& t, int thread, int threads) {
    for (int i = thread; i < 256; i += threads) values[i] = t.values[i], borders[i] = t.borders[i];
    for (int at = thread; at < 2 * t.cells; at += threads) {
      const int cell = at % t.cells;
      const int nearest = cell == 0 ? 0 : (t.first + cell) << t.shift, farthest = ((t.first + cell + 1) << t.shift) - 1;
      const float lowest = at >= t.cells ? -sameBits<float>(farthest) : sameBits<float>(nearest);
      int code = 0;
      // The first border above.
      for (int half = 128; half > 0; half /= 2) {
        if (!(lowest < t.borders[code + half - 1])) code += half;
      }
      below[at] = static_cast<std::uint8_t>(code);
    }
  }
  __device__ std::uint8_t encode(const QuantTable& t, float x) const {
    const auto bits = sameBits<std::uint32_t>(x);
    int cell = static_cast<int>((bits & 0x7fffffffu) >> t.shift) - t.first;
    cell = cell < 0 ? 0 : cell >= t.cells ? t.cells - 1 : cell;
    const int code = below[cell + (bits >> 31 ? t.cells : 0)];
    return static_cast<std::uint8_t>(code + (x >= borders[code] ? 1 : 0));
  }
};

// The unit of a block of 256 numbers, of which each lane of a warp holds eight; those beyond the end are 0.
__device__ inline float unitOf(const float* x) {
  float most = 0;
  for (int k = 0; k < 8; ++k) most = std::fabs(x[k]) > most ? std::fabs(x[k]) : most;
  for (int apart = 16; apart > 0; apart /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, most, apart);
    most = other > most ? other : most;
  }
  return most == 0 ? 1 : most;
}

}  // namespace steepest::cuda
