// Rows `maxPoolBackward` and `avgPoolBackward`, a plane at a time: what a window gave goes back to where it came from.
#include "cpu/pooling.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

// Sums of one plane in the dtype in which they are taken, and then the plane.
template <class T, class F>
void eachPlane(const Call& call, const View& dx, std::size_t threadBytes, F&& add) {
  using S = typename VecOf<T>::Scalar;
  const std::int64_t area = dx.shape[2] * dx.shape[3];
  eachRow(call.pool, dx.shape[0] * dx.shape[1], 2 * area, [&](std::int64_t plane, int thread) {
    T* const to = dx.as<T>() + plane * area;
    S* sums;
    if constexpr (std::is_same_v<T, S>)
      sums = to;
    else
      sums = reinterpret_cast<S*>(call.workspace + threadBytes * static_cast<std::size_t>(thread));
    std::fill_n(sums, area, S(0));
    add(plane, sums);
    if constexpr (!std::is_same_v<T, S>) eachVector<VecOf<S>>(area, [&](auto w, std::int64_t i) { w.store(to + i, w.load(sums + i)); });
  });
}

class MaxPoolBackward final : public Kernel {
 public:
  explicit MaxPoolBackward(const Spec& spec) {
    checkMaxPoolBackward(spec);
    const View& dx = spec.out[0];
    threadBytes_ = dx.dtype == DType::bfloat16 ? alignPool(static_cast<std::size_t>(dx.shape[2] * dx.shape[3]) * 4) : 0;
    workspace = threadBytes_ * static_cast<std::size_t>(spec.threads);
  }
  void run(const Call& call) const override {
    const View &dy = call.in[0], &dx = call.out[0];
    const std::int64_t rows = dy.shape[2], columns = dy.shape[3], area = dx.shape[2] * dx.shape[3];
    byFloat(dx.dtype, [&](auto zero) {
      using T = decltype(zero);
      eachPlane<T>(call, dx, threadBytes_, [&](std::int64_t plane, auto* sums) {
        const T* const from = dy.as<T>() + plane / dy.shape[1] * dy.strides[0] + plane % dy.shape[1] * dy.strides[1];
        const std::int32_t* index = call.in[1].as<std::int32_t>() + plane * rows * columns;
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t i = 0; i < columns; ++i, ++index) {
            // Indices are data, so that even wrong ones stay within the plane.
            if (static_cast<std::uint32_t>(*index) < static_cast<std::uint64_t>(area))
              sums[*index] += scalarOf(from[r * dy.strides[2] + i * dy.strides[3]]);
          }
        }
      });
    });
  }

 private:
  std::size_t threadBytes_ = 0;
};

class AvgPoolBackward final : public Kernel {
 public:
  explicit AvgPoolBackward(const Spec& spec) : attrs_(AvgPoolBackwardAttrs::decode(spec.attrs)) {
    windows_ = checkAvgPoolBackward(spec, attrs_);
    const View& dx = spec.out[0];
    threadBytes_ = dx.dtype == DType::bfloat16 ? alignPool(static_cast<std::size_t>(windows_.in[0] * windows_.in[1]) * 4) : 0;
    workspace = threadBytes_ * static_cast<std::size_t>(spec.threads);
  }
  void run(const Call& call) const override {
    const View &dy = call.in[0], &dx = call.out[0];
    const Windows& v = windows_;
    byFloat(dx.dtype, [&](auto zero) {
      using T = decltype(zero);
      eachPlane<T>(call, dx, threadBytes_, [&]<class S>(std::int64_t plane, S* sums) {
        const T* const from = dy.as<T>() + plane / dy.shape[1] * dy.strides[0] + plane % dy.shape[1] * dy.strides[1];
        for (std::int64_t r = 0; r < v.out[0]; ++r) {
          const std::int64_t top = r * v.stride[0] - v.before[0], rows = placesSeen(v, 0, r, attrs_.includePad);
          const std::int64_t h0 = std::max<std::int64_t>(top, 0), h1 = std::min(top + v.size[0], v.in[0]);
          for (std::int64_t i = 0; i < v.out[1]; ++i) {
            const std::int64_t left = i * v.stride[1] - v.before[1], columns = placesSeen(v, 1, i, attrs_.includePad);
            const std::int64_t w0 = std::max<std::int64_t>(left, 0), w1 = std::min(left + v.size[1], v.in[1]);
            const S each = scalarOf(from[r * dy.strides[2] + i * dy.strides[3]]) / static_cast<S>(rows * columns);
            for (std::int64_t h = h0; h < h1; ++h) {
              for (std::int64_t w = w0; w < w1; ++w) sums[h * v.in[1] + w] += each;
            }
          }
        }
      });
    });
  }

 private:
  AvgPoolBackwardAttrs attrs_;
  Windows windows_;
  std::size_t threadBytes_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeMaxPoolBackward(const Spec& spec) { return std::make_unique<MaxPoolBackward>(spec); }
std::unique_ptr<Kernel> makeAvgPoolBackward(const Spec& spec) { return std::make_unique<AvgPoolBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
