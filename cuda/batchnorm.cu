// Batch norm of [N, C, ...]: means and deviations of planes (an example's channel), joined by channel in the order of the examples.
#include "cpu/batchnorm.h"
#include "cuda/norm.cuh"

namespace steepest::cuda {

namespace {

// A mean and the sum of squared distances from it.
template <class S>
struct Spread {
  S mean, square;
};

// A warp takes a plane, which it reads twice: the second time from a cache.
template <class T>
__global__ void __launch_bounds__(kThreads)
    planeSpreads(const T* in, Spread<ComputeOf<T>>* out, std::int64_t planes, std::int64_t area, bool wide) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t plane = threadOf() / kWarp; plane < planes; plane += threads() / kWarp) {
    const T* x = in + plane * area;
    S mean = 0, square = 0;
    eachOf<kWarp>(area, wide, lane, [&](int, std::int64_t, S v) { mean += v; }, x);
    mean = warpSum(mean) / static_cast<S>(area);
    eachOf<kWarp>(area, wide, lane, [&](int, std::int64_t, S v) { square += (v - mean) * (v - mean); }, x);
    square = warpSum(square);
    if (lane == 0) out[plane] = {mean, square};
  }
}

// A warp takes a channel: its lanes take examples in turn.
template <class S>
__global__ void channelSpreads(const Spread<S>* planes, S* means, S* variances, std::int64_t images, std::int64_t channels,
                               std::int64_t area) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t c = threadOf() / kWarp; c < channels; c += threads() / kWarp) {
    double mean = 0, square = 0;
    for (std::int64_t n = lane; n < images; n += kWarp) mean += static_cast<double>(planes[n * channels + c].mean);
    mean = warpSum(mean) / static_cast<double>(images);
    for (std::int64_t n = lane; n < images; n += kWarp) {
      const Spread<S> p = planes[n * channels + c];
      const double off = static_cast<double>(p.mean) - mean;
      square += static_cast<double>(p.square) + off * off * static_cast<double>(area);
    }
    square = warpSum(square);
    if (lane == 0) {
      means[c] = static_cast<S>(mean);
      variances[c] = static_cast<S>(square / static_cast<double>(images * area));
    }
  }
}

template <class S>
__device__ S rootOf(S variance, double eps) {
  return S(1) / sqrt(VecOf<S>(variance + static_cast<S>(eps))).v;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    normalize(const T* in, T* out, Weights<ComputeOf<T>> weight, Weights<ComputeOf<T>> bias, const ComputeOf<T>* means,
              const ComputeOf<T>* variances, std::int64_t planes, std::int64_t channels, std::int64_t area, bool wide, double eps) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t plane = threadOf() / kWarp; plane < planes; plane += threads() / kWarp) {
    const std::int64_t c = plane % channels;
    const S mean = means[c], scale = rootOf(variances[c], eps) * weight(c), shift = bias(c);
    const auto last = [&](int, std::int64_t, S v) { return std::fma(v - mean, scale, shift); };
    fillOf<kWarp>(out + plane * area, area, wide, lane, last, in + plane * area);
  }
}

// dy·x̂ and dy, summed over planes.
template <class T>
__global__ void __launch_bounds__(kThreads)
    planeSums(const T* in, const T* gradient, const ComputeOf<T>* means, const ComputeOf<T>* variances, Spread<ComputeOf<T>>* out,
              std::int64_t planes, std::int64_t channels, std::int64_t area, bool wide, double eps) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t plane = threadOf() / kWarp; plane < planes; plane += threads() / kWarp) {
    const S mean = means[plane % channels], rstd = rootOf(variances[plane % channels], eps);
    S along = 0, slope = 0;
    const auto add = [&](int, std::int64_t, S g, S v) {
      along = std::fma(g, v - mean, along);
      slope += g;
    };
    eachOf<kWarp>(area, wide, lane, add, gradient + plane * area, in + plane * area);
    along = warpSum(along) * rstd;
    slope = warpSum(slope);
    if (lane == 0) out[plane] = {along, slope};
  }
}

template <class S>
__global__ void channelSums(const Spread<S>* planes, Spread<S>* sums, std::byte* dweight, std::byte* dbias, bool half, std::int64_t images,
                            std::int64_t channels, std::int64_t area) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t c = threadOf() / kWarp; c < channels; c += threads() / kWarp) {
    double along = 0, slope = 0;
    for (std::int64_t n = lane; n < images; n += kWarp) {
      along += static_cast<double>(planes[n * channels + c].mean);
      slope += static_cast<double>(planes[n * channels + c].square);
    }
    along = warpSum(along);
    slope = warpSum(slope);
    if (lane == 0) {
      writeWeight(dweight, half, c, static_cast<S>(along));
      writeWeight(dbias, half, c, static_cast<S>(slope));
      const double per = 1.0 / static_cast<double>(images * area);
      sums[c] = {static_cast<S>(along * per), static_cast<S>(slope * per)};
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    batchGradients(const T* in, const T* gradient, T* out, Weights<ComputeOf<T>> weight, const ComputeOf<T>* means,
                   const ComputeOf<T>* variances, const Spread<ComputeOf<T>>* sums, std::int64_t planes, std::int64_t channels,
                   std::int64_t area, bool wide, double eps) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t plane = threadOf() / kWarp; plane < planes; plane += threads() / kWarp) {
    const std::int64_t c = plane % channels;
    const S mean = means[c], rstd = rootOf(variances[c], eps), scale = rstd * weight(c), ga = rstd * sums[c].mean, gb = sums[c].square;
    const auto last = [&](int, std::int64_t, S g, S v) { return scale * std::fma(-(v - mean), ga, g - gb); };
    fillOf<kWarp>(out + plane * area, area, wide, lane, last, gradient + plane * area, in + plane * area);
  }
}

struct Planes {
  std::int64_t images, channels, area = 1, count;
  unsigned grid, channelGrid;
  explicit Planes(const View& x) : images(x.shape[0]), channels(x.shape[1]) {
    for (int i = 2; i < x.rank; ++i) area *= x.shape[i];
    count = images * channels;
    grid = gridFor(count, kThreads / kWarp);
    channelGrid = gridFor(channels, kThreads / kWarp);
  }
  std::size_t bytes(DType t) const { return static_cast<std::size_t>(count) * 2 * sizeOf(statistics(t)); }
  template <class T>
  bool wide(const void* a, const void* b, const void* c) const {
    return aligned16(a) && aligned16(b) && aligned16(c) && area * static_cast<std::int64_t>(sizeof(T)) % 16 == 0;
  }
};

class BatchNorm final : public Kernel {
 public:
  explicit BatchNorm(const Spec& spec) : attrs_(BatchNormAttrs::decode(spec.attrs)) {
    checkBatchNorm(spec);
    workspace = Planes(spec.in[0]).bytes(spec.in[0].dtype);
  }
  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const Planes p(call.in[0]);
      const T* x = call.in[0].as<T>();
      T* y = call.out[0].as<T>();
      const bool wide = p.wide<T>(x, y, y), half = call.in[1].dtype == DType::bfloat16;
      auto* spreads = reinterpret_cast<Spread<S>*>(call.workspace);
      S *means = call.out[1].as<S>(), *variances = call.out[2].as<S>();
      STEEPEST_LAUNCH(planeSpreads<T>, p.grid, kThreads, 0, call, x, spreads, p.count, p.area, wide);
      STEEPEST_LAUNCH(channelSpreads<S>, p.channelGrid, kThreads, 0, call, spreads, means, variances, p.images, p.channels, p.area);
      STEEPEST_LAUNCH(normalize<T>, p.grid, kThreads, 0, call, x, y, Weights<S>{call.in[1].data, half}, Weights<S>{call.in[2].data, half},
                      means, variances, p.count, p.channels, p.area, wide, attrs_.eps);
    });
  }

 private:
  BatchNormAttrs attrs_;
};

class BatchNormBackward final : public Kernel {
 public:
  explicit BatchNormBackward(const Spec& spec) : attrs_(BatchNormBackwardAttrs::decode(spec.attrs)) {
    checkBatchNormBackward(spec);
    const DType type = spec.in[0].dtype;
    workspace = Planes(spec.in[0]).bytes(type) + static_cast<std::size_t>(spec.in[0].shape[1]) * 2 * sizeOf(statistics(type));
  }
  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const Planes p(call.in[0]);
      const T *x = call.in[0].as<T>(), *dy = call.in[1].as<T>();
      T* dx = call.out[0].as<T>();
      const S *means = call.in[2].as<S>(), *variances = call.in[3].as<S>();
      const bool wide = p.wide<T>(x, dy, dx), half = call.in[4].dtype == DType::bfloat16;
      auto* planes = reinterpret_cast<Spread<S>*>(call.workspace);
      auto* sums = planes + p.count;
      STEEPEST_LAUNCH(planeSums<T>, p.grid, kThreads, 0, call, x, dy, means, variances, planes, p.count, p.channels, p.area, wide,
                      attrs_.eps);
      STEEPEST_LAUNCH(channelSums<S>, p.channelGrid, kThreads, 0, call, planes, sums, call.out[1].data, call.out[2].data, half, p.images,
                      p.channels, p.area);
      STEEPEST_LAUNCH(batchGradients<T>, p.grid, kThreads, 0, call, x, dy, dx, Weights<S>{call.in[4].data, half}, means, variances, sums,
                      p.count, p.channels, p.area, wide, attrs_.eps);
    });
  }

 private:
  BatchNormBackwardAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeBatchNorm(const Spec& spec) { return std::make_unique<BatchNorm>(spec); }
std::unique_ptr<Kernel> makeBatchNormBackward(const Spec& spec) { return std::make_unique<BatchNormBackward>(spec); }

}  // namespace steepest::cuda
