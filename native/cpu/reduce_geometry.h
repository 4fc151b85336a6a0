// Which way a strided operand is walked when some of its axes are reduced.
#pragma once

#include <span>
#include <vector>

#include "cpu/layout.h"

namespace steepest::STEEPEST_LEVEL::reduction {

using layout::ceilDiv;

constexpr int kChunk = 4096;           // elements of one output that one call of Op::row sees
constexpr int kColumns = 256;          // outputs that one call of Op::columns sees
constexpr int kRows = 32;              // rows of that call
constexpr std::int64_t kTile = 65536;  // elements of a tile; also of a piece of a long reduction
constexpr std::int64_t kEnough = 64;   // tiles that keep any number of threads busy without cutting the reduction itself

struct Geometry {
  layout::Loops<2> kept;     // steps in the input and in the output
  layout::Loops<1> reduced;  // steps in the input
  std::int64_t outputs = 1;
  std::int64_t length = 1;
  // Columns: neighbouring outputs lie nearer than the elements of one output, so rows of outputs are summed into each other.
  bool byColumns = false;
  // The loop of `kept` that runs along such a row, taken out of it.
  layout::Loop<2> column{1, {0, 0}};
  std::int64_t fold = 1;  // rows that are contiguous with each other and are handled as one longer row
  std::int64_t pieces = 1;
  std::int64_t pieceLength = 0;  // elements, or (by columns) rows after folding
};

inline Geometry geometryOf(const View& in, const View& out, std::span<const std::int64_t> axes, bool keepDims, const char* op) {
  bool reduce[kMaxRank] = {};
  for (const std::int64_t axis : axes) {
    layout::check(axis >= 0 && axis < in.rank && !reduce[axis], op, "axes must be distinct axes of the input");
    reduce[axis] = true;
  }
  layout::check(out.rank == (keepDims ? in.rank : in.rank - static_cast<int>(axes.size())), op, "rank of the output");
  layout::check(out.contiguous(), op, "the output must be contiguous");

  Geometry g;
  std::vector<layout::Loop<1>> order;
  for (int i = 0, o = 0; i < in.rank; ++i) {
    if (reduce[i]) {
      g.length *= in.shape[i];
      order.push_back({in.shape[i], {in.strides[i]}});
      if (keepDims) layout::check(out.shape[o++] == 1, op, "a reduced axis that is kept has length 1");
    } else {
      layout::check(out.shape[o] == in.shape[i], op, "shape of the output");
      g.outputs *= in.shape[i];
      g.kept.add(in.shape[i], {in.strides[i], out.strides[o]});
      ++o;
    }
  }
  if (g.outputs == 0 || g.length == 0) return g;
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return layout::distance(a.step[0]) > layout::distance(b.step[0]); });
  for (const auto& loop : order) g.reduced.add(loop.n, loop.step);

  int nearest = -1;
  for (int i = 0; i < g.kept.rank; ++i) {
    if (nearest < 0 || layout::distance(g.kept.at[i].step[0]) <= layout::distance(g.kept.at[nearest].step[0])) nearest = i;
  }
  if (nearest >= 0) {
    const layout::Loop<2> column = g.kept.at[nearest];
    const std::int64_t far = g.reduced.rank ? layout::distance(g.reduced.at[g.reduced.rank - 1].step[0]) : layout::distance(0);
    g.byColumns = layout::distance(column.step[0]) < far || (g.length <= kRows && column.n >= 64);
    if (g.byColumns) {
      g.column = column;
      layout::Loops<2> rest;
      for (int i = 0; i < g.kept.rank; ++i) {
        if (i != nearest) rest.add(g.kept.at[i].n, g.kept.at[i].step);
      }
      g.kept = rest;
    }
  }

  if (!g.byColumns) {
    g.pieceLength = g.length;
    if (g.outputs < kEnough && g.length > kTile) {
      g.pieceLength = kTile;
      g.pieces = ceilDiv(g.length, kTile);
    }
    return g;
  }
  if (g.reduced.rank == 1 && g.column.step[0] == 1 && g.reduced.at[0].step[0] == g.column.n && g.column.n <= kColumns / 2 &&
      g.length >= 4 * (kColumns / g.column.n)) {
    g.fold = kColumns / g.column.n;
  }
  const std::int64_t rows = g.length / g.fold;
  const std::int64_t width = std::min<std::int64_t>(kColumns, g.fold * g.column.n);
  g.pieceLength = rows;
  if (g.outputs / g.column.n * ceilDiv(g.column.n, kColumns) < kEnough) {
    const std::int64_t piece = ceilDiv(std::max<std::int64_t>(kTile / width, kRows), kRows) * kRows;
    if (rows > piece) {
      g.pieceLength = piece;
      g.pieces = ceilDiv(rows, piece);
    }
  }
  return g;
}

}  // namespace steepest::STEEPEST_LEVEL::reduction
