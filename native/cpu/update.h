// How an update rule runs over memory on the CPU. The driver (update.cc) sees a rule as a row of functions over plain arrays.
#pragma once

#include <cstdint>

#include "ahead.h"
#include "rules/info.h"

namespace steepest::STEEPEST_LEVEL {

constexpr std::size_t kCoefBytes = 256;

// Arrays of one tensor, all at the same position: where a rule reads and where it writes. These are equal or disjoint.
template <class T>
struct Arrays {
  const T* p;
  const T* g;
  T* pOut;
  const T* s[kMaxSlots] = {};
  T* sOut[kMaxSlots] = {};

  Arrays from(std::int64_t i) const {
    Arrays a = *this;
    a.p += i, a.g += i, a.pOut += i;
    for (int k = 0; k < kMaxSlots && s[k]; ++k) a.s[k] += i, a.sOut[k] += i;
    return a;
  }
};

// The functions of a rule for one compute type.
template <class T>
struct RuleFunctions {
  void (*prepare)(const double* hyper, double lr, double t, void* coef);
  // n elements; the gradient is multiplied by `scale` first.
  void (*step)(const Arrays<T>& a, std::int64_t n, T scale, const void* coef);
  // Two-phase rules only: adds to sums[kSums]; then moves the weights with the factors of their row.
  void (*reduce)(const Arrays<T>& a, std::int64_t n, T scale, const void* coef, double* sums);
  void (*apply)(const Arrays<T>& a, std::int64_t n, T scale, const void* coef, const double* factors);
};

struct RuleRow : RuleInfo {
  void (*finish)(const double* hyper, const rules::RuleShape& shape, double lr, double t, const double* sums, double* factors);
  RuleFunctions<float> f32;
  RuleFunctions<double> f64;
};

// A vector, or one number, of the array.
template <class V, class T>
STEEPEST_RULE V fetch(const T* from) {
  if constexpr (std::is_same_v<V, T>) {
    return *from;
  } else {
    return V::load(from);
  }
}
template <class V, class T>
STEEPEST_RULE void put(T* to, V v) {
  if constexpr (std::is_same_v<V, T>) {
    *to = v;
  } else {
    store(to, v);
  }
}

// Vectors at a time (ahead.h says what that gives).
constexpr int kUnroll = 2;

// U vectors next to each other, each of one cache line.
template <class Rule, int U, class V, class T>
STEEPEST_RULE void stepAt(const Arrays<T>& a, std::int64_t i, T scale, const typename Rule::template Coef<T>& coef) {
  constexpr int n = slotsOf<Rule>();
  constexpr std::int64_t width = sizeof(V) / sizeof(T);
  V p[U], g[U], s[U][n + 1];
  for (int u = 0; u < U; ++u) {
    const std::int64_t at = i + u * width;
    p[u] = fetch<V>(a.p + at);
    g[u] = fetch<V>(a.g + at) * V(scale);
    for (int k = 0; k < n; ++k) s[u][k] = fetch<V>(a.s[k] + at);
    if constexpr (U > 1) {
      ask(a.p + at);
      ask(a.g + at);
      for (int k = 0; k < n; ++k) ask(a.s[k] + at);
    }
  }
  for (int u = 0; u < U; ++u) Rule::step(p[u], g[u], s[u], coef);
  for (int u = 0; u < U; ++u) {
    const std::int64_t at = i + u * width;
    put(a.pOut + at, p[u]);
    for (int k = 0; k < n; ++k) put(a.sOut[k] + at, s[u][k]);
  }
}

template <class Rule, int U, class V, class T>
STEEPEST_RULE void reduceAt(const Arrays<T>& a, std::int64_t i, T scale, const typename Rule::template Coef<T>& coef, V* sums) {
  constexpr int n = slotsOf<Rule>();
  constexpr bool leaves = reduceLeaves<Rule, V, T>;
  constexpr std::int64_t width = sizeof(V) / sizeof(T);
  V p[U], g[U], s[U][n + 1];
  for (int u = 0; u < U; ++u) {
    const std::int64_t at = i + u * width;
    p[u] = fetch<V>(a.p + at);
    g[u] = fetch<V>(a.g + at) * V(scale);
    for (int k = 0; k < n && !leaves; ++k) s[u][k] = fetch<V>(a.s[k] + at);
    if constexpr (U > 1) {
      ask(a.p + at);
      ask(a.g + at);
      for (int k = 0; k < n && !leaves; ++k) ask(a.s[k] + at);
    }
  }
  // One after the other: the sums have the same order at every width.
  for (int u = 0; u < U; ++u) Rule::reduce(p[u], g[u], s[u], coef, sums);
  for (int u = 0; u < U && !leaves; ++u) {
    for (int k = 0; k < n; ++k) put(a.sOut[k] + i + u * width, s[u][k]);
  }
}

template <class Rule, int U, class V, class T>
STEEPEST_RULE void applyAt(const Arrays<T>& a, std::int64_t i, T scale, const typename Rule::template Coef<T>& coef, const V* factors) {
  constexpr int n = slotsOf<Rule>();
  constexpr bool leaves = applyLeaves<Rule, V, T>;
  constexpr std::int64_t width = sizeof(V) / sizeof(T);
  const auto slot = [&](int k) -> const T* { return reduceLeaves<Rule, V, T> ? a.s[k] : a.sOut[k]; };
  V p[U], g[U], s[U][n + 1];
  for (int u = 0; u < U; ++u) {
    const std::int64_t at = i + u * width;
    p[u] = fetch<V>(a.p + at);
    g[u] = applyReads<Rule> ? fetch<V>(a.g + at) * V(scale) : V(0);
    for (int k = 0; k < n; ++k) s[u][k] = fetch<V>(slot(k) + at);
    if constexpr (U > 1) {
      ask(a.p + at);
      if constexpr (applyReads<Rule>) ask(a.g + at);
      for (int k = 0; k < n; ++k) ask(slot(k) + at);
    }
  }
  for (int u = 0; u < U; ++u) Rule::apply(p[u], g[u], s[u], coef, factors);
  for (int u = 0; u < U; ++u) {
    const std::int64_t at = i + u * width;
    put(a.pOut + at, p[u]);
    for (int k = 0; k < n && !leaves; ++k) put(a.sOut[k] + at, s[u][k]);
  }
}

inline double total(vf v) {
  vd lo, hi;
  widen(v, lo, hi);
  return sum(lo + hi);
}
inline double total(vd v) { return sum(v); }

// Vectors in the middle, single numbers at the end.
template <class Rule, class T>
struct Loops {
  using V = VecOf<T>;
  using Coef = typename Rule::template Coef<T>;
  static_assert(slotsOf<Rule>() <= kMaxSlots && sizeof(Coef) <= kCoefBytes);

  static void prepare(const double* hyper, double lr, double t, void* coef) {
    const Coef c = Rule::template prepare<T>(hyperOf<Rule>(hyper), lr, t);
    std::memcpy(coef, &c, sizeof c);
  }

  static void step(const Arrays<T>& arrays, std::int64_t n, T scale, const void* coef) {
    const Arrays<T> a = arrays;
    const Coef c = *static_cast<const Coef*>(coef);
    std::int64_t i = 0;
    for (; i + kUnroll * V::kLanes <= n; i += kUnroll * V::kLanes) stepAt<Rule, kUnroll, V, T>(a, i, scale, c);
    for (; i + V::kLanes <= n; i += V::kLanes) stepAt<Rule, 1, V, T>(a, i, scale, c);
    for (; i < n; ++i) stepAt<Rule, 1, T, T>(a, i, scale, c);
  }

  // Sums of a few vectors are taken in the compute type and carried on in float64.
  static void reduce(const Arrays<T>& arrays, std::int64_t n, T scale, const void* coef, double* sums) {
    constexpr std::int64_t piece = 16 * V::kLanes;
    const Arrays<T> a = arrays;
    const Coef c = *static_cast<const Coef*>(coef);
    std::int64_t i = 0;
    while (i + V::kLanes <= n) {
      V part[Rule::kSums];
      for (V& x : part) x = V(0);
      const std::int64_t end = i + piece < n ? i + piece : n;
      for (; i + kUnroll * V::kLanes <= end; i += kUnroll * V::kLanes) reduceAt<Rule, kUnroll, V, T>(a, i, scale, c, part);
      for (; i + V::kLanes <= end; i += V::kLanes) reduceAt<Rule, 1, V, T>(a, i, scale, c, part);
      for (int k = 0; k < Rule::kSums; ++k) sums[k] += total(part[k]);
    }
    T part[Rule::kSums] = {};
    for (; i < n; ++i) reduceAt<Rule, 1, T, T>(a, i, scale, c, part);
    for (int k = 0; k < Rule::kSums; ++k) sums[k] += static_cast<double>(part[k]);
  }

  static void apply(const Arrays<T>& arrays, std::int64_t n, T scale, const void* coef, const double* factors) {
    const Arrays<T> a = arrays;
    const Coef c = *static_cast<const Coef*>(coef);
    T one[Rule::kFactors];
    V wide[Rule::kFactors];
    for (int k = 0; k < Rule::kFactors; ++k) wide[k] = V(one[k] = static_cast<T>(factors[k]));
    std::int64_t i = 0;
    for (; i + kUnroll * V::kLanes <= n; i += kUnroll * V::kLanes) applyAt<Rule, kUnroll, V, T>(a, i, scale, c, wide);
    for (; i + V::kLanes <= n; i += V::kLanes) applyAt<Rule, 1, V, T>(a, i, scale, c, wide);
    for (; i < n; ++i) applyAt<Rule, 1, T, T>(a, i, scale, c, one);
  }
};

template <class Rule, class T>
constexpr RuleFunctions<T> functionsOf() {
  using L = Loops<Rule, T>;
  if constexpr (TwoPhase<Rule>) {
    return {L::prepare, nullptr, L::reduce, L::apply};
  } else {
    return {L::prepare, L::step, nullptr, nullptr};
  }
}

template <class Rule>
constexpr RuleRow rowOf() {
  void (*finish)(const double*, const rules::RuleShape&, double, double, const double*, double*) = nullptr;
  if constexpr (TwoPhase<Rule>) {
    finish = [](const double* hyper, const rules::RuleShape& shape, double lr, double t, const double* sums, double* factors) {
      Rule::finish(hyperOf<Rule>(hyper), shape, lr, t, sums, factors);
    };
  }
  return {infoOf<Rule>(), finish, functionsOf<Rule, float>(), functionsOf<Rule, double>()};
}

}  // namespace steepest::STEEPEST_LEVEL
