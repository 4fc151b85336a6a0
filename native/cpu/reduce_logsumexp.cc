// Kernel of `logSumExp`: one reading; every run is shifted by its own maximum, and runs are joined in float64.
#include "cpu/reduce_ops.h"
#include "cpu/reduce_run.h"
#include "math/functions.h"
#include "attrs/logSumExp.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using reduction::kColumns;

template <class V>
V lane(const typename V::Scalar* p, int n, typename V::Scalar other) {
  return n >= V::kLanes ? V::load(p) : reduction::loadPart<V>(p, n, other);
}

double first(vd v) {
  double all[vd::kLanes];
  store(all, v);
  return all[0];
}

template <class V>
struct LogSumExp {
  using Scalar = typename V::Scalar;
  using F = reduction::Max<V>;
  // exp(max) * sum; a maximum that is not finite stands for the whole.
  struct Part {
    double max, sum;
  };
  static constexpr int L = V::kLanes;

  static Part empty() { return {-std::numeric_limits<double>::infinity(), 0}; }
  static bool finite(double x) { return x - x == 0; }
  static void combine(Part& a, Part b) {
    if (b.max > a.max || b.max != b.max) std::swap(a, b);
    if (finite(a.max) && finite(b.max)) a.sum += b.sum * first(exp(vd(b.max - a.max)));
  }
  static Part unfold(Part p, std::int64_t, std::int64_t) { return p; }
  static double finish(const Part& p) { return finite(p.max) ? p.max + first(log(vd(p.sum))) : p.max; }

  static Part row(const Scalar* x, int n, std::int64_t) {
    const double max = reduction::across<F>(reduction::lanesOf<F, V>(x, n, [](const V& v) { return v; }));
    if (!finite(max)) return {max, 0};
    const V shift(static_cast<Scalar>(max));
    // The lanes that are not there hold -inf, whose exponential is 0.
    const auto term = [&](const V& v) { return exp(v - shift); };
    constexpr Scalar kNone = -std::numeric_limits<Scalar>::infinity();
    V a(0), b(0);
    int i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
      a = a + term(V::load(x + i));
      b = b + term(V::load(x + i + L));
    }
    if (i + L <= n) {
      a = a + term(V::load(x + i));
      i += L;
    }
    if (i < n) b = b + term(reduction::loadPart<V>(x + i, n - i, kNone));
    return {max, reduction::across<reduction::Sum<V>>(a + b)};
  }

  static void columns(const Scalar* const* rows, int count, std::int64_t, int width, Part* parts) {
    for (int c = 0; c < width; c += L) {
      const int n = std::min(L, width - c);
      V max = lane<V>(rows[0] + c, n, 0);
      for (int r = 1; r < count; ++r) max = F::merge(max, lane<V>(rows[r] + c, n, 0));
      const V shift = select((max - max) == V(0), max, V(0));
      V total(0);
      for (int r = 0; r < count; ++r) total = total + exp(lane<V>(rows[r] + c, n, 0) - shift);
      join(max, total, n, parts + c);
    }
  }

 private:
  // `combine` over the lanes of a vector.
  static void join(V max, V sum, int n, Part* parts) {
    alignas(64) Scalar laneMax[L], laneSum[L];
    store(laneMax, max);
    store(laneSum, sum);
    for (int from = 0; from < n; from += vd::kLanes) {
      const int m = std::min(vd::kLanes, n - from);
      alignas(64) double aMax[vd::kLanes] = {}, aSum[vd::kLanes] = {}, bMax[vd::kLanes] = {}, bSum[vd::kLanes] = {};
      for (int i = 0; i < m; ++i) {
        aMax[i] = parts[from + i].max;
        aSum[i] = parts[from + i].sum;
        bMax[i] = laneMax[from + i];
        bSum[i] = laneSum[from + i];
      }
      const vd p = vd::load(aMax), q = vd::load(bMax), none(0);
      const auto pFinite = (p - p) == none, qFinite = (q - q) == none;
      const vd high = reduction::Max<vd>::merge(p, q), safe = select((high - high) == none, high, none);
      const vd s = select(pFinite, vd::load(aSum) * exp(select(pFinite, p, none) - safe), none) +
                   select(qFinite, vd::load(bSum) * exp(select(qFinite, q, none) - safe), none);
      store(aMax, high);
      store(aSum, s);
      for (int i = 0; i < m; ++i) parts[from + i] = {aMax[i], aSum[i]};
    }
  }
};

template <class V>
std::unique_ptr<Kernel> make(const reduction::Geometry& g, DType from) {
  using Scalar = typename V::Scalar;
  return std::make_unique<reduction::Reducer<LogSumExp<V>>>(g, from, reduction::packOf<Scalar>(from), reduction::isNative<Scalar>(from));
}

}  // namespace

std::unique_ptr<Kernel> makeLogSumExp(const Spec& spec) {
  const LogSumExpAttrs a = LogSumExpAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "logSumExp", "one input and one output");
  const DType from = spec.in[0].dtype;
  layout::check(isFloat(from) && spec.out[0].dtype == from, "logSumExp", "floats of one dtype");
  const reduction::Geometry g = reduction::geometryOf(spec.in[0], spec.out[0], a.axes, a.keepDims, "logSumExp");
  return from == DType::float64 ? make<vd>(g, from) : make<vf>(g, from);
}

}  // namespace steepest::STEEPEST_LEVEL
