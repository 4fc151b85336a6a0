// erf and activations with their slopes. Polynomials are Chebyshev fits on the stated intervals.
#pragma once

#include "math/exponential.h"

namespace steepest::STEEPEST_LEVEL {

// The upper tail 1 - Phi(a) of the normal distribution for a >= 0, and the factor e^(-a^2/2) that it is made of.
template <Vector V>
struct NormalTail {
  V tail, gauss, a;

  STEEPEST_HD explicit NormalTail(V from) {
    // From here on the tail is 0; written so that NaN passes.
    a = min(V(static_cast<typename V::Scalar>(kSingle<V> ? 14.5 : 38.8)), from);
    const V square = a * a, lost = fma(a, a, -square);
    const V e = exp(V(-0.5) * square);
    gauss = fnma(e, V(0.5) * lost, e);
    // With t = a / sqrt(2): erfc(t) e^(t^2) (1 + 2 t) / 2 in (t - 3) / (t + 3), after Shepherd and Laframboise (1981);
    // off by 1.8e-9 (float32, t <= 10.3) and 1.6e-17 (t <= 27.5).
    const V k(static_cast<typename V::Scalar>(4.242640687119285));
    const V q = (a - k) / (a + k);
    V p;
    if constexpr (kSingle<V>) {
      p = poly(q, 0.6265040289871683, -0.06781057313114469, -0.023781149297868447, 0.06482332395770604, -0.05963614619314123,
               0.03414661999446462, -0.01189622916571754, 0.0012891090361760323, 0.0009991125495329917, -0.000396591288955783,
               -0.00013772800936674725);
    } else {
      p = poly(q, 0.6265040291348648, -0.06781055306229034, -0.023781147176723354, 0.06482257935135222, -0.0596368317077559,
               0.034154013672920924, -0.011885257457277133, 0.001264695893834546, 0.0009443451575445568, -0.00038991601627323756,
               -5.2579753560440914e-05, 6.254906112188194e-05, 2.47410093327824e-06, -1.0048264976751503e-05, -3.63844348307895e-07,
               1.7318899458359404e-06, 1.7454433392752047e-07, -3.023590017222077e-07, -6.556661084893623e-08, 4.582581764922689e-08,
               1.6435340816847145e-08, -4.217000827825987e-09, -2.091291257246336e-09);
    }
    tail = gauss * p / fma(a, V(static_cast<typename V::Scalar>(1.4142135623730951)), V(1));
  }
};

template <Vector V>
STEEPEST_HD inline V erf(V x) {
  const V a = abs(x), z = a * a;
  V p;
  // erf(x) / x - 1 in z = x^2 <= 1; off by 1.3e-9 (float32) and 7.4e-18.
  if constexpr (kSingle<V>) {
    p = poly(z, 0.12837916584835093, -0.37612626666720334, 0.11283594715160218, -0.026854212010626412, 0.005189087423433974,
             -0.000801686428716587, 7.875875062685488e-05);
  } else {
    p = poly(z, 0.12837916709551256, -0.37612638903183543, 0.11283791670945006, -0.02686617064323777, 0.0052239776071164225,
             -0.0008548325975389692, 0.00012055294904839707, -1.492473690741966e-05, 1.6447424703317362e-06, -1.6208483801871705e-07,
             1.3720064546777686e-08, -7.795898827002142e-10);
  }
  const NormalTail<V> t(a * V(static_cast<typename V::Scalar>(1.4142135623730951)));
  return select(a < V(1), fma(x, p, x), copysign(fnma(V(2), t.tail, V(1)), x));
}

// max(x, 0); NaN stays.
template <Vector V>
STEEPEST_HD inline V relu(V x) {
  return max(V(0), x);
}

// x within bounds beyond which the functions below are 0, x or their limits, so that infinity is never multiplied by 0.
template <Vector V>
STEEPEST_HD inline V notBelow(V x, double low) {
  return max(V(static_cast<typename V::Scalar>(low)), x);
}
template <Vector V>
STEEPEST_HD inline V within(V x, double bound) {
  return notBelow(min(V(static_cast<typename V::Scalar>(bound)), x), -bound);
}

// x Phi(x), with relative accuracy in the lower tail too.
template <Vector V>
STEEPEST_HD inline V gelu(V x) {
  const V z = x * x, t = NormalTail<V>(abs(x)).tail;
  V p;
  // (Phi(x) - 1/2) / x in z = x^2 <= 9/16; off by 1e-9 (float32) and 4.4e-18.
  if constexpr (kSingle<V>) {
    p = poly(z, 0.39894227946005223, -0.06649029632146077, 0.009972360943304425, -0.001181318903736044, 0.00010297051487005196);
  } else {
    p = poly(z, 0.39894228040143265, -0.06649038006690419, 0.009973557009976547, -0.001187328214396983, 0.00011543467768540948,
             -9.444605057900199e-06, 6.658139159575593e-07, -4.0950399522417176e-08, 2.005713145365612e-09);
  }
  const V phi = select(z < V(0.5625), fma(x, p, V(0.5)), select(x < V(0), t, V(1) - t));
  return notBelow(x, -100) * phi;
}

// Phi(x) + x phi(x).
template <Vector V>
STEEPEST_HD inline V geluSlope(V x) {
  const NormalTail<V> n(abs(x));
  const V t = fnma(n.a * V(static_cast<typename V::Scalar>(0.3989422804014327)), n.gauss, n.tail);
  return select(x < V(0), t, V(1) - t);
}

// 2 sqrt(2/pi) (x + 0.044715 x^3), whose sigmoid is (1 + tanh(half of it)) / 2.
template <Vector V>
STEEPEST_HD inline V geluTanhInner(V x) {
  using S = typename V::Scalar;
  return x * fma(x * x, V(static_cast<S>(0.07135481627260025)), V(static_cast<S>(1.5957691216057308)));
}

// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
template <Vector V>
STEEPEST_HD inline V geluTanh(V x) {
  return notBelow(x, -100) * sigmoid(geluTanhInner(x));
}

template <Vector V>
STEEPEST_HD inline V geluTanhSlope(V x) {
  using S = typename V::Scalar;
  x = within(x, 100);
  const V w = geluTanhInner(x), slope = fma(x * x, V(static_cast<S>(0.21406444881780076)), V(static_cast<S>(1.5957691216057308)));
  const V e = exp(-abs(w)), d = V(1) / (V(1) + e);
  return fma(x * slope, e * d * d, select(w < V(0), e * d, d));
}

// x sigmoid(x).
template <Vector V>
STEEPEST_HD inline V silu(V x) {
  return notBelow(x, -1000) * sigmoid(x);
}

template <Vector V>
STEEPEST_HD inline V siluSlope(V x) {
  x = within(x, 1000);
  const V e = exp(-abs(x)), d = V(1) / (V(1) + e);
  return fma(x, e * d * d, select(x < V(0), e * d, d));
}

}  // namespace steepest::STEEPEST_LEVEL
