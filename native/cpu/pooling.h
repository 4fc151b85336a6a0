// What pooling and its gradients share.
#pragma once

#include <string>

#include "cpu/conv_pack.h"
#include "cpu/pooling_checks.h"

namespace steepest::STEEPEST_LEVEL {

inline std::size_t alignPool(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// body(row, thread) for all rows, tiled by their length.
template <class F>
inline void eachRow(Pool& pool, std::int64_t rows, std::int64_t columns, F&& body)
  requires std::is_invocable_v<F, std::int64_t, int>
{
  const std::int64_t step = rowsPerTile(columns);
  pool.run((rows + step - 1) / step, [&](std::int64_t tile, int thread) {
    const std::int64_t end = std::min(rows, (tile + 1) * step);
    for (std::int64_t row = tile * step; row < end; ++row) body(row, thread);
  });
}

}  // namespace steepest::STEEPEST_LEVEL
