// Softmax and its logarithm over the last axis.
#include "attrs/softmax.gen.h"
#include "attrs/softmaxBackward.gen.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

namespace {

template <class T, int Size>
__global__ void __launch_bounds__(kThreads)
    softmaxRows(const T* in, T* out, std::int64_t rows, std::int64_t n, bool wide, int stage, bool logarithm) {
  using V = VecOf<T>;
  using S = ComputeOf<T>;
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  STEEPEST_SHARED(S, shared);
  S* const own = shared + team * stage + lane;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kTeams + team; row < rows; row += std::int64_t{gridDim.x} * kTeams) {
    const T* x = in + row * n;
    T* y = out + row * n;
    S top = -std::numeric_limits<S>::infinity();
    const auto first = [&](int k, std::int64_t, S v) {
      if (stage) own[k * Size] = v;
      top = top > v ? top : v;
    };
    eachOf<Size>(n, wide, lane, first, x);
    top = maxTeam<Size>(top);
    S total = 0;
    if (stage) {
      const int count = countOf<T, Size>(n, wide, lane);
      for (int k = 0; k < count; ++k) {
        const S e = exp(V(own[k * Size] - top)).v;
        if (!logarithm) own[k * Size] = e;
        total += e;
      }
    } else {
      eachOf<Size>(n, wide, lane, [&](int, std::int64_t, S v) { total += exp(V(v - top)).v; }, x);
    }
    total = sumTeam<Size>(total);
    const S lse = logarithm ? (V(top) + log(V(total))).v : S(0), scale = S(1) / total;
    const auto last = [&](S v) { return logarithm ? v - lse : exp(V(v - top)).v * scale; };
    if (stage)
      fillOf<Size>(y, n, wide, lane, [&](int k, std::int64_t) { return logarithm ? own[k * Size] - lse : own[k * Size] * scale; });
    else
      fillOf<Size>(y, n, wide, lane, [&](int, std::int64_t, S v) { return last(v); }, x);
  }
}

// y is the output of the forward row: softmax, or its logarithm.
template <class T, int Size>
__global__ void __launch_bounds__(kThreads)
    softmaxBackwardRows(const T* of, const T* gradient, T* out, std::int64_t rows, std::int64_t n, bool wide, bool logarithm) {
  using V = VecOf<T>;
  using S = ComputeOf<T>;
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kTeams + team; row < rows; row += std::int64_t{gridDim.x} * kTeams) {
    const T *y = of + row * n, *dy = gradient + row * n;
    S total = 0;
    eachOf<Size>(n, wide, lane, [&](int, std::int64_t, S g, S v) { total += logarithm ? g : g * v; }, dy, y);
    total = sumTeam<Size>(total);
    const auto last = [&](int, std::int64_t, S g, S v) { return logarithm ? g - exp(V(v)).v * total : v * (g - total); };
    fillOf<Size>(out + row * n, n, wide, lane, last, dy, y);
  }
}

bool aligned(const Call& call) {
  bool all = aligned16(call.out[0].data);
  for (const View& v : call.in) all = all && aligned16(v.data);
  return all;
}

void runSoftmax(const Call& call, const SoftmaxAttrs& attrs) {
  const View& x = call.in[0];
  if (!x.size()) return;
  byFloat(x.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows rows(x.size() / x.dim(-1), x.dim(-1), sizeof(T), aligned(call), sizeof(ComputeOf<T>));
    byTeam(rows, [&](auto size) {
      STEEPEST_LAUNCH((softmaxRows<T, size.value>), rows.grid, kThreads, rows.shared, call, x.as<T>(), call.out[0].as<T>(), rows.count,
                      rows.length, rows.wide, rows.stage, attrs.log);
    });
  });
}

void runSoftmaxBackward(const Call& call, const SoftmaxBackwardAttrs& attrs) {
  const View& y = call.in[0];
  if (!y.size()) return;
  byFloat(y.dtype, [&](auto type) {
    using T = decltype(type);
    const Rows rows(y.size() / y.dim(-1), y.dim(-1), sizeof(T), aligned(call), sizeof(ComputeOf<T>), 0);
    byTeam(rows, [&](auto size) {
      STEEPEST_LAUNCH((softmaxBackwardRows<T, size.value>), rows.grid, kThreads, 0, call, y.as<T>(), call.in[1].as<T>(),
                      call.out[0].as<T>(), rows.count, rows.length, rows.wide, attrs.log);
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

}  // namespace steepest::cuda
