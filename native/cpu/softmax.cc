// Softmax and its logarithm over the last axis.
#include "attrs/softmax.gen.h"
#include "attrs/softmaxBackward.gen.h"
#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

template <class T>
void softmaxRow(const T* x, T* y, std::int64_t n, bool logarithm) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const V top(rowMax(x, n));
  constexpr bool kKeep = !std::is_same_v<T, bf16>;
  if (logarithm) {
    const V total = sumVectors<V>(n, [&](auto w, std::int64_t i) { return w.pad(exp(w.load(x + i) - top), V(0)); });
    const V lse = top + log(V(sum(total)));
    eachVector<V>(n, [&](auto w, std::int64_t i) { w.store(y + i, w.load(x + i) - lse); });
    return;
  }
  const V total = sumVectors<V>(n, [&](auto w, std::int64_t i) {
    const V e = exp(w.load(x + i) - top);
    if constexpr (kKeep) w.store(y + i, e);
    return w.pad(e, V(0));
  });
  const V scale(S(1) / sum(total));
  eachVector<V>(n, [&](auto w, std::int64_t i) {
    // A bfloat16 result is rounded once only: its exponentials are computed again instead of being kept.
    if constexpr (kKeep)
      w.store(y + i, w.load(y + i) * scale);
    else
      w.store(y + i, exp(w.load(x + i) - top) * scale);
  });
}

void runSoftmax(const Call& call, const SoftmaxAttrs& attrs) {
  const View& x = call.in[0];
  const std::int64_t n = x.dim(-1);
  if (!x.size()) return;
  byFloat(x.dtype, [&](auto t) {
    using T = decltype(t);
    eachRow(call.pool, x.size() / n, n, [&](std::int64_t r) { softmaxRow(x.as<T>() + r * n, call.out[0].as<T>() + r * n, n, attrs.log); });
  });
}

// y is the output of the forward row: softmax, or its logarithm.
template <class T>
void softmaxBackwardRow(const T* y, const T* dy, T* dx, std::int64_t n, bool logarithm) {
  using V = typename Math<T>::V;
  if (logarithm) {
    const V total(sum(sumVectors<V>(n, [&](auto w, std::int64_t i) { return w.load(dy + i); })));
    eachVector<V>(n, [&](auto w, std::int64_t i) { w.store(dx + i, w.load(dy + i) - exp(w.load(y + i)) * total); });
  } else {
    const V total(sum(sumVectors<V>(n, [&](auto w, std::int64_t i) { return w.load(dy + i) * w.load(y + i); })));
    eachVector<V>(n, [&](auto w, std::int64_t i) { w.store(dx + i, w.load(y + i) * (w.load(dy + i) - total)); });
  }
}

void runSoftmaxBackward(const Call& call, const SoftmaxBackwardAttrs& attrs) {
  const View& y = call.in[0];
  const std::int64_t n = y.dim(-1);
  if (!y.size()) return;
  byFloat(y.dtype, [&](auto t) {
    using T = decltype(t);
    eachRow(call.pool, y.size() / n, n, [&](std::int64_t r) {
      softmaxBackwardRow(y.as<T>() + r * n, call.in[1].as<T>() + r * n, call.out[0].as<T>() + r * n, n, attrs.log);
    });
  });
}

}  // namespace

std::unique_ptr<Kernel> makeSoftmax(const Spec& spec) {
  checkSoftmax(spec, 1);
  return std::make_unique<SimpleKernel<SoftmaxAttrs, runSoftmax>>(spec);
}

std::unique_ptr<Kernel> makeSoftmaxBackward(const Spec& spec) {
  checkSoftmax(spec, 2);
  return std::make_unique<SimpleKernel<SoftmaxBackwardAttrs, runSoftmaxBackward>>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL
