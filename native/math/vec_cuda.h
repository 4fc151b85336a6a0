// Vectors of one lane: what a GPU thread computes with. The same bits as the wide ones.
#pragma once

#include <cmath>
#include <limits>

namespace steepest::STEEPEST_LEVEL {

struct OneMask {
  bool v;

  OneMask() = default;
  STEEPEST_HD constexpr OneMask(bool x) : v(x) {}

  STEEPEST_HD friend OneMask operator&(OneMask a, OneMask b) { return {a.v && b.v}; }
  STEEPEST_HD friend OneMask operator|(OneMask a, OneMask b) { return {a.v || b.v}; }
  STEEPEST_HD friend OneMask operator^(OneMask a, OneMask b) { return {a.v != b.v}; }
  STEEPEST_HD friend OneMask operator~(OneMask a) { return {!a.v}; }
  STEEPEST_HD friend unsigned bits(OneMask a) { return a.v ? 1u : 0u; }
  STEEPEST_HD friend bool any(OneMask a) { return a.v; }
  STEEPEST_HD friend bool all(OneMask a) { return a.v; }
  STEEPEST_HD friend bool none(OneMask a) { return !a.v; }
};

template <class T>
struct One;
using vf = One<float>;
using vd = One<double>;
using vi = One<std::int32_t>;
using vl = One<std::int64_t>;

template <class To, class From>
STEEPEST_HD inline To sameBits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  memcpy(&y, &x, sizeof y);
  return y;
}

STEEPEST_HD inline float widenBf16(bf16 x) { return sameBits<float>(static_cast<std::uint32_t>(x.bits) << 16); }
STEEPEST_HD inline bf16 narrowBf16(float x) {
  const auto u = sameBits<std::uint32_t>(x);
  return {static_cast<std::uint16_t>(x != x ? (u >> 16) | 0x40u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

template <class T>
struct One {
  using Scalar = T;
  using Mask = OneMask;
  using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using Unsigned = std::make_unsigned_t<Int>;
  using Ints = One<Int>;
  static constexpr int kLanes = 1;
  static constexpr bool kFloat = std::is_floating_point_v<T>;

  T v;

  One() = default;
  STEEPEST_HD constexpr One(T x) : v(x) {}
  STEEPEST_HD static One iota() { return T(0); }

  template <class S>
  STEEPEST_HD static One load(const S* p) {
    if constexpr (std::is_same_v<S, bf16>)
      return widenBf16(*p);
    else
      return static_cast<T>(*p);
  }
  template <class S>
  STEEPEST_HD static One load(const S* p, int n) {
    return n > 0 ? load(p) : One(T(0));
  }
  template <class S>
  STEEPEST_HD friend void store(S* p, One a) {
    if constexpr (std::is_same_v<S, bf16>)
      *p = narrowBf16(a.v);
    else
      *p = static_cast<S>(a.v);
  }
  template <class S>
  STEEPEST_HD friend void store(S* p, One a, int n) {
    if (n > 0) store(p, a);
  }

  // Integers wrap.
  STEEPEST_HD friend One operator+(One a, One b) {
    if constexpr (kFloat)
      return a.v + b.v;
    else
      return static_cast<T>(static_cast<Unsigned>(a.v) + static_cast<Unsigned>(b.v));
  }
  STEEPEST_HD friend One operator-(One a, One b) {
    if constexpr (kFloat)
      return a.v - b.v;
    else
      return static_cast<T>(static_cast<Unsigned>(a.v) - static_cast<Unsigned>(b.v));
  }
  STEEPEST_HD friend One operator*(One a, One b) {
    if constexpr (kFloat)
      return a.v * b.v;
    else
      return static_cast<T>(static_cast<Unsigned>(a.v) * static_cast<Unsigned>(b.v));
  }
  STEEPEST_HD friend One operator/(One a, One b)
    requires kFloat
  {
    return a.v / b.v;
  }
  STEEPEST_HD friend One operator-(One a) {
    if constexpr (kFloat)
      return -a.v;
    else
      return One(T(0)) - a;
  }
  STEEPEST_HD One& operator+=(One b) { return *this = *this + b; }
  STEEPEST_HD One& operator-=(One b) { return *this = *this - b; }
  STEEPEST_HD One& operator*=(One b) { return *this = *this * b; }

  STEEPEST_HD friend One fma(One a, One b, One c)
    requires kFloat
  {
    return std::fma(a.v, b.v, c.v);
  }
  STEEPEST_HD friend One fnma(One a, One b, One c)
    requires kFloat
  {
    return std::fma(-a.v, b.v, c.v);
  }
  STEEPEST_HD friend One min(One a, One b) { return a.v < b.v ? a : b; }
  STEEPEST_HD friend One max(One a, One b) { return a.v > b.v ? a : b; }
  STEEPEST_HD friend One abs(One a) {
    if constexpr (kFloat)
      return std::fabs(a.v);
    else
      return max(a, -a);
  }
  STEEPEST_HD friend One sqrt(One a)
    requires kFloat
  {
    return std::sqrt(a.v);
  }
  STEEPEST_HD friend One copysign(One a, One b)
    requires kFloat
  {
    return std::copysign(a.v, b.v);
  }
  STEEPEST_HD friend One round(One a)
    requires kFloat
  {
    return std::rint(a.v);
  }
  STEEPEST_HD friend One floor(One a)
    requires kFloat
  {
    return std::floor(a.v);
  }
  STEEPEST_HD friend One ceil(One a)
    requires kFloat
  {
    return std::ceil(a.v);
  }
  STEEPEST_HD friend One trunc(One a)
    requires kFloat
  {
    return std::trunc(a.v);
  }

  STEEPEST_HD friend Mask operator==(One a, One b) { return {a.v == b.v}; }
  STEEPEST_HD friend Mask operator!=(One a, One b) { return {a.v != b.v}; }
  STEEPEST_HD friend Mask operator<(One a, One b) { return {a.v < b.v}; }
  STEEPEST_HD friend Mask operator<=(One a, One b) { return {a.v <= b.v}; }
  STEEPEST_HD friend Mask operator>(One a, One b) { return {a.v > b.v}; }
  STEEPEST_HD friend Mask operator>=(One a, One b) { return {a.v >= b.v}; }
  STEEPEST_HD friend One select(Mask m, One a, One b) { return m.v ? a : b; }

  STEEPEST_HD friend One operator&(One a, One b)
    requires(!kFloat)
  {
    return a.v & b.v;
  }
  STEEPEST_HD friend One operator|(One a, One b)
    requires(!kFloat)
  {
    return a.v | b.v;
  }
  STEEPEST_HD friend One operator^(One a, One b)
    requires(!kFloat)
  {
    return a.v ^ b.v;
  }
  STEEPEST_HD friend One operator~(One a)
    requires(!kFloat)
  {
    return ~a.v;
  }
  STEEPEST_HD friend One operator<<(One a, int k)
    requires(!kFloat)
  {
    return static_cast<T>(static_cast<Unsigned>(a.v) << k);
  }
  STEEPEST_HD friend One operator>>(One a, int k)
    requires(!kFloat)
  {
    return a.v >> k;
  }
  STEEPEST_HD friend One shr(One a, int k)
    requires(!kFloat)
  {
    return static_cast<T>(static_cast<Unsigned>(a.v) >> k);
  }

  STEEPEST_HD friend T sum(One a) { return a.v; }
  STEEPEST_HD friend T hmax(One a) { return a.v; }
  STEEPEST_HD friend T hmin(One a) { return a.v; }
};

STEEPEST_HD inline vi toBits(vf a) { return sameBits<std::int32_t>(a.v); }
STEEPEST_HD inline vl toBits(vd a) { return sameBits<std::int64_t>(a.v); }
STEEPEST_HD inline vf fromBits(vi a) { return sameBits<float>(a.v); }
STEEPEST_HD inline vd fromBits(vl a) { return sameBits<double>(a.v); }

STEEPEST_HD inline vi truncToInt(vf a) {
  return a.v >= -2147483648.0f && a.v < 2147483648.0f ? static_cast<std::int32_t>(a.v) : std::numeric_limits<std::int32_t>::min();
}
STEEPEST_HD inline vi toInt(vf a) { return truncToInt(round(a)); }
STEEPEST_HD inline vf toFloat(vi a) { return static_cast<float>(a.v); }
STEEPEST_HD inline vl toInt(vd a) { return toBits(a + vd(0x1.8p52)) - toBits(vd(0x1.8p52)); }
STEEPEST_HD inline vd toFloat(vl a) { return fromBits(a + toBits(vd(0x1.8p52))) - vd(0x1.8p52); }

STEEPEST_HD inline void widen(vf a, vd& lo, vd& hi) { lo = hi = static_cast<double>(a.v); }
STEEPEST_HD inline vf narrow(vd lo, vd) { return static_cast<float>(lo.v); }
STEEPEST_HD inline vi mulHigh(vi a, vi b) {
  return static_cast<std::int32_t>((std::uint64_t(std::uint32_t(a.v)) * std::uint32_t(b.v)) >> 32);
}

}  // namespace steepest::STEEPEST_LEVEL
