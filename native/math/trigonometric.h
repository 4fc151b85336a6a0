// sin and cos of any argument: reduction by pi/2 in three parts, and by the bits of 2/pi for huge ones.
#pragma once

#include <cmath>

#include "math/polynomial.h"

namespace steepest::STEEPEST_LEVEL {

struct HugeAngle {
  double r, low;  // the angle within +-pi/4, in two parts
  int quarter;
};

// Payne and Hanek (1983): of m 2^e / (pi/2) only the bits near the point matter, so 192 bits of 2/pi from the right place suffice.
STEEPEST_HD inline HugeAngle reduceHuge(double x) {
  static constexpr std::uint64_t kTwoOverPi[20] = {
      0xa2f9836e4e441529ull, 0xfc2757d1f534ddc0ull, 0xdb6295993c439041ull, 0xfe5163abdebbc561ull, 0xb7246e3a424dd2e0ull,
      0x06492eea09d1921cull, 0xfe1deb1cb129a73eull, 0xe88235f52ebb4484ull, 0xe99c7026b45f7e41ull, 0x3991d639835339f4ull,
      0x9c845f8bbdf9283bull, 0x1ff897ffde05980full, 0xef2f118b5a0a6d1full, 0x6d367ecf27cb09b7ull, 0x4f463f669e5fea2dull,
      0x7527bac7ebe5f17bull, 0x3d0739f78a5292eaull, 0x6bfb5fb11f8d5d08ull, 0x56033046fc7b6babull, 0xf0cfbc209af4361dull};
  using Wide = unsigned __int128;
  std::uint64_t bits;
  std::memcpy(&bits, &x, 8);
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff);
  if (exponent == 0x7ff) return {std::numeric_limits<double>::quiet_NaN(), 0, 0};
  const std::uint64_t m = (bits & ((1ull << 52) - 1)) | 1ull << 52;
  const int e = exponent - 1075;
  // Bits of 2/pi before `skip` give multiples of 4 quarters.
  const int skip = e > 2 ? e - 2 : 0, word = skip / 64, shift = skip % 64;
  std::uint64_t part[3];
  for (int i = 0; i < 3; ++i) {
    part[i] = kTwoOverPi[word + i] << shift;
    if (shift) part[i] |= kTwoOverPi[word + i + 1] >> (64 - shift);
  }
  // The product, most significant limb first.
  std::uint64_t p[4];
  Wide carry = 0;
  for (int i = 2; i >= 0; --i) {
    carry += static_cast<Wide>(part[i]) * m;
    p[i + 1] = static_cast<std::uint64_t>(carry);
    carry >>= 64;
  }
  p[0] = static_cast<std::uint64_t>(carry);
  // Shifted so that the top two bits count the quarters; 192 - (e - skip) bits lie behind the point.
  const int up = 62 + (e - skip);
  const int limb = up / 64, rest = up % 64;
  const auto at = [&](int i) -> std::uint64_t {
    const std::uint64_t high = i + limb < 4 ? p[i + limb] : 0, next = i + limb + 1 < 4 ? p[i + limb + 1] : 0;
    return rest ? high << rest | next >> (64 - rest) : high;
  };
  const std::uint64_t a = at(0), b = at(1), c = at(2);
  const std::uint64_t top = a << 2 | b >> 62, below = b << 2 | c >> 62;
  int quarter = static_cast<int>(a >> 62) + static_cast<int>(top >> 63);
  const auto fraction = static_cast<__int128>(static_cast<Wide>(top) << 64 | below);
  const auto high = static_cast<double>(fraction);
  const auto low = static_cast<double>(fraction - static_cast<__int128>(high));
  const double h = high * 0x1p-128, l = low * 0x1p-128;
  constexpr double half = 0x1.921fb54442d18p+0, halfLow = 0x1.1a62633145c07p-54;
  double r = h * half;
  double rLow = std::fma(h, half, -r) + (h * halfLow + l * half);
  if (bits >> 63) {
    r = -r;
    rLow = -rLow;
    quarter = -quarter;
  }
  return {r, rLow, quarter & 3};
}

// x = quarter pi/2 + r + low with |r| <= pi/4 and a little.
template <Vector V>
struct Angle {
  using I = typename V::Ints;
  V r, low;
  I quarter;

  STEEPEST_HD explicit Angle(V x) {
    using S = typename V::Scalar;
    constexpr S p1 = static_cast<S>(kSingle<V> ? 0x1.921fb6p+0 : 0x1.921fb54442d18p+0);
    constexpr S p2 = static_cast<S>(kSingle<V> ? -0x1.777a5cp-25 : 0x1.1a62633145c07p-54);
    constexpr S p3 = static_cast<S>(kSingle<V> ? -0x1.ee59dap-50 : -0x1.f1976b7ed8fbcp-110);
    const V n = round(x * V(static_cast<S>(0.6366197723675814)));
    quarter = toInt(n);
    // The first difference is exact: both sides are multiples of the last bit of p1.
    const V first = fnma(n, V(p1), x), w = n * V(p2);
    const V head = first - w, back = first - head;
    const V lost = (first - (head + back)) + (back - w);
    const V tail = lost + (fnma(n, V(p2), w) - n * V(p3));
    r = head + tail;
    low = tail - (r - head);
    const auto usual = abs(x) < V(kSingle<V> ? 0x1p17 : 0x1p30);
    if (!all(usual)) huge(x, bits(usual));
  }

 private:
  // Lanes whose bit is not set, one by one.
  STEEPEST_HD void huge(V x, unsigned usual) {
    using S = typename V::Scalar;
    S from[V::kLanes], rs[V::kLanes], lows[V::kLanes];
    V quarters = toFloat(quarter & I(3));
    S qs[V::kLanes];
    store(from, x);
    store(rs, r);
    store(lows, low);
    store(qs, quarters);
    for (int i = 0; i < V::kLanes; ++i) {
      if (usual >> i & 1) continue;
      const HugeAngle a = reduceHuge(static_cast<double>(from[i]));
      rs[i] = static_cast<S>(a.r);
      lows[i] = static_cast<S>(a.r - static_cast<double>(rs[i]) + a.low);
      qs[i] = static_cast<S>(a.quarter);
    }
    r = V::load(rs);
    low = V::load(lows);
    quarter = toInt(V::load(qs));
  }
};

// sin(r + low): (sin r - r) / r^3 in z = r^2; off by 2.9e-11 (float32) and 2.1e-17.
template <Vector V>
STEEPEST_HD inline V sinNear(V r, V low) {
  const V z = r * r;
  if constexpr (kSingle<V>) {
    return r + fma(r * z, poly(z, -0.16666666663832763, 0.008333331865959415, -0.00019840082012765537, 2.7249314054698804e-06), low);
  } else {
    return r + fma(r * z,
                   poly(z, -0.16666666666666666, 0.008333333333330925, -0.00019841269836722418, 2.755731608381636e-06,
                        -2.5051127944014188e-08, 1.5917848524808262e-10),
                   low);
  }
}

// cos(r + low): (cos r - 1 + z/2) / z^2 in z = r^2; off by 2.1e-9 (float32) and 1.3e-18.
template <Vector V>
STEEPEST_HD inline V cosNear(V r, V low) {
  const V z = r * r, half = V(0.5) * z, head = V(1) - half;
  V t;
  if constexpr (kSingle<V>) {
    t = poly(z, 0.04166666464745738, -0.00138883006969039, 2.45474372101932e-05);
  } else {
    t = poly(z, 0.041666666666666664, -0.0013888888888887382, 2.480158729874307e-05, -2.7557317260008837e-07, 2.0876143827993133e-09,
             -1.1382456778061306e-11);
  }
  return head + (((V(1) - head) - half) + fma(z * z, t, -(r * low)));
}

template <Vector V>
STEEPEST_HD inline V sinOf(const Angle<V>& a, typename V::Ints quarter) {
  using I = typename V::Ints;
  const V y = select((toFloat(quarter & I(1))) == V(0), sinNear(a.r, a.low), cosNear(a.r, a.low));
  const I sign = (quarter & I(2)) << (kSingle<V> ? 30 : 62);
  return fromBits(toBits(y) ^ sign);
}

template <Vector V>
STEEPEST_HD inline V sin(V x) {
  const Angle<V> a(x);
  return select(abs(x) < V(kSingle<V> ? 0x1p-13 : 0x1p-28), x, sinOf(a, a.quarter));
}

template <Vector V>
STEEPEST_HD inline V cos(V x) {
  const Angle<V> a(x);
  return sinOf(a, a.quarter + typename V::Ints(1));
}

}  // namespace steepest::STEEPEST_LEVEL
