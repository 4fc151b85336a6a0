// The walk of every reduction. An Op says how a run of elements, or a stack of rows, becomes a partial result:
//
//   Scalar, Part                                    what it reads (float, double, int64) and what it keeps per output
//   empty() combine(Part&, Part)                    the partial result of nothing; joins two, in order
//   row(x, n, first)                                partial result of n <= kChunk elements, the first of them number `first`
//   columns(rows, count, first, width, parts)       joins `count` <= kRows rows of `width` <= kColumns elements into `parts`
//   unfold(Part, k, fold)                           renumbers a part whose element i is number i * fold + k
//   finish(Part)                                    the number that is stored
//
// Tiles, pieces and their order follow from shape and strides alone.
#pragma once

#include "cpu/reduce_geometry.h"
#include "cpu/reduce_pack.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL::reduction {

template <class Op>
class Reducer final : public Kernel {
  using Scalar = typename Op::Scalar;
  using Part = typename Op::Part;

 public:
  // `scale` multiplies what is stored.
  Reducer(const Geometry& geometry, DType from, Pack<Scalar> pack, bool native, double scale = 1)
      : g_(geometry), pack_(pack), native_(native), scale_(scale), bytes_(static_cast<std::int64_t>(sizeOf(from))) {
    if (g_.pieces > 1) workspace = static_cast<std::size_t>(g_.pieces * g_.outputs) * sizeof(Part);
  }

  void run(const Call& call) const override {
    const View& out = call.out[0];
    if (g_.outputs == 0) return;
    if (g_.length == 0) {
      for (std::int64_t i = 0; i < g_.outputs; ++i) write(out, i, Op::empty());
      return;
    }
    Part* parts = reinterpret_cast<Part*>(call.workspace);
    if (g_.byColumns)
      columns(call, parts);
    else
      rows(call, parts);
    if (g_.pieces == 1) return;
    constexpr std::int64_t kGroup = 1024;
    call.pool.run(ceilDiv(g_.outputs, kGroup), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(g_.outputs, (tile + 1) * kGroup);
      for (std::int64_t o = tile * kGroup; o < end; ++o) {
        Part total = parts[o];
        for (std::int64_t p = 1; p < g_.pieces; ++p) Op::combine(total, parts[p * g_.outputs + o]);
        write(out, o, total);
      }
    });
  }

 private:
  void write(const View& out, std::int64_t at, const Part& part) const {
    const auto x = Op::finish(part);
    if constexpr (std::is_same_v<decltype(x), const double>)
      put(out, at, x * scale_);
    else
      put(out, at, x);
  }

  const Scalar* direct(const View& in, std::int64_t offset) const { return reinterpret_cast<const Scalar*>(in.data + offset * bytes_); }

  Part rowOf(const View& in, std::int64_t base, std::int64_t begin, std::int64_t end) const {
    Part total = Op::empty();
    const bool whole = native_ && (g_.reduced.rank == 0 || (g_.reduced.rank == 1 && g_.reduced.at[0].step[0] == 1));
    if (whole) {
      for (std::int64_t at = begin; at < end; at += kChunk) {
        const int n = static_cast<int>(std::min<std::int64_t>(kChunk, end - at));
        Op::combine(total, Op::row(direct(in, base + at), n, at));
      }
      return total;
    }
    alignas(64) Scalar chunk[kChunk];
    layout::Walk<1> walk(g_.reduced, begin);
    const std::int64_t step = g_.reduced.rank ? g_.reduced.at[g_.reduced.rank - 1].step[0] : 0;
    for (std::int64_t at = begin; at < end; at += kChunk) {
      const int n = static_cast<int>(std::min<std::int64_t>(kChunk, end - at));
      for (int filled = 0; filled < n;) {
        const int run = static_cast<int>(std::min<std::int64_t>(walk.run(), n - filled));
        pack_(in.data, base + walk.offset(), step, run, chunk + filled);
        walk.advance(run);
        filled += run;
      }
      Op::combine(total, Op::row(chunk, n, at));
    }
    return total;
  }

  void rows(const Call& call, Part* parts) const {
    const View& in = call.in[0];
    const std::int64_t group = std::max<std::int64_t>(1, kTile / g_.pieceLength);
    const std::int64_t groups = ceilDiv(g_.outputs, group);
    call.pool.run(groups * g_.pieces, [&](std::int64_t tile, int) {
      const std::int64_t piece = tile / groups;
      const std::int64_t from = tile % groups * group, to = std::min(g_.outputs, from + group);
      const std::int64_t begin = piece * g_.pieceLength, end = std::min(g_.length, begin + g_.pieceLength);
      layout::Walk<2> walk(g_.kept, from);
      for (std::int64_t o = from; o < to; ++o, walk.advance()) {
        const Part part = rowOf(in, walk.offset(0), begin, end);
        if (g_.pieces > 1)
          parts[piece * g_.outputs + walk.offset(1)] = part;
        else
          write(call.out[0], walk.offset(1), part);
      }
    });
  }

  // Joins rows [begin, end) of `fold` input rows each, `width` elements wide, into parts.
  void stack(const View& in, std::int64_t base, std::int64_t fold, std::int64_t begin, std::int64_t end, int width, Part* parts) const {
    alignas(64) Scalar block[kRows][kColumns];
    const Scalar* pointers[kRows];
    const std::int64_t step = g_.column.step[0];
    layout::Walk<1> walk(g_.reduced, begin * fold);
    for (std::int64_t r = begin; r < end; r += kRows) {
      const int count = static_cast<int>(std::min<std::int64_t>(kRows, end - r));
      for (int i = 0; i < count; ++i) {
        const std::int64_t offset = base + walk.offset();
        if (native_ && step == 1) {
          pointers[i] = direct(in, offset);
        } else {
          pack_(in.data, offset, step, width, block[i]);
          pointers[i] = block[i];
        }
        walk.advance(fold);
      }
      Op::columns(pointers, count, r, width, parts);
    }
  }

  void columns(const Call& call, Part* parts) const {
    const View& in = call.in[0];
    const std::int64_t tiles = g_.fold > 1 ? 1 : ceilDiv(g_.column.n, kColumns);
    const std::int64_t all = g_.outputs / g_.column.n * tiles;
    const std::int64_t width = std::min<std::int64_t>(kColumns, g_.column.n);
    const std::int64_t group = std::max<std::int64_t>(1, kTile / (g_.pieceLength * g_.fold * width));
    const std::int64_t groups = ceilDiv(all, group);
    call.pool.run(groups * g_.pieces, [&](std::int64_t tile, int) {
      const std::int64_t piece = tile / groups;
      const std::int64_t from = tile % groups * group, to = std::min(all, from + group);
      for (std::int64_t i = from; i < to; ++i) {
        const layout::Walk<2> walk(g_.kept, i / tiles);
        columnTile(call, in, walk.offset(0), walk.offset(1), i % tiles * kColumns, piece, parts);
      }
    });
  }

  void columnTile(const Call& call, const View& in, std::int64_t base, std::int64_t to, std::int64_t first, std::int64_t piece,
                  Part* parts) const {
    Part sums[kColumns];
    const std::int64_t rows = g_.length / g_.fold;
    const std::int64_t begin = piece * g_.pieceLength, end = std::min(rows, begin + g_.pieceLength);
    const int width = static_cast<int>(std::min<std::int64_t>(kColumns, g_.column.n - first));
    const int folded = g_.fold > 1 ? static_cast<int>(g_.fold * g_.column.n) : width;
    std::fill_n(sums, folded, Op::empty());
    stack(in, base + first * g_.column.step[0], g_.fold, begin, end, folded, sums);
    if (g_.fold > 1) {
      for (int c = 0; c < width; ++c) {
        Part total = Op::unfold(sums[c], 0, g_.fold);
        for (int f = 1; f < g_.fold; ++f) Op::combine(total, Op::unfold(sums[f * width + c], f, g_.fold));
        sums[c] = total;
      }
      if (piece == g_.pieces - 1) stack(in, base, 1, rows * g_.fold, g_.length, width, sums);
    }
    for (int c = 0; c < width; ++c) {
      const std::int64_t at = to + (first + c) * g_.column.step[1];
      if (g_.pieces > 1)
        parts[piece * g_.outputs + at] = sums[c];
      else
        write(call.out[0], at, sums[c]);
    }
  }

  Geometry g_;
  Pack<Scalar> pack_;
  bool native_;
  double scale_;
  std::int64_t bytes_;
};

}  // namespace steepest::STEEPEST_LEVEL::reduction
