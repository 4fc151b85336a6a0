// Kernel of `reduce`.
#include "cpu/reduce_ops.h"
#include "cpu/reduce_run.h"
#include "attrs/reduce.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using reduction::Geometry;
using Kind = ReduceAttrs::Kind;

template <template <class> class Of, class V>
std::unique_ptr<Kernel> make(const Geometry& g, DType from, double scale = 1) {
  using Scalar = typename V::Scalar;
  return std::make_unique<reduction::Reducer<reduction::Fold<Of, V>>>(g, from, reduction::packOf<Scalar>(from),
                                                                      reduction::isNative<Scalar>(from), scale);
}

// any and all: extremes of zeros and ones.
template <template <class> class Of>
std::unique_ptr<Kernel> makeTruth(const Geometry& g, DType from) {
  return std::make_unique<reduction::Reducer<reduction::Fold<Of, vf>>>(g, from, reduction::packOf<float, true>(from), false);
}

template <class V>
std::unique_ptr<Kernel> makeFloat(Kind kind, const Geometry& g, DType from) {
  switch (kind) {
    case Kind::kSum:
      return make<reduction::Sum, V>(g, from);
    case Kind::kMean:
      return make<reduction::Sum, V>(g, from, 1.0 / static_cast<double>(g.length));
    case Kind::kSumSquares:
      return make<reduction::SumSquares, V>(g, from);
    case Kind::kProd:
      return make<reduction::Prod, V>(g, from);
    case Kind::kMax:
      return make<reduction::Max, V>(g, from);
    default:
      return make<reduction::Min, V>(g, from);
  }
}

}  // namespace

std::unique_ptr<Kernel> makeReduce(const Spec& spec) {
  const ReduceAttrs a = ReduceAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "reduce", "one input and one output");
  const DType from = spec.in[0].dtype, to = spec.out[0].dtype;
  layout::check(to == a.dtype, "reduce", "dtype of the output");
  const Geometry g = reduction::geometryOf(spec.in[0], spec.out[0], a.axes, a.keepDims, "reduce");
  if (a.kind == Kind::kAny || a.kind == Kind::kAll) {
    layout::check(to == DType::uint8, "reduce", "any and all give uint8");
    // The extremes of nothing are infinite; the truths of nothing are not.
    if (g.length == 0) {
      return a.kind == Kind::kAny ? make<reduction::Sum, vf>(g, from) : make<reduction::Prod, vf>(g, from);
    }
    return a.kind == Kind::kAny ? makeTruth<reduction::Max>(g, from) : makeTruth<reduction::Min>(g, from);
  }
  layout::check(isFloat(from) == isFloat(to), "reduce", "floats give floats, integers integers");
  if (!isFloat(from)) {
    switch (a.kind) {
      case Kind::kSum:
        return make<reduction::Sum, reduction::Wide>(g, from);
      case Kind::kProd:
        return make<reduction::Prod, reduction::Wide>(g, from);
      case Kind::kMax:
        return make<reduction::Max, reduction::Wide>(g, from);
      case Kind::kMin:
        return make<reduction::Min, reduction::Wide>(g, from);
      default:
        throw Error("PROGRAM", "reduce: this kind takes floats");
    }
  }
  return from == DType::float64 ? makeFloat<vd>(a.kind, g, from) : makeFloat<vf>(a.kind, g, from);
}

}  // namespace steepest::STEEPEST_LEVEL
