// Reductions of slices by their index: a stable counting sort of the indices, then tiles over the sorted order, so that work is even
// however many slices fall together. What is cut by a tile's border is kept apart and joined in order.
#pragma once

#include "cpu/copy.h"
#include "cpu/indexing.h"
#include "cpu/reduce_pack.h"

namespace steepest::STEEPEST_LEVEL::segment {

using indexing::Slices;
using layout::ceilDiv;
using reduction::plain;

constexpr int kColumns = 128;  // neighbouring elements that are reduced together
constexpr int kRun = 32;       // slices that are added in the type that computes before they are joined in float64

template <class T>
void assign(T& to, double x) {
  if constexpr (std::is_same_v<T, bf16>)
    to.bits = layout::bitsOf<std::uint16_t>(x, DType::bfloat16);
  else
    to = static_cast<T>(x);
}
template <class T>
void assign(T& to, std::int64_t x) {
  to = static_cast<T>(static_cast<std::uint64_t>(x));
}

// As an elementwise sum of two tensors gives it.
template <class T>
T sumOf(T a, T b) {
  if constexpr (std::is_same_v<T, bf16>) {
    T to{};
    assign(to, static_cast<double>(plain(a) + plain(b)));
    return to;
  } else if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  } else {
    return a + b;
  }
}

// Op: merge(a, b) for floats and integers, and the value of nothing. With `base` the results are added to the third input, which may be the
// output itself.
template <class T, class Op>
class Segment final : public Kernel {
  static constexpr bool kWhole = std::is_integral_v<T>;
  using Compute = std::conditional_t<std::is_same_v<T, double>, double, std::conditional_t<kWhole, std::int64_t, float>>;
  using Part = std::conditional_t<kWhole, std::int64_t, double>;

 public:
  Segment(const Slices& s, bool base) : s_(s), base_(base) {
    piece_ = std::max<std::int64_t>(kRun, indexing::kTile / std::max<std::int64_t>(1, s.inner));
    pieces_ = std::max<std::int64_t>(1, ceilDiv(s.m, piece_));
    lines_ = s.batch * s.outer;
    order_ = align(static_cast<std::size_t>(s.batch * (s.n + 1)) * 4);
    parts_ = order_ + align(static_cast<std::size_t>(s.batch * s.m) * 4);
    workspace = parts_ + (pieces_ > 1 ? static_cast<std::size_t>(lines_ * pieces_ * 2 * s.inner) * sizeof(Part) : 0);
  }

  void run(const Call& call) const override {
    if (s_.inner == 0 || lines_ == 0) return;
    sort(call);
    fillEmpty(call);
    const std::int64_t group = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, s_.m * s_.inner));
    const std::int64_t all = lines_ * pieces_;
    call.pool.run(ceilDiv(all, group), [&](std::int64_t tile, int) {
      for (std::int64_t i = tile * group; i < std::min(all, (tile + 1) * group); ++i) reducePiece(call, i / pieces_, i % pieces_);
    });
    if (pieces_ == 1) return;
    call.pool.run(all, [&](std::int64_t i, int) { join(call, i / pieces_, i % pieces_); });
  }

 private:
  static std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  // Where the slices of segment k begin in `order`; its end is the start of segment k + 1.
  std::int32_t* starts(const Call& call, std::int64_t b) const { return reinterpret_cast<std::int32_t*>(call.workspace) + b * (s_.n + 1); }
  std::int32_t* order(const Call& call, std::int64_t b) const {
    return reinterpret_cast<std::int32_t*>(call.workspace + order_) + b * s_.m;
  }
  Part* slot(const Call& call, std::int64_t line, std::int64_t piece, int which) const {
    return reinterpret_cast<Part*>(call.workspace + parts_) + ((line * pieces_ + piece) * 2 + which) * s_.inner;
  }

  void sort(const Call& call) const {
    call.pool.run(s_.batch, [&](std::int64_t b, int) {
      const std::int32_t* indices = call.in[1].as<std::int32_t>() + b * s_.m;
      std::int32_t* start = starts(call, b);
      std::int32_t* to = order(call, b);
      std::fill_n(start, s_.n + 1, 0);
      bool whole = true;
      for (std::int64_t j = 0; j < s_.m; ++j) {
        const bool good = indices[j] >= 0 && indices[j] < s_.n;
        whole &= good;
        if (good) ++start[indices[j]];
      }
      if (!whole) call.fault.store(indexing::kIndexFault);
      std::int32_t end = 0;
      for (std::int64_t k = 0; k <= s_.n; ++k) {
        end += start[k];
        start[k] = end;
      }
      // From the last to the first, so that each start moves back to where it belongs and equal indices keep their order.
      for (std::int64_t j = s_.m - 1; j >= 0; --j) {
        if (indices[j] >= 0 && indices[j] < s_.n) to[--start[indices[j]]] = static_cast<std::int32_t>(j);
      }
    });
  }

  void fillEmpty(const Call& call) const {
    T none{};
    assign(none, static_cast<Part>(Op::template none<T>()));
    const std::int64_t rows = lines_ * s_.n;
    const std::int64_t group = std::max<std::int64_t>(1, indexing::kTile / s_.inner);
    call.pool.run(ceilDiv(rows, group), [&](std::int64_t tile, int) {
      for (std::int64_t r = tile * group; r < std::min(rows, (tile + 1) * group); ++r) {
        const std::int32_t* start = starts(call, r / s_.n / s_.outer) + r % s_.n;
        if (start[0] != start[1]) continue;
        T* const to = call.out[0].as<T>() + r * s_.inner;
        if (!base_)
          std::fill_n(to, s_.inner, none);
        else if (const T* const from = call.in[2].as<T>() + r * s_.inner; from != to)
          std::copy_n(from, s_.inner, to);
      }
    });
  }

  void reducePiece(const Call& call, std::int64_t line, std::int64_t piece) const {
    const std::int32_t* start = starts(call, line / s_.outer);
    const std::int32_t* from = order(call, line / s_.outer);
    const std::int32_t* indices = call.in[1].as<std::int32_t>() + line / s_.outer * s_.m;
    const std::int64_t first = piece * piece_, end = std::min<std::int64_t>(start[s_.n], first + piece_);
    const T* x = call.in[0].as<T>() + line * s_.m * s_.inner;
    const std::int64_t y = line * s_.n * s_.inner;
    for (std::int64_t at = first; at < end;) {
      const std::int64_t k = indices[from[at]];
      const std::int64_t past = std::min<std::int64_t>(end, start[k + 1]);
      const bool whole = start[k] >= first && start[k + 1] <= end;
      Part* part = whole ? nullptr : slot(call, line, piece, at == first ? 0 : 1);
      for (std::int64_t c = 0; c < s_.inner; c += kColumns) {
        const int width = static_cast<int>(std::min<std::int64_t>(kColumns, s_.inner - c));
        Part total[kColumns];
        reduceColumns(x + c, from + at, past - at, width, total);
        if (whole)
          for (int i = 0; i < width; ++i) put(call, y + k * s_.inner + c + i, total[i]);
        else
          std::copy_n(total, width, part + c);
      }
      at = past;
    }
  }

  void reduceColumns(const T* x, const std::int32_t* from, std::int64_t count, int width, Part* total) const {
    for (std::int64_t at = 0; at < count; at += kRun) {
      const std::int64_t end = std::min(count, at + kRun);
      Compute run[kColumns];
      const T* p = x + from[at] * s_.inner;
      for (int i = 0; i < width; ++i) run[i] = static_cast<Compute>(plain(p[i]));
      for (std::int64_t j = at + 1; j < end; ++j) {
        p = x + from[j] * s_.inner;
        for (int i = 0; i < width; ++i) run[i] = Op::merge(run[i], static_cast<Compute>(plain(p[i])));
      }
      if (at == 0)
        for (int i = 0; i < width; ++i) total[i] = static_cast<Part>(run[i]);
      else
        for (int i = 0; i < width; ++i) total[i] = Op::merge(total[i], static_cast<Part>(run[i]));
    }
  }

  // The segment that begins in a piece and goes on in the next ones.
  void join(const Call& call, std::int64_t line, std::int64_t piece) const {
    const std::int32_t* start = starts(call, line / s_.outer);
    const std::int64_t first = piece * piece_, end = first + piece_;
    if (end >= start[s_.n]) return;
    const std::int64_t k = call.in[1].as<std::int32_t>()[line / s_.outer * s_.m + order(call, line / s_.outer)[end - 1]];
    if (start[k] < first || start[k + 1] <= end) return;
    const Part* own = slot(call, line, piece, start[k] == first ? 0 : 1);
    for (std::int64_t c = 0; c < s_.inner; ++c) {
      Part total = own[c];
      for (std::int64_t p = piece + 1; p * piece_ < start[k + 1]; ++p) total = Op::merge(total, slot(call, line, p, 0)[c]);
      put(call, (line * s_.n + k) * s_.inner + c, total);
    }
  }

  void put(const Call& call, std::int64_t at, Part total) const {
    T value{};
    assign(value, total);
    call.out[0].as<T>()[at] = base_ ? sumOf(call.in[2].as<T>()[at], value) : value;
  }

  Slices s_;
  bool base_;
  std::int64_t piece_, pieces_, lines_;
  std::size_t order_, parts_;
};

template <class Op>
std::unique_ptr<Kernel> make(DType dtype, const Slices& s, const char* op, bool base = false) {
  switch (dtype) {
    case DType::float32:
      return std::make_unique<Segment<float, Op>>(s, base);
    case DType::bfloat16:
      return std::make_unique<Segment<bf16, Op>>(s, base);
    case DType::float64:
      return std::make_unique<Segment<double, Op>>(s, base);
    case DType::int32:
      return std::make_unique<Segment<std::int32_t, Op>>(s, base);
    default:
      throw Error("PROGRAM", std::string(op) + ": floats or int32");
  }
}

}  // namespace steepest::STEEPEST_LEVEL::segment
