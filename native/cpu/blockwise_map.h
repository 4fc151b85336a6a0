// The values of numbers in eight bits, and how the nearest is found (Dettmers et al., arXiv 2110.02861; the map of bitsandbytes, bit for
// bit).
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL {

constexpr std::int64_t kQuantBlock = 256;

constexpr std::int64_t quantBlocks(std::int64_t n) { return (n + kQuantBlock - 1) / kQuantBlock; }

// The 256 values in order, and how the nearest is found: the leading bits of a number name a cell, and a cell holds one border at most. It
// gives what looking at all values gives.
struct BlockMap {
  float values[256];
  int shift;  // bits of a number that do not matter for its cell
  std::int32_t first, cells;
  // Cells of positive numbers, then of negative ones: the code below the border, and the smallest number of the code above it.
  std::uint8_t below[2 * 3000];
  float border[2 * 3000];
};

// Middles of equal pieces of [0.1, 1], in seven decades with twice as many from one to the next, and 0 and 1.
inline void fillValues(bool either, float* values) {
  constexpr float scale[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1};
  int n = 0;
  for (int decade = 0; decade < 7; ++decade) {
    const int pieces = (either ? 1 : 2) << decade;
    const float step = (1.0f - 0.1f) / static_cast<float>(pieces);
    // Counted from the nearer end, as the original does.
    const auto edge = [&](int i) {
      return i < (pieces + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1f) : std::fma(-step, static_cast<float>(pieces - i), 1.0f);
    };
    for (int i = 0; i < pieces; ++i) {
      const float value = scale[decade] * ((edge(i) + edge(i + 1)) / 2);
      values[n++] = value;
      if (either) values[n++] = -value;
    }
  }
  values[n++] = 0;
  values[n++] = 1;
  std::sort(values, values + n);
}

// The smallest number whose distance to `above`, as float32 has it, is less than that to `below`.
inline float borderOf(float below, float above) {
  const auto up = [&](float x) { return above - x < x - below; };
  float x = below + (above - below) / 2;
  const float lowest = -std::numeric_limits<float>::infinity(), highest = std::numeric_limits<float>::infinity();
  while (up(x)) x = std::nextafter(x, lowest);
  while (!up(x)) x = std::nextafter(x, highest);
  return x;
}

inline BlockMap makeMap(bool either) {
  BlockMap map{};
  fillValues(either, map.values);
  float borders[255];
  for (int i = 0; i < 255; ++i) borders[i] = borderOf(map.values[i], map.values[i + 1]);
  // So many leading bits of the mantissa keep neighbouring borders apart.
  map.shift = 23 - (either ? 6 : 7);
  float least = 1;
  for (const float b : borders) least = std::min(least, std::fabs(b));
  // One cell for all that is nearer to zero than the least border.
  map.first = (std::bit_cast<std::int32_t>(least) >> map.shift) - 1;
  map.cells = (std::bit_cast<std::int32_t>(1.0f) >> map.shift) - map.first + 1;
  for (std::int32_t at = 0; at < 2 * map.cells; ++at) {
    const bool negative = at >= map.cells;
    const std::int32_t cell = at % map.cells;
    const std::int32_t nearest = cell == 0 ? 0 : (map.first + cell) << map.shift, farthest = ((map.first + cell + 1) << map.shift) - 1;
    const float lowest = negative ? -std::bit_cast<float>(farthest) : std::bit_cast<float>(nearest);
    const auto below = std::upper_bound(borders, borders + 255, lowest) - borders;
    map.below[at] = static_cast<std::uint8_t>(below);
    map.border[at] = below < 255 ? borders[below] : std::numeric_limits<float>::infinity();
  }
  return map;
}

// The map of numbers of either sign, or of those that are never negative.
inline const BlockMap& blockMap(bool either) {
  static const BlockMap signedMap = makeMap(true), unsignedMap = makeMap(false);
  return either ? signedMap : unsignedMap;
}

[[noreturn]] inline void wrongBlocks(const char* what) { throw Error("PROGRAM", std::string("blockwise: ") + what); }

// Numbers, their codes and units as operands of an instruction.
inline void checkBlocks(const View& numbers, const View& codes, const View& units) {
  bool same = numbers.rank == codes.rank;
  for (int i = 0; same && i < codes.rank; ++i) same = numbers.shape[i] == codes.shape[i];
  if (!same || numbers.dtype != DType::float32 || codes.dtype != DType::uint8)
    wrongBlocks("numbers must be float32 and codes uint8 of their shape");
  if (units.dtype != DType::float32 || units.rank != 1 || units.shape[0] != quantBlocks(codes.size()))
    wrongBlocks("there must be a float32 unit for every 256 numbers");
  if (!numbers.contiguous() || !codes.contiguous() || !units.contiguous()) wrongBlocks("operands must be contiguous");
}

inline void checkQuantize(std::span<const View> in, std::span<const View> out) {
  if (in.size() != 1 || out.size() != 2) wrongBlocks("quantizing takes one input and two outputs");
  checkBlocks(in[0], out[0], out[1]);
}

inline void checkDequantize(std::span<const View> in, std::span<const View> out) {
  if (in.size() != 2 || out.size() != 1) wrongBlocks("the way back takes two inputs and one output");
  checkBlocks(out[0], in[0], in[1]);
}

}  // namespace steepest::STEEPEST_LEVEL
