// What the indexing kernels share.
#pragma once

#include <atomic>

#include "cpu/layout.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL::indexing {

constexpr int kIndexFault = 2;
constexpr std::int64_t kTile = 65536;  // bytes, or elements that are added, of one task

inline void checkIndices(const View& indices, const char* op) {
  layout::check(indices.dtype == DType::int32 && indices.contiguous(), op, "indices are contiguous int32");
}

// Data [batch, outer, n, inner] and indices [batch, m]; between them [batch, outer, m, inner].
struct Slices {
  std::int64_t batch, outer, n, m, inner;
};

// `whole` has the axis, `parts` has the axes of the indices in its place.
inline Slices slicesOf(const View& whole, const View& indices, const View& parts, std::int64_t axis, std::int64_t batchDims,
                       const char* op) {
  checkIndices(indices, op);
  layout::check(whole.dtype == parts.dtype && whole.contiguous() && parts.contiguous(), op, "operands are contiguous and of one dtype");
  layout::check(axis >= 0 && axis < whole.rank && batchDims >= 0 && batchDims <= axis && batchDims <= indices.rank, op,
                "axis and batch axes");
  const int a = static_cast<int>(axis), b = static_cast<int>(batchDims), more = indices.rank - b;
  layout::check(parts.rank == whole.rank - 1 + more, op, "ranks");
  for (int i = 0; i < b; ++i) layout::check(indices.shape[i] == whole.shape[i], op, "batch axes of the indices");
  for (int i = 0; i < a; ++i) layout::check(parts.shape[i] == whole.shape[i], op, "axes before the axis");
  for (int i = 0; i < more; ++i) layout::check(parts.shape[a + i] == indices.shape[b + i], op, "axes of the indices");
  for (int i = a + 1; i < whole.rank; ++i) layout::check(parts.shape[i - 1 + more] == whole.shape[i], op, "axes after the axis");
  const Slices s{layout::span(whole, 0, b), layout::span(whole, b, a), whole.shape[a], layout::span(indices, b, indices.rank),
                 layout::span(whole, a + 1, whole.rank)};
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  layout::check(s.n <= most && s.m <= most, op, "indices are 32 bits");
  return s;
}

// Values [outer, n, inner], indices [outer, m, inner].
struct Along {
  std::int64_t outer, n, m, inner;
};

inline Along alongOf(const View& x, const View& indices, std::int64_t axis, const char* op) {
  checkIndices(indices, op);
  layout::check(axis >= 0 && axis < x.rank && indices.rank == x.rank && x.contiguous(), op, "axis and ranks");
  const int a = static_cast<int>(axis);
  for (int i = 0; i < x.rank; ++i) layout::check(i == a || x.shape[i] == indices.shape[i], op, "lengths other than the axis'");
  return {layout::span(x, 0, a), x.shape[a], indices.shape[a], layout::span(x, a + 1, x.rank)};
}

// Values [batch, outer, n, inner], a part [batch, outer, size, inner] of them, and one start per batch; inner in bytes.
struct Window {
  std::int64_t batch, outer, n, size, inner;
};

inline Window windowOf(const View& whole, const View& part, const View& start, std::int64_t axis, std::int64_t batchDims, const char* op) {
  checkIndices(start, op);
  layout::check(whole.dtype == part.dtype && whole.contiguous() && part.contiguous(), op, "operands are contiguous and of one dtype");
  layout::check(whole.rank == part.rank && axis >= 0 && axis < whole.rank && batchDims >= 0 && batchDims <= axis, op, "ranks and axes");
  const int a = static_cast<int>(axis), b = static_cast<int>(batchDims);
  for (int i = 0; i < whole.rank; ++i) layout::check(i == a || whole.shape[i] == part.shape[i], op, "lengths other than the axis'");
  layout::check(start.rank == b && part.shape[a] <= whole.shape[a], op, "start and length of the part");
  for (int i = 0; i < b; ++i) layout::check(start.shape[i] == whole.shape[i], op, "batch axes of the start");
  return {layout::span(whole, 0, b), layout::span(whole, b, a), whole.shape[a], part.shape[a],
          layout::span(whole, a + 1, whole.rank) * static_cast<std::int64_t>(sizeOf(whole.dtype))};
}

}  // namespace steepest::STEEPEST_LEVEL::indexing
