// One functor per elementwise row of the table, named as the row with an underscore. apply() takes vectors; where a row gives truth values
// it returns a mask. Rows that are defined for integers too take vi.
#pragma once

#include <cmath>

#include "math/functions.h"

namespace steepest::STEEPEST_LEVEL::ew {

template <class V>
concept Real = Vector<V> && std::is_floating_point_v<typename V::Scalar>;

// Rows of one operand that are a function of functions.h.
#define STEEPEST_FUNCTION(name, function) \
  struct name##_ {                        \
    static constexpr int kArity = 1;      \
    template <Real V>                     \
    STEEPEST_HD static V apply(V x) {     \
      return function(x);                 \
    }                                     \
  }
STEEPEST_FUNCTION(exp, exp);
STEEPEST_FUNCTION(expm1, expm1);
STEEPEST_FUNCTION(log, log);
STEEPEST_FUNCTION(log1p, log1p);
STEEPEST_FUNCTION(sqrt, sqrt);
STEEPEST_FUNCTION(tanh, tanh);
STEEPEST_FUNCTION(erf, erf);
STEEPEST_FUNCTION(sigmoid, sigmoid);
STEEPEST_FUNCTION(softplus, softplus);
STEEPEST_FUNCTION(sin, sin);
STEEPEST_FUNCTION(cos, cos);
STEEPEST_FUNCTION(gelu, gelu);
STEEPEST_FUNCTION(geluTanh, geluTanh);
STEEPEST_FUNCTION(silu, silu);
#undef STEEPEST_FUNCTION

// Rows of one or two operands for floats and integers alike.
#define STEEPEST_UNARY(name, expression) \
  struct name##_ {                       \
    static constexpr int kArity = 1;     \
    template <Vector V>                  \
    STEEPEST_HD static auto apply(V x) { \
      return expression;                 \
    }                                    \
  }
#define STEEPEST_BINARY(name, expression)     \
  struct name##_ {                            \
    static constexpr int kArity = 2;          \
    template <Vector V>                       \
    STEEPEST_HD static auto apply(V a, V b) { \
      return expression;                      \
    }                                         \
  }
STEEPEST_BINARY(add, a + b);
STEEPEST_BINARY(sub, a - b);
STEEPEST_BINARY(mul, a* b);
STEEPEST_BINARY(equal, a == b);
STEEPEST_BINARY(notEqual, a != b);
STEEPEST_BINARY(less, a < b);
STEEPEST_BINARY(lessEqual, a <= b);
STEEPEST_BINARY(greater, a > b);
STEEPEST_BINARY(greaterEqual, a >= b);
STEEPEST_BINARY(logicalAnd, (a != V(0)) & (b != V(0)));
STEEPEST_BINARY(logicalOr, (a != V(0)) | (b != V(0)));
STEEPEST_UNARY(logicalNot, x == V(0));
STEEPEST_UNARY(neg, -x);
STEEPEST_UNARY(abs, abs(x));
STEEPEST_UNARY(square, x* x);
// NaN is the larger and the smaller of two.
STEEPEST_BINARY(maximum, select((a > b) | (a != a), a, b));
STEEPEST_BINARY(minimum, select((a < b) | (a != a), a, b));
#undef STEEPEST_UNARY
#undef STEEPEST_BINARY

// Rows that leave integers as they are.
#define STEEPEST_ROUNDING(name)       \
  struct name##_ {                    \
    static constexpr int kArity = 1;  \
    template <Vector V>               \
    STEEPEST_HD static V apply(V x) { \
      if constexpr (Real<V>)          \
        return name(x);               \
      else                            \
        return x;                     \
    }                                 \
  }
STEEPEST_ROUNDING(floor);
STEEPEST_ROUNDING(ceil);
STEEPEST_ROUNDING(round);
#undef STEEPEST_ROUNDING

struct relu_ {
  static constexpr int kArity = 1;
  template <Vector V>
  STEEPEST_HD static V apply(V x) {
    return max(V(0), x);
  }
};

struct sign_ {
  static constexpr int kArity = 1;
  template <Vector V>
  STEEPEST_HD static V apply(V x) {
    if constexpr (Real<V>)
      return sign(x);
    else
      return select(x > V(0), V(1), select(x < V(0), V(-1), V(0)));
  }
};

struct isFinite_ {
  static constexpr int kArity = 1;
  template <Vector V>
  STEEPEST_HD static auto apply(V x) {
    return (x - x) == V(0);
  }
};

struct isNaN_ {
  static constexpr int kArity = 1;
  template <Vector V>
  STEEPEST_HD static auto apply(V x) {
    return x != x;
  }
};

struct div_ {
  static constexpr int kArity = 2;
  template <Real V>
  STEEPEST_HD static V apply(V a, V b) {
    return a / b;
  }
};

struct reciprocal_ {
  static constexpr int kArity = 1;
  template <Real V>
  STEEPEST_HD static V apply(V x) {
    return V(1) / x;
  }
};

struct rsqrt_ {
  static constexpr int kArity = 1;
  template <Real V>
  STEEPEST_HD static V apply(V x) {
    return V(1) / sqrt(x);
  }
};

struct pow_ {
  static constexpr int kArity = 2;
  template <Real V>
  STEEPEST_HD static V apply(V a, V b) {
    return pow(a, b);
  }
};

// Quotient rounded down and what is left, which has the sign of the divisor, as in NumPy.
template <Real V>
struct Division {
  V quotient, rest;

  STEEPEST_HD Division(V a, V b) {
    using S = typename V::Scalar;
    quotient = floor(a / b);
    rest = fnma(b, quotient, a);
    // The quotient was rounded before it was cut: it may be off by one.
    const auto below = ((rest < V(0)) & (b > V(0))) | ((rest > V(0)) & (b < V(0)));
    quotient = select(below, quotient - V(1), quotient);
    rest = select(below, rest + b, rest);
    const auto above = abs(rest) >= abs(b);
    quotient = select(above, quotient + V(1), quotient);
    rest = select(above, rest - b, rest);
    const auto endless = (abs(b) == infinity<V>()) & (abs(a) < infinity<V>());
    const auto against = ((a < V(0)) & (b > V(0))) | ((a > V(0)) & (b < V(0)));
    quotient = select(endless, select(against, V(-1), V(0)), quotient);
    rest = select(endless, select(against, b, a), rest);
    rest = select(rest == V(0), copysign(V(0), b), rest);
    // From here on a quotient may have lost its last digits, so that a rest cannot be had from it.
    const auto far = (abs(quotient) >= V(static_cast<S>(kSingle<V> ? 0x1p22 : 0x1p51))) & (abs(quotient) < infinity<V>());
    if (any(far)) exact(a, b, bits(far));
  }

 private:
  STEEPEST_HD void exact(V a, V b, unsigned far) {
    using S = typename V::Scalar;
    S as[V::kLanes], bs[V::kLanes], rests[V::kLanes];
    store(as, a);
    store(bs, b);
    store(rests, rest);
    for (int i = 0; i < V::kLanes; ++i) {
      if (!(far >> i & 1)) continue;
      const S r = std::fmod(as[i], bs[i]);
      rests[i] = r == 0 ? std::copysign(S(0), bs[i]) : (r < 0) == (bs[i] < 0) ? r : r + bs[i];
    }
    rest = V::load(rests);
  }
};

// Integers lane by lane: there is no vector division. Nothing is left of a division by zero, as in NumPy.
template <class F>
STEEPEST_HD inline vi eachLane(vi a, vi b, F f) {
  std::int32_t as[vi::kLanes], bs[vi::kLanes];
  store(as, a);
  store(bs, b);
  for (int i = 0; i < vi::kLanes; ++i) as[i] = static_cast<std::int32_t>(bs[i] == 0 ? 0 : f(std::int64_t{as[i]}, std::int64_t{bs[i]}));
  return vi::load(as);
}
STEEPEST_HD inline std::int64_t quotientDown(std::int64_t a, std::int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

struct floorDiv_ {
  static constexpr int kArity = 2;
  template <Vector V>
  STEEPEST_HD static V apply(V a, V b) {
    if constexpr (Real<V>)
      return Division<V>(a, b).quotient;
    else
      return eachLane(a, b, quotientDown);
  }
};

struct remainder_ {
  static constexpr int kArity = 2;
  template <Vector V>
  STEEPEST_HD static V apply(V a, V b) {
    if constexpr (Real<V>)
      return Division<V>(a, b).rest;
    else
      return eachLane(a, b, [](std::int64_t x, std::int64_t y) { return x - y * quotientDown(x, y); });
  }
};

// The condition comes as a mask.
struct where_ {
  static constexpr int kArity = 3;
  static constexpr bool kCondition = true;
  template <Vector V>
  STEEPEST_HD static V apply(typename V::Mask condition, V a, V b) {
    return select(condition, a, b);
  }
};

// Cotangents of the activations: the slope at x times g.
#define STEEPEST_SLOPE(name)               \
  struct name##Grad_ {                     \
    static constexpr int kArity = 2;       \
    template <Real V>                      \
    STEEPEST_HD static V apply(V x, V g) { \
      return g * name##Slope(x);           \
    }                                      \
  }
STEEPEST_SLOPE(gelu);
STEEPEST_SLOPE(geluTanh);
STEEPEST_SLOPE(silu);
#undef STEEPEST_SLOPE

// A change of dtype: the interpreter has a loop per pair.
struct cast_ {
  static constexpr int kArity = 1;
};

}  // namespace steepest::STEEPEST_LEVEL::ew
