// Pooling: a thread makes one number. A gradient is gathered by who gets it, or, where only places are known, a warp walks through a plane.
#include "cpu/pooling_checks.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

namespace {

// A plane's places with any strides.
struct Planes {
  std::int64_t channels, image, channel, row, column;
  explicit Planes(const View& v)
      : channels(v.shape[1]), image(v.strides[0]), channel(v.strides[1]), row(v.strides[2]), column(v.strides[3]) {}
  __device__ std::int64_t at(std::int64_t plane, std::int64_t i, std::int64_t j) const {
    return plane / channels * image + plane % channels * channel + i * row + j * column;
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) largest(const T* x, T* y, std::int32_t* index, Planes planes, std::int64_t n, Windows v) {
  for (std::int64_t at = threadOf(); at < n; at += threads()) {
    const std::int64_t column = at % v.out[1], row = at / v.out[1] % v.out[0], plane = at / v.out[1] / v.out[0];
    const std::int64_t top = row * v.stride[0] - v.before[0], left = column * v.stride[1] - v.before[1];
    ComputeOf<T> best = 0;
    std::int64_t where = -1;
    for (std::int64_t i = 0; i < v.size[0]; ++i) {
      const std::int64_t h = top + i * v.dilation[0];
      if (h < 0 || h >= v.in[0]) continue;
      for (std::int64_t j = 0; j < v.size[1]; ++j) {
        const std::int64_t w = left + j * v.dilation[1];
        if (w < 0 || w >= v.in[1]) continue;
        const ComputeOf<T> seen = read(x + planes.at(plane, h, w));
        // The first of equals, and what is no number before all.
        if (where < 0 || seen > best || (seen != seen && best == best)) best = seen, where = h * v.in[1] + w;
      }
    }
    write(y + at, best);
    index[at] = static_cast<std::int32_t>(where);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) means(const T* x, T* y, Planes planes, std::int64_t n, Windows v, bool includePad) {
  using S = ComputeOf<T>;
  for (std::int64_t at = threadOf(); at < n; at += threads()) {
    const std::int64_t column = at % v.out[1], row = at / v.out[1] % v.out[0], plane = at / v.out[1] / v.out[0];
    const std::int64_t top = row * v.stride[0] - v.before[0], left = column * v.stride[1] - v.before[1];
    S total = 0;
    for (std::int64_t h = max(top, std::int64_t{0}); h < min(top + v.size[0], v.in[0]); ++h) {
      for (std::int64_t w = max(left, std::int64_t{0}); w < min(left + v.size[1], v.in[1]); ++w) total += read(x + planes.at(plane, h, w));
    }
    write(y + at, total / (static_cast<S>(placesSeen(v, 0, row, includePad)) * static_cast<S>(placesSeen(v, 1, column, includePad))));
  }
}

// Windows [first, last] along an axis that cover place i.
struct Covering {
  std::int64_t first, last;
  __device__ Covering(const Windows& v, int axis, std::int64_t i) {
    const std::int64_t reach = i + v.before[axis] - v.size[axis] + 1;
    first = reach > 0 ? (reach + v.stride[axis] - 1) / v.stride[axis] : 0;
    last = min((i + v.before[axis]) / v.stride[axis], v.out[axis] - 1);
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) meanGradients(const T* dy, T* dx, Planes planes, std::int64_t n, Windows v, bool includePad) {
  using S = ComputeOf<T>;
  for (std::int64_t at = threadOf(); at < n; at += threads()) {
    const std::int64_t column = at % v.in[1], row = at / v.in[1] % v.in[0], plane = at / v.in[1] / v.in[0];
    const Covering rows(v, 0, row), columns(v, 1, column);
    S total = 0;
    for (std::int64_t r = rows.first; r <= rows.last; ++r) {
      for (std::int64_t i = columns.first; i <= columns.last; ++i) {
        const std::int64_t places = placesSeen(v, 0, r, includePad) * placesSeen(v, 1, i, includePad);
        total += read(dy + planes.at(plane, r, i)) / static_cast<S>(places);
      }
    }
    write(dx + at, total);
  }
}

// What every window got goes to the place that it names, windows in their order. A warp has a plane, and 32 windows at a time; of those
// that name one place the first lane adds all.
template <class T>
__global__ void __launch_bounds__(kThreads) scatterLargest(const T* dy, const std::int32_t* index, ComputeOf<T>* sums, T* dx, Planes planes,
                                                           std::int64_t count, std::int64_t rows, std::int64_t columns, std::int64_t area) {
  using S = ComputeOf<T>;
  __shared__ S brought[kThreads];
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  S* const mine = brought + threadIdx.x / kWarp * kWarp;
  for (std::int64_t plane = threadOf() / kWarp; plane < count; plane += threads() / kWarp) {
    S* const to = sums + plane * area;
    for (std::int64_t i = lane; i < area; i += kWarp) to[i] = 0;
    __syncwarp();
    for (std::int64_t from = 0; from < rows * columns; from += kWarp) {
      const std::int64_t window = from + lane;
      const bool inside = window < rows * columns;
      // Indices are data, so that even wrong ones stay within the plane.
      const std::int32_t named = inside ? index[plane * rows * columns + window] : -1;
      const std::int32_t place = named >= 0 && named < area ? named : -1;
      mine[lane] = inside ? read(dy + planes.at(plane, window / columns, window % columns)) : S(0);
      const unsigned same = __match_any_sync(kAllLanes, place);
      __syncwarp();
      if (place >= 0 && __ffs(static_cast<int>(same)) - 1 == lane) {
        S total = to[place];
        for (unsigned left = same; left != 0; left &= left - 1) total += mine[__ffs(static_cast<int>(left)) - 1];
        to[place] = total;
      }
      __syncwarp();
    }
    if constexpr (!std::is_same_v<T, S>) {
      for (std::int64_t i = lane; i < area; i += kWarp) write(dx + plane * area + i, to[i]);
    }
  }
}

class MaxPool final : public Kernel {
 public:
  explicit MaxPool(const Spec& spec) : v_(checkMaxPool(spec, MaxPoolAttrs::decode(spec.attrs))) {}
  void run(const Call& call) const override {
    const View &x = call.in[0], &y = call.out[0];
    byFloat(x.dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(largest<T>, gridFor(y.size()), kThreads, 0, call, x.as<T>(), y.as<T>(), call.out[1].as<std::int32_t>(), Planes(x),
                      y.size(), v_);
    });
  }

 private:
  Windows v_;
};

class AvgPool final : public Kernel {
 public:
  AvgPool(const Spec& spec, const AvgPoolAttrs& a) : v_(checkAvgPool(spec, a)), includePad_(a.includePad) {}
  void run(const Call& call) const override {
    const View &x = call.in[0], &y = call.out[0];
    byFloat(x.dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(means<T>, gridFor(y.size()), kThreads, 0, call, x.as<T>(), y.as<T>(), Planes(x), y.size(), v_, includePad_);
    });
  }

 private:
  Windows v_;
  bool includePad_;
};

class AvgPoolBackward final : public Kernel {
 public:
  AvgPoolBackward(const Spec& spec, const AvgPoolBackwardAttrs& a) : v_(checkAvgPoolBackward(spec, a)), includePad_(a.includePad) {}
  void run(const Call& call) const override {
    const View &dy = call.in[0], &dx = call.out[0];
    byFloat(dx.dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(meanGradients<T>, gridFor(dx.size()), kThreads, 0, call, dy.as<T>(), dx.as<T>(), Planes(dy), dx.size(), v_,
                      includePad_);
    });
  }

 private:
  Windows v_;
  bool includePad_;
};

class MaxPoolBackward final : public Kernel {
 public:
  explicit MaxPoolBackward(const Spec& spec) {
    checkMaxPoolBackward(spec);
    // Sums of bfloat16 are in float32.
    const View& dx = spec.out[0];
    if (dx.dtype == DType::bfloat16) workspace = static_cast<std::size_t>(dx.size()) * sizeof(float);
  }
  void run(const Call& call) const override {
    const View &dy = call.in[0], &dx = call.out[0];
    const std::int64_t count = dx.shape[0] * dx.shape[1], area = dx.shape[2] * dx.shape[3];
    byFloat(dx.dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      S* const sums = std::is_same_v<T, S> ? dx.as<S>() : reinterpret_cast<S*>(call.workspace);
      STEEPEST_LAUNCH(scatterLargest<T>, gridFor(count, kThreads / kWarp), kThreads, 0, call, dy.as<T>(), call.in[1].as<std::int32_t>(),
                      sums, dx.as<T>(), Planes(dy), count, dy.shape[2], dy.shape[3], area);
    });
  }
};

}  // namespace

std::unique_ptr<Kernel> makeMaxPool(const Spec& spec) { return std::make_unique<MaxPool>(spec); }
std::unique_ptr<Kernel> makeMaxPoolBackward(const Spec& spec) { return std::make_unique<MaxPoolBackward>(spec); }
std::unique_ptr<Kernel> makeAvgPool(const Spec& spec) { return std::make_unique<AvgPool>(spec, AvgPoolAttrs::decode(spec.attrs)); }
std::unique_ptr<Kernel> makeAvgPoolBackward(const Spec& spec) {
  return std::make_unique<AvgPoolBackward>(spec, AvgPoolBackwardAttrs::decode(spec.attrs));
}

}  // namespace steepest::cuda
