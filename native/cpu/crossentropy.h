// Rows of the cross-entropy: from logits to loss, and back to the gradient of the logits.
#pragma once

#include <atomic>

#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

struct CrossEntropyOptions {
  std::int64_t ignoreIndex;
  double labelSmoothing, softCap, zLoss;

  template <class A>
  static CrossEntropyOptions of(const A& a) {
    require(a.labelSmoothing >= 0 && a.labelSmoothing <= 1 && a.softCap >= 0, "crossEntropy: wrong options");
    return {a.ignoreIndex, a.labelSmoothing, a.softCap, a.zLoss};
  }
};

// What a label says of its row; a label that is neither a column nor ignored is a fault of the data.
enum class Label { column, ignored, wrong };
inline Label judge(std::int32_t label, std::int64_t columns, const CrossEntropyOptions& o) {
  if (label == o.ignoreIndex) return Label::ignored;
  return label >= 0 && label < columns ? Label::column : Label::wrong;
}
// The program ends with "index out of range" (Outcome in runtime/stream.h), unless something failed before.
inline void faultIndex(std::atomic<int>& fault) {
  int none = 0;
  fault.compare_exchange_strong(none, 2);
}

template <class V>
struct Cap {
  bool on;
  V cap, inverse;
  explicit Cap(double c)
      : on(c > 0), cap(static_cast<typename V::Scalar>(c)), inverse(static_cast<typename V::Scalar>(c > 0 ? 1 / c : 0)) {}
  V operator()(V x) const { return on ? cap * tanh(x * inverse) : x; }
  // The derivative, given the capped value.
  V slope(V capped) const {
    const V t = capped * inverse;
    return on ? V(1) - t * t : V(1);
  }
};

// Sums over some columns of a row: the maximum, Σ exp(x - top) and Σ x.
template <class S>
struct RowSums {
  S top, total, plain;
};

template <class T, class V = VecOf<T>, class S = typename V::Scalar>
RowSums<S> rowSums(const T* x, std::int64_t n, const CrossEntropyOptions& o) {
  const Cap<V> cap(o.softCap);
  const V lowest(-std::numeric_limits<S>::infinity());
  RowSums<S> r{};
  r.top = hmax(foldVectors<V>(
      n, lowest, [&](auto w, std::int64_t i) { return w.pad(cap(w.load(x + i)), lowest); }, [](V a, V b) { return max(a, b); }));
  const V top(r.top);
  r.total = sum(sumVectors<V>(n, [&](auto w, std::int64_t i) { return w.pad(exp(cap(w.load(x + i)) - top), V(0)); }));
  if (o.labelSmoothing > 0) r.plain = sum(sumVectors<V>(n, [&](auto w, std::int64_t i) { return cap(w.load(x + i)); }));
  return r;
}

// The sums of two parts of a row as those of both.
template <class V, class S = typename V::Scalar>
RowSums<S> join(const RowSums<S>& a, const RowSums<S>& b) {
  RowSums<S> r;
  r.top = std::max(a.top, b.top);
  r.total = firstLane(V(a.total) * exp(V(a.top) - V(r.top)) + V(b.total) * exp(V(b.top) - V(r.top)));
  r.plain = a.plain + b.plain;
  return r;
}

template <class V, class S = typename V::Scalar>
S logSumExp(const RowSums<S>& r) {
  return firstLane(V(r.top) + log(V(r.total)));
}

template <class S>
S rowLoss(S lse, S picked, S plain, std::int64_t columns, const CrossEntropyOptions& o) {
  const S smooth = static_cast<S>(o.labelSmoothing);
  S loss = lse - (S(1) - smooth) * picked;
  if (smooth > 0) loss -= smooth / static_cast<S>(columns) * plain;
  return loss + static_cast<S>(o.zLoss) * lse * lse;
}

// Columns [0, n) of a row become the gradient of its loss times g; `label` counts from the first of them and may lie outside.
// `columns` is the length of the whole row. In and out may be the same.
template <class T, class U, class V = VecOf<T>, class S = typename V::Scalar>
void gradientRow(const T* x, U* out, std::int64_t n, std::int64_t label, std::int64_t columns, S lse, S g, const CrossEntropyOptions& o) {
  const Cap<V> cap(o.softCap);
  const V shift(lse), scale(g * (S(1) + S(2) * static_cast<S>(o.zLoss) * lse));
  const V even(g * static_cast<S>(o.labelSmoothing) / static_cast<S>(columns)), whole(g * (S(1) - static_cast<S>(o.labelSmoothing)));
  const auto slope = [&](V raw, V less) {
    const V c = cap(raw);
    const V d = exp(c - shift) * scale - even - less;
    return cap.on ? d * cap.slope(c) : d;
  };
  const bool here = label >= 0 && label < n;
  const V at = here ? slope(V::load(x + label, 1), whole) : V(0);
  eachVector<V>(n, [&](auto w, std::int64_t i) { w.store(out + i, slope(w.load(x + i), V(0))); });
  if (here) put(out + label, at, 1);
}

template <class U, class V = VecOf<U>>
void zeroRow(U* out, std::int64_t n) {
  eachVector<V>(n, [&](auto w, std::int64_t i) { w.store(out + i, V(0)); });
}

}  // namespace steepest::STEEPEST_LEVEL
