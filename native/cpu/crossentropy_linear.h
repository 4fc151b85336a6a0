// What the ops of a linear layer with its cross-entropy share: products by the sizes of tiles, and sums of rows.
#pragma once

#include <map>
#include <tuple>

#include "cpu/crossentropy_linear_checks.h"
#include "cpu/gemm.h"

namespace steepest::STEEPEST_LEVEL::linear_loss {

// Tiles that threads take.
constexpr std::int64_t kRows = 256, kColumns = 512, kSide = 256;

inline std::int64_t tilesOf(std::int64_t n, std::int64_t step) { return (n + step - 1) / step; }
inline std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Products by their sizes: of a cut shape there are few.
class Products {
 public:
  void add(const GemmShape& s) {
    const Key key = keyOf(s);
    if (products_.count(key)) return;
    scratch_ = std::max(scratch_, products_.emplace(key, Gemm(s)).first->second.scratch());
  }
  const Gemm& of(const GemmShape& s) const { return products_.at(keyOf(s)); }
  std::size_t scratch() const { return aligned(scratch_); }

 private:
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, DType, bool>;
  static Key keyOf(const GemmShape& s) { return {s.m, s.n, s.k, s.aRow, s.bRow, s.cRow, s.out, s.accumulate}; }
  std::map<Key, Gemm> products_;
  std::size_t scratch_ = 0;
};

// The lengths that tiles of `step` have: the whole one and the last.
template <class F>
void lengths(std::int64_t n, std::int64_t step, F&& f) {
  if (n >= step) f(step);
  if (n % step) f(n % step);
}

// logits[r][j] = x[r]·weight[j].
inline GemmShape logitProduct(const Dims& d, std::int64_t rows, std::int64_t columns, std::int64_t outRow) {
  return {rows, columns, d.width, d.width, 1, 1, d.width, outRow, d.type, statistics(d.type), false};
}

template <class S, class T>
void addBias(S* logits, std::int64_t rows, std::int64_t columns, std::int64_t row, const T* bias) {
  using V = VecOf<T>;
  if (!bias) return;
  for (std::int64_t r = 0; r < rows; ++r, logits += row) {
    eachVector<V>(columns, [&](auto w, std::int64_t i) { w.store(logits + i, w.load(logits + i) + w.load(bias + i)); });
  }
}

// Sums as the numbers of an output.
template <class S, class T>
void toNearest(Pool& pool, const S* from, std::int64_t n, T* to) {
  constexpr std::int64_t kStep = 16384;
  pool.run(tilesOf(n, kStep), [&](std::int64_t tile, int) {
    const std::int64_t begin = tile * kStep;
    eachVector<VecOf<T>>(std::min(kStep, n - begin), [&](auto w, std::int64_t i) { w.store(to + begin + i, w.load(from + begin + i)); });
  });
}

// The losses and log-sum-exps (outputs 0 and 1) of `rows` rows from the first on. From tiles of their logits: the sums of every row over
// each tile of columns, and its logit at the label. Labels are input 2.
template <class S, class V = VecOf<S>>
void rowLosses(const Call& call, std::int64_t first, std::int64_t rows, std::int64_t columns, const RowSums<S>* sums, const S* picked,
               const CrossEntropyOptions& options) {
  const std::int64_t tiles = tilesOf(columns, kColumns);
  const std::int32_t* const labels = call.in[2].template as<std::int32_t>();
  eachRow(call.pool, rows, 64 * tiles, [&](std::int64_t r) {
    const std::int64_t row = first + r;
    RowSums<S> all{-std::numeric_limits<S>::infinity(), 0, 0};
    for (std::int64_t c = 0; c < tiles; ++c) all = c ? join<V>(all, sums[r * tiles + c]) : sums[r * tiles];
    const S lse = logSumExp<V>(all);
    call.out[1].template as<S>()[row] = lse;
    const Label label = judge(labels[row], columns, options);
    if (label == Label::wrong) faultIndex(call.fault);
    call.out[0].template as<S>()[row] = label == Label::column    ? rowLoss(lse, picked[r], all.plain, columns, options)
                                        : label == Label::ignored ? S(0)
                                                                  : std::numeric_limits<S>::quiet_NaN();
  });
}

// What a tile of logits, rows of `row` numbers, tells of the losses: see rowLosses. `first` is the column that it begins with.
template <class S, class V = VecOf<S>>
void tileSums(const S* logits, std::int64_t rows, std::int64_t row, std::int64_t first, std::int64_t columns, std::int64_t tiles,
              const std::int32_t* labels, RowSums<S>* sums, S* picked, const CrossEntropyOptions& options) {
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t label = labels[r] - first;
    sums[r * tiles + first / kColumns] = rowSums(logits + r * row, columns, options);
    if (label >= 0 && label < columns) picked[r] = firstLane(Cap<V>(options.softCap)(V::load(logits + r * row + label, 1)));
  }
}

}  // namespace steepest::STEEPEST_LEVEL::linear_loss
