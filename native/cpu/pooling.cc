// Rows `maxPool` and `avgPool`: the planes of conv_pack.h make every place of the windows one contiguous row.
#include <limits>

#include "cpu/pooling.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

constexpr int kAverage = 0, kLargest = 1;

template <int Kind>
class Pool2 final : public Kernel {
 public:
  Pool2(const Spec& spec, const Windows& windows, bool includePad) : windows_(windows), includePad_(includePad) {
    const std::size_t unit = spec.in[0].dtype == DType::float64 ? 8 : 4;
    for (int i = 0; i < 2; ++i) {
      std::vector<std::pair<std::int64_t, std::int64_t>> taps;
      for (std::int64_t t = 0; t < windows.size[i]; ++t) taps.emplace_back(t, windows.start(i, t));
      axis_[i] = ConvAxis(windows.out[i], windows.stride[i], taps, false);
    }
    planesAt_ = alignPool(static_cast<std::size_t>(2 * windows.out[1]) * unit);
    threadBytes_ =
        planesAt_ + alignPool(static_cast<std::size_t>(axis_[0].planes() * axis_[1].planes() * axis_[0].length * axis_[1].length) * unit);
    workspace = threadBytes_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto zero) { runAs<decltype(zero)>(call); });
  }

 private:
  template <class T>
  void runAs(const Call& call) const {
    using V = VecOf<T>;
    using S = typename V::Scalar;
    const View& x = call.in[0];
    const Windows& v = windows_;
    const std::int64_t channels = x.shape[1], area = v.out[0] * v.out[1];
    if (area == 0) return;
    eachRow(call.pool, x.shape[0] * channels, v.in[0] * v.in[1] + area, [&](std::int64_t plane, int thread) {
      std::byte* const scratch = call.workspace + threadBytes_ * static_cast<std::size_t>(thread);
      S* const planes = reinterpret_cast<S*>(scratch + planesAt_);
      const Source<T> source{x.as<T>() + plane / channels * x.strides[0] + plane % channels * x.strides[1], 0, x.strides[2], x.strides[3]};
      const S around = Kind == kLargest ? -std::numeric_limits<S>::infinity() : S(0);
      packPlanes(source, 1, v.in, axis_[0], axis_[1], {0, 0}, axis_[0].length, planes, around);
      T* const y = call.out[0].as<T>() + plane * area;
      for (std::int64_t r = 0; r < v.out[0]; ++r) {
        if constexpr (Kind == kLargest)
          largest(planes, r, y + r * v.out[1], call.out[1].as<std::int32_t>() + plane * area + r * v.out[1], reinterpret_cast<S*>(scratch));
        else
          average(planes, r, y + r * v.out[1], reinterpret_cast<S*>(scratch));
      }
    });
  }

  // The first of the largest numbers, in row-major order; the first that is not a number wins over all others.
  template <class S, class T>
  void largest(const S* planes, std::int64_t r, T* y, std::int32_t* index, S* taps) const {
    using V = VecOf<S>;
    const Windows& v = windows_;
    for (std::int64_t i = 0; i < v.out[1]; i += V::kLanes) {
      const int lanes = static_cast<int>(std::min<std::int64_t>(V::kLanes, v.out[1] - i));
      V best(-std::numeric_limits<S>::infinity()), which(S(-1));
      S place = 0;
      for (const ConvAxis::Tap& h : axis_[0].taps) {
        for (const ConvAxis::Tap& w : axis_[1].taps) {
          const S* const from = planes + offsetOf(axis_[0], axis_[1], h, w) + r * axis_[1].length + i;
          const V x = lanes == V::kLanes ? V::load(from) : V::load(from, lanes);
          const auto wins = (x > best) | (isNan(x) & ~isNan(best));
          best = select(wins, x, best);
          which = select(wins, V(place), which);
          place += 1;
        }
      }
      if (lanes == V::kLanes) {
        store(y + i, best);
        store(taps + i, which);
      } else {
        store(y + i, best, lanes);
        store(taps + i, which, lanes);
      }
    }
    for (std::int64_t i = 0; i < v.out[1]; ++i) {
      const std::int64_t top = r * v.stride[0] - v.before[0], left = i * v.stride[1] - v.before[1];
      std::int64_t h = 0, w = 0;
      if (taps[i] < 0) {
        // Nothing above -inf: the first place that is not padding.
        h = top < 0 ? (-top + v.dilation[0] - 1) / v.dilation[0] : 0;
        w = left < 0 ? (-left + v.dilation[1] - 1) / v.dilation[1] : 0;
      } else {
        const std::int64_t place = static_cast<std::int64_t>(taps[i]);
        h = place / v.size[1];
        w = place % v.size[1];
      }
      index[i] = static_cast<std::int32_t>((top + h * v.dilation[0]) * v.in[1] + left + w * v.dilation[1]);
    }
  }

  template <class S, class T>
  void average(const S* planes, std::int64_t r, T* y, S* counts) const {
    using V = VecOf<S>;
    const Windows& v = windows_;
    for (std::int64_t i = 0; r == 0 && i < v.out[1]; ++i) counts[i] = static_cast<S>(placesSeen(v, 1, i, includePad_));
    const V rows(static_cast<S>(placesSeen(v, 0, r, includePad_)));
    for (std::int64_t i = 0; i < v.out[1]; i += V::kLanes) {
      const int lanes = static_cast<int>(std::min<std::int64_t>(V::kLanes, v.out[1] - i));
      const auto load = [&](const S* from) { return lanes == V::kLanes ? V::load(from) : V::load(from, lanes); };
      V total(S(0));
      for (const ConvAxis::Tap& h : axis_[0].taps) {
        for (const ConvAxis::Tap& w : axis_[1].taps) total += load(planes + offsetOf(axis_[0], axis_[1], h, w) + r * axis_[1].length + i);
      }
      store(y + i, total / (rows * load(counts + i)), lanes);
    }
  }

  Windows windows_;
  bool includePad_;
  ConvAxis axis_[2];
  std::size_t planesAt_ = 0, threadBytes_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeMaxPool(const Spec& spec) {
  const auto a = MaxPoolAttrs::decode(spec.attrs);
  return std::make_unique<Pool2<kLargest>>(spec, checkMaxPool(spec, a), false);
}

std::unique_ptr<Kernel> makeAvgPool(const Spec& spec) {
  const auto a = AvgPoolAttrs::decode(spec.attrs);
  return std::make_unique<Pool2<kAverage>>(spec, checkAvgPool(spec, a), a.includePad);
}

}  // namespace steepest::STEEPEST_LEVEL
