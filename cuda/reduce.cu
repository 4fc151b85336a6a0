// Sums, products and extremes.
#include "attrs/reduce.gen.h"
#include "cuda/reduce.cuh"

namespace steepest::cuda {

namespace {

using Kind = ReduceAttrs::Kind;

// Joins in float64 (int64 for whole numbers, wrapping), so that a sum over 1e8 numbers is as good as one over a few.
template <class J>
struct Fold {
  using Part = J;
  Kind kind;
  double scale;

  __device__ J none() const {
    switch (kind) {
      case Kind::kProd:
      case Kind::kAll:
        return 1;
      case Kind::kMax:
        return std::is_integral_v<J> ? std::numeric_limits<J>::min() : -std::numeric_limits<J>::infinity();
      case Kind::kMin:
        return std::is_integral_v<J> ? std::numeric_limits<J>::max() : std::numeric_limits<J>::infinity();
      default:
        return 0;
    }
  }
  template <class E>
  __device__ void add(J& a, E x, std::int64_t) const {
    if (kind == Kind::kAny || kind == Kind::kAll) return join(a, x != E(0) ? J(1) : J(0));
    join(a, static_cast<J>(kind == Kind::kSumSquares ? x * x : x));
  }
  __device__ void join(J& a, J b) const {
    switch (kind) {
      case Kind::kProd:
        a = whole(a, b, true);
        return;
      case Kind::kMax:
      case Kind::kAny:
        a = b > a || b != b ? b : a;
        return;
      case Kind::kMin:
      case Kind::kAll:
        a = b < a || b != b ? b : a;
        return;
      default:
        a = whole(a, b, false);
    }
  }
  __device__ J finish(J a) const {
    if constexpr (std::is_integral_v<J>)
      return a;
    else
      return a * scale;
  }

 private:
  __device__ static J whole(J a, J b, bool product) {
    if constexpr (std::is_integral_v<J>) {
      const auto x = static_cast<std::uint64_t>(a), y = static_cast<std::uint64_t>(b);
      return static_cast<J>(product ? x * y : x + y);
    } else {
      return product ? a * b : a + b;
    }
  }
};

}  // namespace

std::unique_ptr<Kernel> makeReduce(const Spec& spec) {
  const ReduceAttrs a = ReduceAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "reduce", "one input and one output");
  const DType from = spec.in[0].dtype, to = spec.out[0].dtype;
  layout::check(to == a.dtype, "reduce", "dtype of the output");
  const reduction::Geometry g = reduction::geometryOf(spec.in[0], spec.out[0], a.axes, a.keepDims, "reduce");
  if (a.kind == Kind::kAny || a.kind == Kind::kAll) {
    layout::check(to == DType::uint8, "reduce", "any and all give uint8");
  } else {
    layout::check(isFloat(from) == isFloat(to), "reduce", "floats give floats, integers integers");
    layout::check(isFloat(from) || (a.kind != Kind::kMean && a.kind != Kind::kSumSquares), "reduce", "this kind takes floats");
  }
  const double scale = a.kind == Kind::kMean ? 1.0 / static_cast<double>(g.length) : 1.0;
  return byStorageType(from, [&](auto type) -> std::unique_ptr<Kernel> {
    using T = decltype(type);
    using Op = Fold<std::conditional_t<std::is_integral_v<T>, std::int64_t, double>>;
    return std::make_unique<Reducer<T, Op>>(g, Op{a.kind, scale});
  });
}

}  // namespace steepest::cuda
