// Numbers in eight bits: blocks of 256 share the largest absolute value among them as their unit, and every number is the nearest of 256
// values in [-1, 1] that lie dense near zero (Dettmers et al., arXiv 2110.02861; the map of bitsandbytes, bit for bit).
#pragma once

#include <cstdint>

#include "blockwise_map.h"

namespace steepest::STEEPEST_LEVEL {

// Numbers at [first, first + n) of an array. `codes` begins at `first`, `units` at the array's first block.
void dequantize(const BlockMap& map, const std::uint8_t* codes, const float* units, std::int64_t first, float* to, std::int64_t n);

// Whole blocks, but for the last of the array. Of numbers that are equally far from two values, the lower is taken; a block of zeros has
// unit 1.
void quantize(const BlockMap& map, const float* from, std::uint8_t* codes, float* units, std::int64_t n);

}  // namespace steepest::STEEPEST_LEVEL
