// What the backward kernels of attention share: from a block of scores and a block of gradients of weights to the weights and the
// gradients of the scores.
#pragma once

#include "cpu/attention.h"

namespace steepest::STEEPEST_LEVEL {

// The rows of one block of queries, for one head.
template <class S>
struct QueryRows {
  S *q, *dout, *delta, *lse;

  QueryRows(const AttentionShape& s, Layout& layout) {
    const std::int64_t width = s.paddedDepth<S>();
    q = layout.take<S>(kQueryBlock * width);
    dout = layout.take<S>(kQueryBlock * width);
    delta = layout.take<S>(kQueryBlock);
    lse = layout.take<S>(kQueryBlock);
  }

  // Scaled queries, gradients of the output, and per row Σ out·dout, which is Σ over the keys of weight · gradient of the weight.
  template <class T>
  void load(const Call& call, const AttentionShape& s, const AttentionOptions& o, std::int64_t b, std::int64_t h, std::int64_t t,
            std::int64_t n) const {
    using V = VecOf<T>;
    const std::int64_t width = s.paddedDepth<S>();
    packRows<T>(call.in[0], b, h, t, n, width, static_cast<S>(o.scale), q);
    packRows<T>(call.in[5], b, h, t, n, width, S(1), dout);
    for (std::int64_t i = 0; i < n; ++i) {
      const T* out = call.in[3].template as<T>() + ((b * s.queries + t + i) * s.heads + h) * s.depth;
      delta[i] = sum(sumVectors<V>(s.depth, [&](auto w, std::int64_t d) { return w.load(out + d) * w.load(dout + i * width + d); }));
      const S value = call.in[4].template as<S>()[(b * s.heads + h) * s.queries + t + i];
      // A row that sees nothing has weights of exp(score - ∞) = 0.
      lse[i] = value == -std::numeric_limits<S>::infinity() ? std::numeric_limits<S>::infinity() : value;
    }
  }
};

// Row i of a block: `scores` becomes what multiplied the values in the forward pass, `slopes` (gradients of that) the gradient of the
// scores: of the product of query and key, or with `Raw` of what the bias was added to. Columns [begin, end).
template <class T, bool Raw>
void scoreGradients(Visible<typename VecOf<T>::Scalar>& visible, const AttentionShape& shape, const AttentionOptions& o,
                    const AttentionOperands& operands, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t begin, std::int64_t end,
                    typename VecOf<T>::Scalar lse, typename VecOf<T>::Scalar delta, typename VecOf<T>::Scalar* scores,
                    typename VecOf<T>::Scalar* slopes, typename VecOf<T>::Scalar* factor) {
  using V = VecOf<T>;
  using S = typename V::Scalar;
  const S* const added = visible.added(b, h, t, begin, end);
  const S* kept = nullptr;
  if (o.dropout) {
    dropoutRow(shape, o, operands, b, h, t, begin, end, factor);
    kept = factor;
  }
  const V shift(lse), less(delta);
  if (o.softCap > 0) {
    const V cap(static_cast<S>(o.softCap)), inverse(static_cast<S>(1 / o.softCap));
    eachVector<V>(end - begin, [&](auto w, std::int64_t i) {
      const std::int64_t j = begin + i;
      const V bent = tanh(w.load(scores + j) * inverse);
      V x = cap * bent;
      if (added) x = x + w.load(added + j);
      const V p = exp(x - shift);
      const V m = kept ? w.load(kept + j) : V(1);
      const V ds = p * (m * w.load(slopes + j) - less);
      w.store(scores + j, p * m);
      w.store(slopes + j, Raw ? ds : ds * (V(1) - bent * bent));
    });
    return;
  }
  eachVector<V>(end - begin, [&](auto w, std::int64_t i) {
    const std::int64_t j = begin + i;
    V x = w.load(scores + j);
    if (added) x = x + w.load(added + j);
    const V p = exp(x - shift);
    if (kept) {
      const V m = w.load(kept + j);
      w.store(slopes + j, p * (m * w.load(slopes + j) - less));
      w.store(scores + j, p * m);
    } else {
      w.store(slopes + j, p * (w.load(slopes + j) - less));
      w.store(scores + j, p);
    }
  });
}

// Zeros outside [begin, end) in columns [left, right) of a row.
template <class S>
inline void clearOutside(S* row, std::int64_t begin, std::int64_t end, std::int64_t left, std::int64_t right) {
  if (begin >= end) {
    if (left < right) std::fill(row + left, row + right, S(0));
    return;
  }
  if (left < begin) std::fill(row + left, row + begin, S(0));
  if (end < right) std::fill(row + end, row + right, S(0));
}

}  // namespace steepest::STEEPEST_LEVEL
