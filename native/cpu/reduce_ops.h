// Sums, products and extremes as Ops of reduce_run.h.
//
// Lanes add in the type that computes over at most kChunk / 64 elements (by columns: kRows); what is above that is joined in float64.
// So a float32 sum over 1e8 elements is as good as one over a few hundred.
#pragma once

#include <limits>

#include "cpu/reduce_geometry.h"
#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL::reduction {

// Eight int64 lanes, wrapping.
struct Wide {
  using Scalar = std::int64_t;
  static constexpr int kLanes = 8;
  std::uint64_t lane[kLanes];
  Wide() = default;
  Wide(std::int64_t x) { std::fill_n(lane, kLanes, static_cast<std::uint64_t>(x)); }
  static Wide load(const std::int64_t* p) {
    Wide v;
    std::memcpy(v.lane, p, sizeof v.lane);
    return v;
  }
  friend void store(std::int64_t* p, const Wide& v) { std::memcpy(p, v.lane, sizeof v.lane); }
};

template <class F>
inline Wide lanes(const Wide& a, const Wide& b, F f) {
  Wide v;
  for (int i = 0; i < Wide::kLanes; ++i) v.lane[i] = f(a.lane[i], b.lane[i]);
  return v;
}

template <class V>
inline V loadPart(const typename V::Scalar* p, int n, typename V::Scalar other) {
  alignas(64) typename V::Scalar lane[V::kLanes];
  for (int i = 0; i < V::kLanes; ++i) lane[i] = i < n ? p[i] : other;
  return V::load(lane);
}

template <class V>
constexpr bool kInteger = std::is_integral_v<typename V::Scalar>;

// What float and double lanes are joined in.
template <class V>
using Joined = std::conditional_t<kInteger<V>, std::int64_t, double>;

template <class V>
struct Sum {
  static typename V::Scalar identity() { return 0; }
  static V lift(const V& x) { return x; }
  static V merge(const V& a, const V& b) {
    if constexpr (kInteger<V>)
      return lanes(a, b, [](std::uint64_t x, std::uint64_t y) { return x + y; });
    else
      return a + b;
  }
  static double merge(double a, double b) { return a + b; }
  static std::int64_t merge(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  }
};

template <class V>
struct SumSquares : Sum<V> {
  static V lift(const V& x) { return x * x; }
};

template <class V>
struct Prod {
  static typename V::Scalar identity() { return 1; }
  static V lift(const V& x) { return x; }
  static V merge(const V& a, const V& b) {
    if constexpr (kInteger<V>)
      return lanes(a, b, [](std::uint64_t x, std::uint64_t y) { return x * y; });
    else
      return a * b;
  }
  static double merge(double a, double b) { return a * b; }
  static std::int64_t merge(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
  }
};

// A NaN that came stays.
template <class V>
struct Max {
  using T = typename V::Scalar;
  static T identity() {
    if constexpr (kInteger<V>)
      return std::numeric_limits<T>::min();
    else
      return -std::numeric_limits<T>::infinity();
  }
  static V lift(const V& x) { return x; }
  static V merge(const V& a, const V& b) {
    if constexpr (kInteger<V>) {
      return lanes(a, b, [](std::uint64_t x, std::uint64_t y) { return static_cast<T>(y) > static_cast<T>(x) ? y : x; });
    } else {
      return select((b > a) | (b != b), b, a);
    }
  }
  static double merge(double a, double b) { return b > a || b != b ? b : a; }
  static std::int64_t merge(std::int64_t a, std::int64_t b) { return b > a ? b : a; }
};

template <class V>
struct Min {
  using T = typename V::Scalar;
  static T identity() {
    if constexpr (kInteger<V>)
      return std::numeric_limits<T>::max();
    else
      return std::numeric_limits<T>::infinity();
  }
  static V lift(const V& x) { return x; }
  static V merge(const V& a, const V& b) {
    if constexpr (kInteger<V>) {
      return lanes(a, b, [](std::uint64_t x, std::uint64_t y) { return static_cast<T>(y) < static_cast<T>(x) ? y : x; });
    } else {
      return select((b < a) | (b != b), b, a);
    }
  }
  static double merge(double a, double b) { return b < a || b != b ? b : a; }
  static std::int64_t merge(std::int64_t a, std::int64_t b) { return b < a ? b : a; }
};

// Joins all lanes: halves onto each other.
template <class F, class V>
inline Joined<V> across(const V& v) {
  alignas(64) typename V::Scalar lane[V::kLanes];
  store(lane, v);
  Joined<V> joined[V::kLanes];
  for (int i = 0; i < V::kLanes; ++i) joined[i] = lane[i];
  for (int half = V::kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) joined[i] = F::merge(joined[i], joined[i + half]);
  }
  return joined[0];
}

// Merges f(x) over n elements, lanes in V.
template <class F, class V, class Lift>
inline V lanesOf(const typename V::Scalar* x, int n, Lift lift) {
  constexpr int L = V::kLanes;
  const V start(F::identity());
  V a = start, b = start, c = start, d = start;
  int i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    a = F::merge(a, lift(V::load(x + i)));
    b = F::merge(b, lift(V::load(x + i + L)));
    c = F::merge(c, lift(V::load(x + i + 2 * L)));
    d = F::merge(d, lift(V::load(x + i + 3 * L)));
  }
  for (; i + L <= n; i += L) a = F::merge(a, lift(V::load(x + i)));
  // The lanes that are not there hold what changes nothing: the identity where it is its own lift (0, 1), else the infinities.
  if (i < n) b = F::merge(b, lift(loadPart<V>(x + i, n - i, F::identity())));
  return F::merge(F::merge(a, b), F::merge(c, d));
}

template <template <class> class Of, class V>
struct Fold {
  using F = Of<V>;
  using Scalar = typename V::Scalar;
  using Part = Joined<V>;
  static constexpr int L = V::kLanes;

  static Part empty() { return F::identity(); }
  static void combine(Part& a, Part b) { a = F::merge(a, b); }
  static Part unfold(Part p, std::int64_t, std::int64_t) { return p; }
  static Part finish(Part p) { return p; }

  static Part row(const Scalar* x, int n, std::int64_t) {
    return across<F>(lanesOf<F, V>(x, n, [](const V& v) { return F::lift(v); }));
  }

  static void columns(const Scalar* const* rows, int count, std::int64_t, int width, Part* parts) {
    alignas(64) Scalar total[kColumns];
    const int padded = width / L * L;
    int r = 0;
    for (; r + 8 <= count; r += 8) {
      const Scalar* const* p = rows + r;
      const auto eight = [&](auto load) {
        return F::merge(F::merge(F::merge(load(p[0]), load(p[1])), F::merge(load(p[2]), load(p[3]))),
                        F::merge(F::merge(load(p[4]), load(p[5])), F::merge(load(p[6]), load(p[7]))));
      };
      for (int c = 0; c < padded; c += L) {
        const V v = eight([&](const Scalar* q) { return F::lift(V::load(q + c)); });
        store(total + c, r == 0 ? v : F::merge(V::load(total + c), v));
      }
      if (padded < width) {
        const V v = eight([&](const Scalar* q) { return F::lift(loadPart<V>(q + padded, width - padded, F::identity())); });
        store(total + padded, r == 0 ? v : F::merge(V::load(total + padded), v));
      }
    }
    for (; r < count; ++r) {
      for (int c = 0; c < padded; c += L) {
        const V v = F::lift(V::load(rows[r] + c));
        store(total + c, r == 0 ? v : F::merge(V::load(total + c), v));
      }
      if (padded < width) {
        const V v = F::lift(loadPart<V>(rows[r] + padded, width - padded, F::identity()));
        store(total + padded, r == 0 ? v : F::merge(V::load(total + padded), v));
      }
    }
    for (int c = 0; c < width; ++c) parts[c] = F::merge(parts[c], static_cast<Part>(total[c]));
  }
};

}  // namespace steepest::STEEPEST_LEVEL::reduction
