// Kernel of `argReduce`.
#include "cpu/reduce_ops.h"
#include "cpu/reduce_run.h"
#include "attrs/argReduce.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using reduction::kColumns;

// Lanes keep the number of the row within the stack, which is small enough to be exact.
template <template <class> class Of, class V>
struct Arg {
  using F = Of<V>;
  using Scalar = typename V::Scalar;
  struct Part {
    double value;
    std::int64_t index;
  };
  static constexpr int L = V::kLanes;
  static constexpr std::int64_t kNowhere = std::numeric_limits<std::int64_t>::max();

  static Part empty() { return {F::identity(), kNowhere}; }
  static void combine(Part& a, const Part& b) {
    const bool nan = a.value != a.value, bNan = b.value != b.value;
    const bool same = a.value == b.value || (nan && bNan);
    if (same ? b.index < a.index : !nan && (bNan || F::merge(a.value, b.value) == b.value)) a = b;
  }
  static Part unfold(Part p, std::int64_t k, std::int64_t fold) { return {p.value, p.index == kNowhere ? kNowhere : p.index * fold + k}; }
  static std::int64_t finish(const Part& p) { return p.index; }

  static Part row(const Scalar* x, int n, std::int64_t first) {
    const double best = reduction::across<F>(reduction::lanesOf<F, V>(x, n, [](const V& v) { return v; }));
    const V wanted(static_cast<Scalar>(best));
    const bool nan = best != best;
    int i = 0;
    for (; i + L <= n; i += L) {
      const V v = V::load(x + i);
      const unsigned hits = bits(nan ? v != v : v == wanted);
      if (hits) return {best, first + i + __builtin_ctz(hits)};
    }
    while (nan ? x[i] == x[i] : x[i] != static_cast<Scalar>(best)) ++i;
    return {best, first + i};
  }

  static void columns(const Scalar* const* rows, int count, std::int64_t first, int width, Part* parts) {
    for (int c = 0; c < width; c += L) {
      const int n = std::min(L, width - c);
      const auto load = [&](int r) { return n == L ? V::load(rows[r] + c) : V::load(rows[r] + c, n); };
      V best = load(0), at(0);
      for (int r = 1; r < count; ++r) {
        const V x = load(r);
        const auto better = (F::better(x, best) | (x != x)) & (best == best);
        best = select(better, x, best);
        at = select(better, V(static_cast<Scalar>(r)), at);
      }
      alignas(64) Scalar value[L], index[L];
      store(value, best);
      store(index, at);
      for (int i = 0; i < n; ++i) combine(parts[c + i], {value[i], first + static_cast<std::int64_t>(index[i])});
    }
  }
};

template <class V>
struct Greatest : reduction::Max<V> {
  static auto better(const V& x, const V& best) { return x > best; }
};
template <class V>
struct Least : reduction::Min<V> {
  static auto better(const V& x, const V& best) { return x < best; }
};

template <template <class> class Of, class V>
std::unique_ptr<Kernel> make(const reduction::Geometry& g, DType from) {
  using Scalar = typename V::Scalar;
  return std::make_unique<reduction::Reducer<Arg<Of, V>>>(g, from, reduction::packOf<Scalar>(from), reduction::isNative<Scalar>(from));
}

}  // namespace

std::unique_ptr<Kernel> makeArgReduce(const Spec& spec) {
  const ArgReduceAttrs a = ArgReduceAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "argReduce", "one input and one output");
  layout::check(spec.out[0].dtype == DType::int32, "argReduce", "the output is int32");
  layout::check(a.axis >= 0 && a.axis < spec.in[0].rank, "argReduce", "axis of the input");
  const std::int64_t n = spec.in[0].shape[a.axis];
  layout::check(n > 0 && n <= std::numeric_limits<std::int32_t>::max(), "argReduce", "length of the axis");
  const DType from = spec.in[0].dtype;
  const reduction::Geometry g = reduction::geometryOf(spec.in[0], spec.out[0], {&a.axis, 1}, a.keepDims, "argReduce");
  const bool greatest = a.kind == ArgReduceAttrs::Kind::kMax;
  // float64 holds every int32, float32 does not.
  if (from == DType::float64 || from == DType::int32) return greatest ? make<Greatest, vd>(g, from) : make<Least, vd>(g, from);
  return greatest ? make<Greatest, vf>(g, from) : make<Least, vf>(g, from);
}

}  // namespace steepest::STEEPEST_LEVEL
