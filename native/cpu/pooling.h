// What pooling and its gradients share.
#pragma once

#include <string>

#include "cpu/conv_pack.h"
#include "cpu/conv_shape.h"
#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

inline std::size_t alignPool(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Windows of x [N, C, in] that give y [N, C, out]. Each begins within the input or the padding before it, and sees the input.
Windows poolWindows(const char* who, const View& x, const View& y, const std::vector<std::int64_t>& size,
                    const std::vector<std::int64_t>& stride, const std::vector<std::int64_t>& padding,
                    const std::vector<std::int64_t>& dilation);

// By how many places along an axis the mean of window i is divided: those of the input and, with `pads`, of the padding.
inline std::int64_t placesSeen(const Windows& v, int axis, std::int64_t i, bool pads) {
  const std::int64_t start = i * v.stride[axis] - v.before[axis];
  const std::int64_t end = std::min(start + v.size[axis], v.in[axis] + v.after[axis]);
  return pads ? end - start : std::min(end, v.in[axis]) - std::max<std::int64_t>(start, 0);
}

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
