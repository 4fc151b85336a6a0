// Rows of the cross-entropy on a GPU: from logits to loss, and back to the gradient of the logits. The options are those of the CPU.
#pragma once

#include "cpu/crossentropy.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

template <class S>
struct CapOf {
  S cap, inverse;  // 0: none
  explicit CapOf(double c) : cap(static_cast<S>(c)), inverse(static_cast<S>(c > 0 ? 1 / c : 0)) {}
  __device__ S operator()(S x) const { return cap > 0 ? cap * tanh(VecOf<S>(x * inverse)).v : x; }
  __device__ S slope(S capped) const { return cap > 0 ? S(1) - (capped * inverse) * (capped * inverse) : S(1); }
};

// Σ exp(x - top) and Σ x over what was seen of a row, in one reading.
template <class S>
struct Running {
  S top, total, plain;

  __device__ static Running none() { return {-std::numeric_limits<S>::infinity(), 0, 0}; }
  __device__ void add(S v) {
    using V = VecOf<S>;
    plain += v;
    if (v > top) {
      total = total * exp(V(top - v)).v + S(1);
      top = v;
    } else if (!(v == -std::numeric_limits<S>::infinity())) {
      total += exp(V(v - top)).v;
    }
  }
  // A row without a finite largest number has no loss.
  __device__ S logSum() const {
    using V = VecOf<S>;
    return top - top == 0 ? top + log(V(total)).v : std::numeric_limits<S>::quiet_NaN();
  }
};

template <int Size, class S>
__device__ inline Running<S> joinRunning(Running<S> r) {
  const S top = maxTeam<Size>(r.top);
  const S part = r.top == top ? r.total : r.total * exp(VecOf<S>(r.top - top)).v;
  return {top, sumTeam<Size>(part), sumTeam<Size>(r.plain)};
}

struct LossOptions {
  std::int64_t ignoreIndex;
  double labelSmoothing, zLoss;
  explicit LossOptions(const CrossEntropyOptions& o) : ignoreIndex(o.ignoreIndex), labelSmoothing(o.labelSmoothing), zLoss(o.zLoss) {}
  __device__ bool ignored(std::int32_t label) const { return label == ignoreIndex; }
};

template <class S>
__device__ inline S lossOf(S lse, S picked, S plain, std::int64_t columns, const LossOptions& o) {
  const S smooth = static_cast<S>(o.labelSmoothing);
  S loss = lse - (S(1) - smooth) * picked;
  if (smooth > 0) loss -= smooth / static_cast<S>(columns) * plain;
  return loss + static_cast<S>(o.zLoss) * lse * lse;
}

// What a row's loss is, given its sums; the logit at the label is asked for only where there is one.
template <class S, class F>
__device__ inline S judged(std::int32_t label, const Running<S>& r, std::int64_t columns, const LossOptions& o, int* fault, F picked) {
  if (o.ignored(label)) return 0;
  if (label >= 0 && label < columns) return lossOf(r.logSum(), picked(), r.plain, columns, o);
  raise(fault, kIndexFault);
  return std::numeric_limits<S>::quiet_NaN();
}

// The gradient of a row's loss, times g, at a raw logit.
template <class S>
struct Slope {
  CapOf<S> cap;
  S shift, scale, even, whole;

  __device__ Slope(const CapOf<S>& c, S lse, S g, std::int64_t columns, const LossOptions& o)
      : cap(c),
        shift(lse),
        scale(g * (S(1) + S(2) * static_cast<S>(o.zLoss) * lse)),
        even(g * static_cast<S>(o.labelSmoothing) / static_cast<S>(columns)),
        whole(g * (S(1) - static_cast<S>(o.labelSmoothing))) {}
  __device__ S operator()(S raw, bool label) const {
    const S c = cap(raw);
    return (exp(VecOf<S>(c - shift)).v * scale - even - (label ? whole : S(0))) * cap.slope(c);
  }
};

}  // namespace steepest::cuda
