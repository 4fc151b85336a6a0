// Reductions of slices by their index: a stable radix sort of the indices, then a block for every segment and some columns, so that slices
// are joined in their order.
#include "attrs/segmentMax.gen.h"
#include "attrs/segmentSum.gen.h"
#include "cpu/indexing.h"
#include "cuda/sort.cuh"

namespace steepest::cuda {

namespace {

using indexing::Slices;

// Index j of batch b gets the key b (n + 1) + index; what is out of range comes after all segments of its batch.
__global__ void __launch_bounds__(kThreads)
    makeKeys(const std::int32_t* indices, std::uint32_t* keys, std::int32_t* order, Slices s, int* fault) {
  for (std::int64_t i = threadOf(); i < s.batch * s.m; i += threads()) {
    std::int64_t index = indices[i];
    if (index < 0 || index >= s.n) {
      raise(fault, kIndexFault);
      index = s.n;
    }
    keys[i] = static_cast<std::uint32_t>(i / s.m * (s.n + 1) + index);
    order[i] = static_cast<std::int32_t>(i);
  }
}

template <class T>
using JoinedOf = std::conditional_t<std::is_integral_v<T>, std::int64_t, double>;

template <class T>
__device__ inline void assignTo(T* to, JoinedOf<T> x) {
  if constexpr (std::is_same_v<T, bf16>)
    *to = toBf16(static_cast<float>(x));
  else
    *to = static_cast<T>(x);
}
template <class T>
__device__ inline JoinedOf<T> plainOf(T x) {
  if constexpr (std::is_same_v<T, bf16>)
    return toFloat(x);
  else
    return static_cast<JoinedOf<T>>(x);
}

// A block takes 32 columns of a segment; its warps take slices in turn.
template <class T, bool Greatest>
__global__ void __launch_bounds__(kThreads)
    reduceSegments(const T* x, const std::uint32_t* keys, const std::int32_t* order, const T* base, T* y, Slices s, std::int64_t columns) {
  using J = JoinedOf<T>;
  constexpr int kWarps = kThreads / kWarp;
  __shared__ J parts[kWarps][kWarp];
  __shared__ std::int64_t range[2];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const auto join = [](J a, J b) {
    if constexpr (Greatest)
      return b > a || b != b ? b : a;
    else if constexpr (std::is_integral_v<J>)
      return static_cast<J>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
    else
      return a + b;
  };
  const auto none = [] {
    if constexpr (!Greatest)
      return J(0);
    else if constexpr (std::is_integral_v<J>)
      return static_cast<J>(std::numeric_limits<std::int32_t>::min());
    else
      return -std::numeric_limits<J>::infinity();
  };
  const std::int64_t tasks = s.batch * s.outer * s.n * columns;
  for (std::int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const std::int64_t segment = task / columns, line = segment / s.n, batch = line / s.outer, k = segment % s.n;
    const std::int64_t column = task % columns * kWarp + lane, key = batch * (s.n + 1) + k;
    if (threadIdx.x < 2) range[threadIdx.x] = lowerBound(keys, s.batch * s.m, static_cast<std::uint32_t>(key + threadIdx.x));
    __syncthreads();
    J total = none();
    if (column < s.inner) {
      for (std::int64_t at = range[0] + warp; at < range[1]; at += kWarps)
        total = join(total, plainOf(x[(line * s.m + order[at] - batch * s.m) * s.inner + column]));
    }
    parts[warp][lane] = total;
    __syncthreads();
    if (warp == 0 && column < s.inner) {
      for (int w = 1; w < kWarps; ++w) total = join(total, parts[w][lane]);
      T* const to = y + segment * s.inner + column;
      if (!base) {
        assignTo(to, total);
      } else {
        // As an elementwise sum of two tensors gives it.
        T own;
        assignTo(&own, total);
        const T other = base[segment * s.inner + column];
        if constexpr (std::is_same_v<T, bf16>)
          *to = toBf16(toFloat(other) + toFloat(own));
        else if constexpr (std::is_integral_v<T>)
          *to = static_cast<T>(static_cast<std::uint32_t>(other) + static_cast<std::uint32_t>(own));
        else
          *to = other + own;
      }
    }
    __syncthreads();
  }
}

template <class T, bool Greatest>
class Segment final : public Kernel {
 public:
  Segment(const Slices& s, bool base) : s_(s), base_(base), count_(s.batch * s.m) {
    const std::int64_t keys = s.batch * (s.n + 1);
    layout::check(keys <= std::numeric_limits<std::int32_t>::max() && count_ <= std::numeric_limits<std::int32_t>::max(), "segment",
                  "fewer segments and indices than 2^31");
    while (passes_ < 4 && (keys - 1) >> (8 * passes_)) ++passes_;
    workspace = Sorting<std::uint32_t>::bytes(1, count_);
  }

  void run(const Call& call) const override {
    const std::int64_t lines = s_.batch * s_.outer;
    if (lines == 0 || s_.inner == 0) return;
    Sorting<std::uint32_t> sorting(call.workspace, 1, count_);
    STEEPEST_LAUNCH(makeKeys, gridFor(count_), kThreads, 0, call, call.in[1].as<std::int32_t>(), sorting.keys, sorting.order, s_,
                    call.deviceFault);
    sorting.run(call, passes_);
    const std::int64_t columns = ceilDiv<std::int64_t>(s_.inner, kWarp);
    STEEPEST_LAUNCH((reduceSegments<T, Greatest>), gridFor(lines * s_.n * columns, 1), kThreads, 0, call, call.in[0].as<T>(), sorting.keys,
                    sorting.order, base_ ? call.in[2].as<T>() : nullptr, call.out[0].as<T>(), s_, columns);
  }

 private:
  Slices s_;
  bool base_;
  std::int64_t count_;
  int passes_ = 0;
};

template <bool Greatest>
std::unique_ptr<Kernel> make(DType dtype, const Slices& s, const char* op, bool base) {
  switch (dtype) {
    case DType::float32:
      return std::make_unique<Segment<float, Greatest>>(s, base);
    case DType::bfloat16:
      return std::make_unique<Segment<bf16, Greatest>>(s, base);
    case DType::float64:
      return std::make_unique<Segment<double, Greatest>>(s, base);
    case DType::int32:
      return std::make_unique<Segment<std::int32_t, Greatest>>(s, base);
    default:
      throw Error("PROGRAM", std::string(op) + ": floats or int32");
  }
}

}  // namespace

std::unique_ptr<Kernel> makeSegmentMax(const Spec& spec) {
  const SegmentMaxAttrs a = SegmentMaxAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 2 && spec.out.size() == 1, "segmentMax", "two inputs and one output");
  const Slices s = indexing::slicesOf(spec.out[0], spec.in[1], spec.in[0], a.axis, a.batchDims, "segmentMax");
  layout::check(s.n == a.segments, "segmentMax", "number of segments");
  return make<true>(spec.in[0].dtype, s, "segmentMax", false);
}

std::unique_ptr<Kernel> makeSegmentSum(const Spec& spec) {
  const SegmentSumAttrs a = SegmentSumAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 2u + a.base && spec.out.size() == 1, "segmentSum", "two inputs, or three with a base, and one output");
  const Slices s = indexing::slicesOf(spec.out[0], spec.in[1], spec.in[0], a.axis, a.batchDims, "segmentSum");
  layout::check(s.n == a.segments, "segmentSum", "number of segments");
  if (a.base) {
    const View &base = spec.in[2], &out = spec.out[0];
    layout::check(layout::sameShape(base, out) && base.dtype == out.dtype && base.contiguous(), "segmentSum", "a base like the output");
  }
  return make<false>(spec.in[0].dtype, s, "segmentSum", a.base);
}

}  // namespace steepest::cuda
