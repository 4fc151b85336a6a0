// exp, log and their relatives. Polynomials are Chebyshev fits on the stated intervals.
#pragma once

#include "math/polynomial.h"

namespace steepest::STEEPEST_LEVEL {

// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2; off by 7e-8 (float32) and 1.1e-16, before the factor r^2 <= 0.12.
template <Vector V>
STEEPEST_HD inline V expTail(V r) {
  if constexpr (kSingle<V>) {
    return poly(r, 0.5, 0.16666576305560638, 0.041666553762567636, 0.008363292753030603, 0.0013926325618133463);
  } else {
    return poly(r, 0.5, 0.16666666666666669, 0.04166666666662348, 0.008333333333330011, 0.0013888888917538296, 0.00019841269863303223,
                2.4801520792572694e-05, 2.75572680728901e-06, 2.762032742826824e-07, 2.5100569275813683e-08);
  }
}

// x = n ln 2 + r with integral n and |r| <= ln(2)/2.
template <Vector V>
struct Halved {
  V n, r;
  STEEPEST_HD explicit Halved(V x) : n(round(x * V(static_cast<typename V::Scalar>(1.4426950408889634)))) {
    r = fnma(n, ln2Low<V>(), fnma(n, ln2High<V>(), x));
  }
};

template <Vector V>
STEEPEST_HD inline V exp(V x) {
  // Beyond these bounds the result is 0 or infinite; written so that NaN passes.
  constexpr double low = kSingle<V> ? -105 : -746, high = kSingle<V> ? 89 : 710;
  const Halved<V> h(max(V(low), min(V(high), x)));
  return scaled(fma(h.r * h.r, expTail(h.r), h.r) + V(1), h.n);
}

template <Vector V>
STEEPEST_HD inline V expm1(V x) {
  constexpr double low = kSingle<V> ? -18 : -40, high = kSingle<V> ? 89 : 710;
  const Halved<V> h(max(V(low), min(V(high), x)));
  const V p = fma(h.r * h.r, expTail(h.r), h.r);
  // Half of the power, so that it does not overflow before its product does.
  const V half = exp2i(h.n - V(1));
  const V y = select(h.n == V(0), p, fma(half, p, half - V(0.5)) * V(2));
  // Keeps -0 and subnormal numbers.
  return select(abs(x) < V(kSingle<V> ? 0x1p-26 : 0x1p-55), x, y);
}

// A positive x as 2^k (1 + f) with 1 + f between sqrt(1/2) and sqrt(2).
template <Vector V>
struct Logarithm {
  V k, f;
  STEEPEST_HD explicit Logarithm(V x) {
    using I = typename V::Ints;
    using Int = typename I::Scalar;
    constexpr int digits = kSingle<V> ? 23 : 52;
    constexpr Int one = static_cast<Int>(kSingle<V> ? 0x3f800000 : 0x3ff0000000000000);
    constexpr Int root = static_cast<Int>(kSingle<V> ? 0x3f3504f3 : 0x3fe6a09e667f3bcd);
    const auto small = x < V(std::numeric_limits<typename V::Scalar>::min());
    const V up = V(kSingle<V> ? 0x1p24 : 0x1p54);
    const I shifted = toBits(select(small, x * up, x)) + I(one - root);
    k = toFloat(shr(shifted, digits)) - select(small, V(kSingle<V> ? 151 : 1077), V(kSingle<V> ? 127 : 1023));
    f = fromBits((shifted & I((Int{1} << digits) - 1)) + I(root)) - V(1);
  }
  // log(1 + f) = 2 atanh(s), s = f / (2 + f); the sum as in fdlibm (Sun Microsystems 1993), where `carry` is added to the whole.
  STEEPEST_HD V value(V carry) const {
    const V s = f / (f + V(2)), z = s * s, half = V(0.5) * f * f;
    V r;
    // (2 atanh(s) - 2 s) / s^3 in z = s^2 <= 0.0295; off by 1.9e-7 (float32) and 3.1e-16, before the factor z / 2.
    if constexpr (kSingle<V>) {
      r = z * poly(z, 0.6666668506375033, 0.39988770673510876, 0.2958039828148471);
    } else {
      r = z * poly(z, 0.666666666666667, 0.3999999999989924, 0.2857142862609589, 0.2222221111514416, 0.18182890556695602,
                   0.1533167403016786, 0.1461703754879165);
    }
    return fma(k, ln2High<V>(), f - (half - fma(s, half + r, fma(k, ln2Low<V>(), carry))));
  }
};

// Where x is not positive and finite: -infinity at 0, infinity at infinity, else NaN.
template <Vector V>
STEEPEST_HD inline V logSpecial(V x) {
  return select(x == V(0), -infinity<V>(), select(x > V(0), x, notANumber<V>()));
}

template <Vector V>
STEEPEST_HD inline V log(V x) {
  return select((x > V(0)) & (x < infinity<V>()), Logarithm<V>(x).value(V(0)), logSpecial(x));
}

template <Vector V>
STEEPEST_HD inline V log1p(V x) {
  const V u = V(1) + x;
  Logarithm<V> l(u);
  // What the sum lost.
  V carry = select(x > V(1), V(1) - (u - x), x - (u - V(1))) / u;
  const auto near = (x > V(-0.29)) & (x < V(0.41));
  l.k = select(near, V(0), l.k);
  l.f = select(near, x, l.f);
  carry = select(near, V(0), carry);
  const V y = select((u > V(0)) & (u < infinity<V>()), l.value(carry), logSpecial(u));
  return select(x == V(0), x, y);
}

template <Vector V>
STEEPEST_HD inline V tanh(V x) {
  const V a = abs(x);
  const V t = expm1(V(2) * min(V(kSingle<V> ? 10 : 20), a));
  return copysign(t / (t + V(2)), x);
}

template <Vector V>
STEEPEST_HD inline V sigmoid(V x) {
  const V e = exp(-abs(x));
  return select(x < V(0), e, V(1)) / (V(1) + e);
}

// log(1 + e^x).
template <Vector V>
STEEPEST_HD inline V softplus(V x) {
  return max(x, V(0)) + log1p(exp(-abs(x)));
}

// |a|^b in float64 from e^(b log|a|) with the logarithm in two parts, about 2^-64 apart from the exact one.
STEEPEST_HD inline vd powMagnitude(vd a, vd b) {
  const Logarithm<vd> l(a);
  // s = f / (2 + f) and z = s^2 in two parts each.
  const vd d = l.f + vd(2), dLow = l.f - (d - vd(2));
  const vd s = l.f / d, sLow = fnma(s, dLow, fnma(s, d, l.f)) / d;
  const vd z = s * s, zLow = fma(s + s, sLow, fma(s, s, -z));
  // 2 atanh(s) = 2 s + s z (2/3 + z t); t is off by 2.8e-16 before the factor z^2 / 2 <= 4.4e-4.
  const vd t = poly(z, 0.40000000000000024, 0.28571428571338325, 0.22222222271185313, 0.18181808234003144, 0.15385575782820043,
                    0.13285924657242199, 0.1291402271694836);
  const vd third(0x1.5555555555555p-1), thirdLow(0x1.5555555555555p-55);
  const vd q = z * third, qLow = fma(z, thirdLow, fma(zLow, third, fma(z, third, -q))) + z * z * t;
  const vd c = s * q, cLow = fma(s, q, -c) + fma(s, qLow, sLow * q);
  // k ln 2 + 2 s + c, largest first.
  const vd e = l.k * ln2High<vd>(), s2 = s + s;
  const vd head = e + s2, headLow = select(l.k == vd(0), vd(0), s2 - (head - e));
  const vd sum = head + c, sumLow = c - (sum - head);
  const vd low = sumLow + (headLow + fma(l.k, ln2Low<vd>(), cLow + (sLow + sLow)));
  const vd lg = sum + low, lgLow = low - (lg - sum);
  const vd plain = select(a == vd(0), -infinity<vd>(), a);
  const auto usual = (a > vd(0)) & (a < infinity<vd>());
  const vd y = select(usual, lg, plain) * b;
  const vd yLow = select(usual & (abs(y) < vd(1000)), fma(lg, b, -y) + lgLow * b, vd(0));
  const vd power = exp(y);
  return select(power < infinity<vd>(), fma(power, yLow, power), power);
}

// For float32 results, where one float64 logarithm is exact enough.
STEEPEST_HD inline vd powMagnitudeShort(vd a, vd b) { return exp(log(a) * b); }

STEEPEST_HD inline vd magnitudeToPower(vd a, vd b) { return powMagnitude(a, b); }
STEEPEST_HD inline vf magnitudeToPower(vf a, vf b) {
  vd aLow, aHigh, bLow, bHigh;
  widen(a, aLow, aHigh);
  widen(b, bLow, bHigh);
  return narrow(powMagnitudeShort(aLow, bLow), powMagnitudeShort(aHigh, bHigh));
}

// As in C99: a^0 and 1^b are 1 even for NaN; a negative base has a power for whole exponents only.
template <Vector V>
STEEPEST_HD inline V pow(V a, V b) {
  const V whole = floor(b), halfway = b * V(0.5);
  const auto isWhole = whole == b;
  const auto odd = isWhole & (floor(halfway) != halfway);
  V y = magnitudeToPower(abs(a), b);
  y = select(odd, copysign(y, a), y);
  y = select((a < V(0)) & (a > -infinity<V>()) & ~isWhole & (abs(b) < infinity<V>()), notANumber<V>(), y);
  const auto one = (b == V(0)) | (a == V(1)) | ((a == V(-1)) & (abs(b) == infinity<V>()));
  return select(one, V(1), y);
}

}  // namespace steepest::STEEPEST_LEVEL
