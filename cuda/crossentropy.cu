// Cross-entropy of logits that lie in memory.
#include "attrs/crossEntropy.gen.h"
#include "attrs/crossEntropyBackward.gen.h"
#include "cpu/crossentropy_checks.h"
#include "cuda/crossentropy.cuh"

namespace steepest::cuda {

namespace {

template <class T, int Size>
__global__ void __launch_bounds__(kThreads)
    lossRows(const T* logits, const std::int32_t* labels, ComputeOf<T>* losses, ComputeOf<T>* lses, std::int64_t rows, std::int64_t n,
             bool wide, CapOf<ComputeOf<T>> cap, LossOptions o, int* fault) {
  using S = ComputeOf<T>;
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kTeams + team; row < rows; row += std::int64_t{gridDim.x} * kTeams) {
    const T* x = logits + row * n;
    Running<S> r = Running<S>::none();
    eachOf<Size>(n, wide, lane, [&](int, std::int64_t, S v) { r.add(cap(v)); }, x);
    r = joinRunning<Size>(r);
    if (lane != 0) continue;
    lses[row] = r.logSum();
    losses[row] = judged(labels[row], r, n, o, fault, [&] { return cap(read(x + labels[row])); });
  }
}

template <class T, int Size>
__global__ void __launch_bounds__(kThreads)
    lossGradients(const T* logits, const std::int32_t* labels, const ComputeOf<T>* lses, const ComputeOf<T>* gradients, T* out,
                  std::int64_t rows, std::int64_t n, bool wide, CapOf<ComputeOf<T>> cap, LossOptions o) {
  using S = ComputeOf<T>;
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kTeams + team; row < rows; row += std::int64_t{gridDim.x} * kTeams) {
    const std::int32_t label = labels[row];
    T* to = out + row * n;
    if (o.ignored(label) || label < 0 || label >= n) {
      fillOf<Size>(to, n, wide, lane, [](int, std::int64_t) { return S(0); });
      continue;
    }
    const Slope<S> slope(cap, lses[row], gradients[row], n, o);
    fillOf<Size>(to, n, wide, lane, [&](int, std::int64_t i, S v) { return slope(v, i == label); }, logits + row * n);
  }
}

class CrossEntropy final : public Kernel {
 public:
  explicit CrossEntropy(const Spec& spec) : options_(checkCrossEntropy(spec, CrossEntropyAttrs::decode(spec.attrs))) {}
  void run(const Call& call) const override {
    const View& logits = call.in[0];
    byFloat(logits.dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const Rows rows(call.in[1].size(), logits.dim(-1), sizeof(T), aligned16(logits.data), sizeof(S), 0);
      byTeam(rows, [&](auto size) {
        STEEPEST_LAUNCH((lossRows<T, size.value>), rows.grid, kThreads, 0, call, logits.as<T>(), call.in[1].as<std::int32_t>(),
                        call.out[0].as<S>(), call.out[1].as<S>(), rows.count, rows.length, rows.wide, CapOf<S>(options_.softCap),
                        LossOptions(options_), call.deviceFault);
      });
    });
  }

 private:
  CrossEntropyOptions options_;
};

class CrossEntropyBackward final : public Kernel {
 public:
  explicit CrossEntropyBackward(const Spec& spec)
      : options_(checkCrossEntropyBackward(spec, CrossEntropyBackwardAttrs::decode(spec.attrs))) {}
  void run(const Call& call) const override {
    const View& logits = call.in[0];
    byFloat(logits.dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const Rows rows(call.in[1].size(), logits.dim(-1), sizeof(T), aligned16(logits.data) && aligned16(call.out[0].data), sizeof(S), 0);
      byTeam(rows, [&](auto size) {
        STEEPEST_LAUNCH((lossGradients<T, size.value>), rows.grid, kThreads, 0, call, logits.as<T>(), call.in[1].as<std::int32_t>(),
                        call.in[2].as<S>(), call.in[3].as<S>(), call.out[0].as<T>(), rows.count, rows.length, rows.wide,
                        CapOf<S>(options_.softCap), LossOptions(options_));
      });
    });
  }

 private:
  CrossEntropyOptions options_;
};

}  // namespace

std::unique_ptr<Kernel> makeCrossEntropy(const Spec& spec) { return std::make_unique<CrossEntropy>(spec); }
std::unique_ptr<Kernel> makeCrossEntropyBackward(const Spec& spec) { return std::make_unique<CrossEntropyBackward>(spec); }

}  // namespace steepest::cuda
