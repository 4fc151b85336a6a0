// Vectors as arrays: the reference that the other levels match bit for bit, and the code for machines without AVX2.
#pragma once

#include <cmath>
#include <limits>

namespace steepest::STEEPEST_LEVEL {

template <class T, int N>
struct Pack;
using vf = Pack<float, 16>;
using vd = Pack<double, 8>;
using vi = Pack<std::int32_t, 16>;
using vl = Pack<std::int64_t, 8>;

template <class T, int N>
struct PackMask {
  bool v[N];

  friend PackMask operator&(PackMask a, PackMask b) {
    return zip(a, b, [](bool x, bool y) { return x & y; });
  }
  friend PackMask operator|(PackMask a, PackMask b) {
    return zip(a, b, [](bool x, bool y) { return x | y; });
  }
  friend PackMask operator^(PackMask a, PackMask b) {
    return zip(a, b, [](bool x, bool y) { return x ^ y; });
  }
  friend PackMask operator~(PackMask a) {
    return zip(a, a, [](bool x, bool) { return !x; });
  }
  friend unsigned bits(PackMask a) {
    unsigned r = 0;
    for (int i = 0; i < N; ++i) r |= static_cast<unsigned>(a.v[i]) << i;
    return r;
  }
  friend bool any(PackMask a) { return bits(a) != 0; }
  friend bool all(PackMask a) { return bits(a) == (1u << N) - 1; }
  friend bool none(PackMask a) { return bits(a) == 0; }

  template <class F>
  static PackMask zip(const PackMask& a, const PackMask& b, F f) {
    PackMask r;
    for (int i = 0; i < N; ++i) r.v[i] = f(a.v[i], b.v[i]);
    return r;
  }
};

template <class T, int N>
struct Pack {
  using Scalar = T;
  using Mask = PackMask<std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>, N>;
  using Int = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
  using Unsigned = std::make_unsigned_t<Int>;
  using Ints = Pack<Int, N>;
  static constexpr int kLanes = N;
  static constexpr bool kFloat = std::is_floating_point_v<T>;

  alignas(16) T v[N];

  Pack() = default;
  Pack(T x) {
    for (int i = 0; i < N; ++i) v[i] = x;
  }
  static Pack iota() {
    return make([](int i) { return static_cast<T>(i); });
  }

  template <class F>
  static Pack make(F f) {
    Pack r;
    for (int i = 0; i < N; ++i) r.v[i] = f(i);
    return r;
  }
  template <class F>
  static Mask test(F f) {
    Mask r;
    for (int i = 0; i < N; ++i) r.v[i] = f(i);
    return r;
  }

  template <class S>
  static Pack load(const S* p) {
    return make([&](int i) { return read(p[i]); });
  }
  template <class S>
  static Pack load(const S* p, int n) {
    return make([&](int i) { return i < n ? read(p[i]) : T(0); });
  }
  template <class S>
  friend void store(S* p, const Pack& a) {
    for (int i = 0; i < N; ++i) write(p[i], a.v[i]);
  }
  template <class S>
  friend void store(S* p, const Pack& a, int n) {
    for (int i = 0; i < n; ++i) write(p[i], a.v[i]);
  }

  friend Pack operator+(const Pack& a, const Pack& b) {
    return arithmetic(a, b, [](auto x, auto y) { return x + y; });
  }
  friend Pack operator-(const Pack& a, const Pack& b) {
    return arithmetic(a, b, [](auto x, auto y) { return x - y; });
  }
  friend Pack operator*(const Pack& a, const Pack& b) {
    return arithmetic(a, b, [](auto x, auto y) { return x * y; });
  }
  friend Pack operator/(const Pack& a, const Pack& b)
    requires kFloat
  {
    return arithmetic(a, b, [](auto x, auto y) { return x / y; });
  }
  friend Pack operator-(const Pack& a) {
    if constexpr (kFloat) {
      return make([&](int i) { return -a.v[i]; });
    } else {
      return Pack(0) - a;
    }
  }
  Pack& operator+=(const Pack& b) { return *this = *this + b; }
  Pack& operator-=(const Pack& b) { return *this = *this - b; }
  Pack& operator*=(const Pack& b) { return *this = *this * b; }

  friend Pack fma(const Pack& a, const Pack& b, const Pack& c)
    requires kFloat
  {
    return make([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  friend Pack fnma(const Pack& a, const Pack& b, const Pack& c)
    requires kFloat
  {
    return make([&](int i) { return std::fma(-a.v[i], b.v[i], c.v[i]); });
  }
  friend Pack min(const Pack& a, const Pack& b) {
    return make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  friend Pack max(const Pack& a, const Pack& b) {
    return make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  friend Pack abs(const Pack& a) {
    if constexpr (kFloat) {
      return make([&](int i) { return std::fabs(a.v[i]); });
    } else {
      return max(a, -a);
    }
  }
  friend Pack sqrt(const Pack& a)
    requires kFloat
  {
    return make([&](int i) { return std::sqrt(a.v[i]); });
  }
  friend Pack copysign(const Pack& a, const Pack& b)
    requires kFloat
  {
    return make([&](int i) { return std::copysign(a.v[i], b.v[i]); });
  }
  // Numbers from 2^23 (2^52) on are integers; below, adding and taking away that number rounds.
  friend Pack round(const Pack& a)
    requires kFloat
  {
    return make([&](int i) { return roundOne(a.v[i]); });
  }
  friend Pack floor(const Pack& a)
    requires kFloat
  {
    return make([&](int i) {
      const T r = roundOne(a.v[i]);
      return std::copysign(r > a.v[i] ? r - T(1) : r, a.v[i]);
    });
  }
  friend Pack ceil(const Pack& a)
    requires kFloat
  {
    return make([&](int i) {
      const T r = roundOne(a.v[i]);
      return std::copysign(r < a.v[i] ? r + T(1) : r, a.v[i]);
    });
  }
  friend Pack trunc(const Pack& a)
    requires kFloat
  {
    return copysign(floor(abs(a)), a);
  }

  friend Mask operator==(const Pack& a, const Pack& b) {
    return test([&](int i) { return a.v[i] == b.v[i]; });
  }
  friend Mask operator!=(const Pack& a, const Pack& b) {
    return test([&](int i) { return a.v[i] != b.v[i]; });
  }
  friend Mask operator<(const Pack& a, const Pack& b) {
    return test([&](int i) { return a.v[i] < b.v[i]; });
  }
  friend Mask operator<=(const Pack& a, const Pack& b) {
    return test([&](int i) { return a.v[i] <= b.v[i]; });
  }
  friend Mask operator>(const Pack& a, const Pack& b) {
    return test([&](int i) { return a.v[i] > b.v[i]; });
  }
  friend Mask operator>=(const Pack& a, const Pack& b) {
    return test([&](int i) { return a.v[i] >= b.v[i]; });
  }
  friend Pack select(const Mask& m, const Pack& a, const Pack& b) {
    return make([&](int i) { return m.v[i] ? a.v[i] : b.v[i]; });
  }

  friend Pack operator&(const Pack& a, const Pack& b)
    requires(!kFloat)
  {
    return make([&](int i) { return a.v[i] & b.v[i]; });
  }
  friend Pack operator|(const Pack& a, const Pack& b)
    requires(!kFloat)
  {
    return make([&](int i) { return a.v[i] | b.v[i]; });
  }
  friend Pack operator^(const Pack& a, const Pack& b)
    requires(!kFloat)
  {
    return make([&](int i) { return a.v[i] ^ b.v[i]; });
  }
  friend Pack operator~(const Pack& a)
    requires(!kFloat)
  {
    return make([&](int i) { return ~a.v[i]; });
  }
  friend Pack operator<<(const Pack& a, int k)
    requires(!kFloat)
  {
    return make([&](int i) { return static_cast<T>(static_cast<Unsigned>(a.v[i]) << k); });
  }
  friend Pack operator>>(const Pack& a, int k)
    requires(!kFloat)
  {
    return make([&](int i) { return a.v[i] >> k; });
  }
  friend Pack shr(const Pack& a, int k)
    requires(!kFloat)
  {
    return make([&](int i) { return static_cast<T>(static_cast<Unsigned>(a.v[i]) >> k); });
  }

  friend T sum(const Pack& a) {
    return tree(a, [](auto x, auto y) { return x + y; });
  }
  friend T hmax(const Pack& a) {
    return tree(a, [](auto x, auto y) { return x > y ? x : y; });
  }
  friend T hmin(const Pack& a) {
    return tree(a, [](auto x, auto y) { return x < y ? x : y; });
  }

 private:
  // Integers wrap.
  template <class F>
  static Pack arithmetic(const Pack& a, const Pack& b, F f) {
    return make([&](int i) {
      if constexpr (kFloat) {
        return f(a.v[i], b.v[i]);
      } else {
        return static_cast<T>(f(static_cast<Unsigned>(a.v[i]), static_cast<Unsigned>(b.v[i])));
      }
    });
  }
  template <class F>
  static T tree(Pack a, F f) {
    for (int h = N / 2; h > 0; h /= 2) {
      for (int i = 0; i < h; ++i) a.v[i] = f(a.v[i], a.v[i + h]);
    }
    return a.v[0];
  }
  static T roundOne(T x) {
    constexpr T big = T(1) / std::numeric_limits<T>::epsilon();
    const T magnitude = std::fabs(x);
    return magnitude < big ? std::copysign((magnitude + big) - big, x) : x;
  }
  template <class S>
  static T read(const S& x) {
    if constexpr (std::is_same_v<S, bf16>) {
      const std::uint32_t wide = static_cast<std::uint32_t>(x.bits) << 16;
      float r;
      std::memcpy(&r, &wide, 4);
      return r;
    } else {
      return static_cast<T>(x);
    }
  }
  template <class S>
  static void write(S& to, T x) {
    if constexpr (std::is_same_v<S, bf16>) {
      std::uint32_t u;
      std::memcpy(&u, &x, 4);
      to.bits = static_cast<std::uint16_t>(x != x ? (u >> 16) | 0x40 : (u + 0x7fff + ((u >> 16) & 1)) >> 16);
    } else {
      to = static_cast<S>(x);
    }
  }
};

inline vi toBits(const vf& a) {
  vi r;
  std::memcpy(r.v, a.v, sizeof r.v);
  return r;
}
inline vl toBits(const vd& a) {
  vl r;
  std::memcpy(r.v, a.v, sizeof r.v);
  return r;
}
inline vf fromBits(const vi& a) {
  vf r;
  std::memcpy(r.v, a.v, sizeof r.v);
  return r;
}
inline vd fromBits(const vl& a) {
  vd r;
  std::memcpy(r.v, a.v, sizeof r.v);
  return r;
}

inline vi truncToInt(const vf& a) {
  return vi::make([&](int i) {
    const float x = a.v[i];
    return x >= -2147483648.0f && x < 2147483648.0f ? static_cast<std::int32_t>(x) : INT32_MIN;
  });
}
inline vi toInt(const vf& a) { return truncToInt(round(a)); }
inline vf toFloat(const vi& a) {
  return vf::make([&](int i) { return static_cast<float>(a.v[i]); });
}
inline vl toInt(const vd& a) { return toBits(a + vd(0x1.8p52)) - toBits(vd(0x1.8p52)); }
inline vd toFloat(const vl& a) { return fromBits(a + toBits(vd(0x1.8p52))) - vd(0x1.8p52); }

inline void widen(const vf& a, vd& lo, vd& hi) {
  lo = vd::load(a.v);
  hi = vd::load(a.v + 8);
}
inline vf narrow(const vd& lo, const vd& hi) {
  return vf::make([&](int i) { return static_cast<float>(i < 8 ? lo.v[i] : hi.v[i - 8]); });
}
inline vi mulHigh(const vi& a, const vi& b) {
  return vi::make([&](int i) {
    const std::uint64_t p = std::uint64_t(std::uint32_t(a.v[i])) * std::uint32_t(b.v[i]);
    return static_cast<std::int32_t>(p >> 32);
  });
}

}  // namespace steepest::STEEPEST_LEVEL
