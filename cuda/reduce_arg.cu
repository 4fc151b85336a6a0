// Where extremes are, and the logarithm of sums of exponentials.
#include "attrs/argReduce.gen.h"
#include "attrs/logSumExp.gen.h"
#include "cuda/reduce.cuh"

namespace steepest::cuda {

namespace {

// The first of equal numbers, and the first NaN before all numbers.
template <class E>
struct Arg {
  struct Part {
    E value;
    std::int64_t index;  // -1: nothing yet
  };
  bool greatest;

  __device__ Part none() const { return {E(0), -1}; }
  __device__ void add(Part& a, E x, std::int64_t i) const { join(a, {x, i}); }
  __device__ void join(Part& a, Part b) const {
    if (b.index < 0) return;
    const bool nan = a.value != a.value, other = b.value != b.value;
    const bool same = a.value == b.value || (nan && other);
    const bool better = greatest ? b.value > a.value : b.value < a.value;
    if (a.index < 0 || (same ? b.index < a.index : !nan && (other || better))) a = b;
  }
  __device__ std::int64_t finish(Part a) const { return a.index; }
};

// exp(top) * sum; a top that is not finite stands for the whole.
template <class S>
struct LogSum {
  using V = VecOf<S>;
  struct Part {
    S top, sum;
  };

  __device__ static bool finite(S x) { return x - x == 0; }
  __device__ Part none() const { return {-std::numeric_limits<S>::infinity(), 0}; }
  __device__ void add(Part& a, S x, std::int64_t) const { join(a, {x, 1}); }
  __device__ void join(Part& a, Part b) const {
    if (b.top > a.top || b.top != b.top) {
      const Part lower = a;
      a = b;
      b = lower;
    }
    if (finite(a.top) && finite(b.top)) a.sum += b.sum * exp(V(b.top - a.top)).v;
  }
  __device__ S finish(Part a) const { return finite(a.top) ? a.top + log(V(a.sum)).v : a.top; }
};

}  // namespace

std::unique_ptr<Kernel> makeArgReduce(const Spec& spec) {
  const ArgReduceAttrs a = ArgReduceAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "argReduce", "one input and one output");
  layout::check(spec.out[0].dtype == DType::int32, "argReduce", "the output is int32");
  layout::check(a.axis >= 0 && a.axis < spec.in[0].rank, "argReduce", "axis of the input");
  const std::int64_t n = spec.in[0].shape[a.axis];
  layout::check(n > 0 && n <= std::numeric_limits<std::int32_t>::max(), "argReduce", "length of the axis");
  const reduction::Geometry g = reduction::geometryOf(spec.in[0], spec.out[0], {&a.axis, 1}, a.keepDims, "argReduce");
  return byStorageType(spec.in[0].dtype, [&](auto type) -> std::unique_ptr<Kernel> {
    using T = decltype(type);
    using Op = Arg<ElementOf<T>>;
    return std::make_unique<Reducer<T, Op>>(g, Op{a.kind == ArgReduceAttrs::Kind::kMax});
  });
}

std::unique_ptr<Kernel> makeLogSumExp(const Spec& spec) {
  const LogSumExpAttrs a = LogSumExpAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "logSumExp", "one input and one output");
  const DType from = spec.in[0].dtype;
  layout::check(isFloat(from) && spec.out[0].dtype == from, "logSumExp", "floats of one dtype");
  const reduction::Geometry g = reduction::geometryOf(spec.in[0], spec.out[0], a.axes, a.keepDims, "logSumExp");
  switch (from) {
    case DType::float32:
      return std::make_unique<Reducer<float, LogSum<float>>>(g, LogSum<float>{});
    case DType::bfloat16:
      return std::make_unique<Reducer<bf16, LogSum<float>>>(g, LogSum<float>{});
    default:
      return std::make_unique<Reducer<double, LogSum<double>>>(g, LogSum<double>{});
  }
}

}  // namespace steepest::cuda
