// How a product is cut into tiles: by its shape only, so that the bits do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL {

// [0, length) in pieces of `each`, the last of which may be shorter.
struct Cut {
  std::int64_t length = 0, each = 1;
  Cut() = default;
  Cut(std::int64_t length, std::int64_t pieces, std::int64_t multiple) : length(length) {
    const std::int64_t even = (length + pieces - 1) / pieces;
    each = std::max<std::int64_t>(1, (even + multiple - 1) / multiple * multiple);
  }
  std::int64_t count() const { return std::max<std::int64_t>(1, (length + each - 1) / each); }
  std::int64_t begin(std::int64_t i) const { return i * each; }
  std::int64_t size(std::int64_t i) const { return std::min(each, length - i * each); }
  bool isLast(std::int64_t i) const { return i == count() - 1; }
};

struct MatmulGrid {
  Cut m, n, k;

  // Tiles of at most 256 x 384 (they and the panels that they are made from stay in a second-level cache of 1 MB), halved down to
  // 64 x 64 until there are 16 of them. Where even then there are fewer than 8, a long inner dimension is cut too, into pieces that
  // are summed afterwards.
  // Measured on an AMD EPYC (Zen 5, AVX-512, 2 cores): see the figures at kTileM.
  MatmulGrid(std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t depth);

  // How many tiles one thread takes at a time: enough to be worth waking it.
  std::int64_t tilesPerTask() const;
};

}  // namespace steepest::STEEPEST_LEVEL
