// Numbers in eight bits: blocks of 256 share the largest absolute value among them as their unit, and every number is the nearest of 256
// values in [-1, 1] that lie dense near zero (Dettmers et al., arXiv 2110.02861; the map of bitsandbytes, bit for bit).
#pragma once

#include <cstdint>

#include "math/vec.h"

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

// The map of numbers of either sign, or of those that are never negative.
const BlockMap& blockMap(bool either);

// Numbers at [first, first + n) of an array. `codes` begins at `first`, `units` at the array's first block.
void dequantize(const BlockMap& map, const std::uint8_t* codes, const float* units, std::int64_t first, float* to, std::int64_t n);

// Whole blocks, but for the last of the array. Of numbers that are equally far from two values, the lower is taken; a block of zeros has
// unit 1.
void quantize(const BlockMap& map, const float* from, std::uint8_t* codes, float* units, std::int64_t n);

}  // namespace steepest::STEEPEST_LEVEL
