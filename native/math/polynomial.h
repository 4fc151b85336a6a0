// Polynomials and scaling that the functions share.
#pragma once

#include <limits>

#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {

// Keeps the functions from catching calls on plain numbers.
template <class V>
concept Vector = requires {
  typename V::Mask;
  typename V::Ints;
  V::kLanes;
};

// c0 + x (c1 + x (c2 + ...)), one rounding per step. The constants are given as doubles and rounded to V's scalar.
template <Vector V>
STEEPEST_HD inline V poly(V, double c) {
  return V(static_cast<typename V::Scalar>(c));
}
template <Vector V, class... C>
STEEPEST_HD inline V poly(V x, double c, C... rest) {
  return fma(x, poly(x, rest...), V(static_cast<typename V::Scalar>(c)));
}

template <Vector V>
constexpr bool kSingle = std::is_same_v<typename V::Scalar, float>;

template <Vector V>
STEEPEST_HD inline V infinity() {
  return V(std::numeric_limits<typename V::Scalar>::infinity());
}
template <Vector V>
STEEPEST_HD inline V notANumber() {
  return V(std::numeric_limits<typename V::Scalar>::quiet_NaN());
}

// x * 2^n for integral n within twice the exponent range, rounded once; AVX-512 has an instruction that gives the same bits.
#if defined(STEEPEST_LEVEL_v4)
STEEPEST_HD inline vf scaled(vf x, vf n) { return _mm512_scalef_ps(x.v, n.v); }
STEEPEST_HD inline vd scaled(vd x, vd n) { return _mm512_scalef_pd(x.v, n.v); }
#else
template <Vector V>
STEEPEST_HD inline V scaled(V x, V n) {
  return scale2(x, n);
}
#endif

// ln 2 in two parts; the first has trailing zeros, so that its product with an exponent is exact.
template <Vector V>
STEEPEST_HD inline V ln2High() {
  return V(static_cast<typename V::Scalar>(kSingle<V> ? 0x1.62e4p-1 : 0x1.62e42fefa38p-1));
}
template <Vector V>
STEEPEST_HD inline V ln2Low() {
  return V(static_cast<typename V::Scalar>(kSingle<V> ? 0x1.7f7d1cp-20 : 0x1.ef35793c7673p-45));
}

}  // namespace steepest::STEEPEST_LEVEL
