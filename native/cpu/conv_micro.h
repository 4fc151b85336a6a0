// The inner loops of convolutions: blocks of results that lie in registers while all that is summed streams by.
#pragma once

#include <bit>

#include "cpu/conv_pack.h"

namespace steepest::STEEPEST_LEVEL {

// As many accumulators as the registers of the level hold beside the operands: rows, and vectors for so many rows.
#if defined(STEEPEST_LEVEL_v4)
constexpr int kConvRows = 8;
constexpr int convVectors(int rows) { return rows == 8 ? 3 : rows == 4 ? 4 : rows == 2 ? 4 : 8; }
#elif defined(STEEPEST_LEVEL_v3)
constexpr int kConvRows = 4;
constexpr int convVectors(int rows) { return rows == 4 ? 1 : rows == 2 ? 2 : 4; }
#else
constexpr int kConvRows = 2;
constexpr int convVectors(int rows) { return rows == 2 ? 1 : 2; }
#endif

// Whether two bfloat16 products can be added to a float32 by one instruction here.
#if defined(STEEPEST_LEVEL_v4)
constexpr bool kHasPairs = true;
#else
constexpr bool kHasPairs = false;
#endif

// E is what is multiplied: float, double, or pairs of bfloat16 whose sums are float32.
template <class E>
struct Product {
  using Sum = E;
  using V = VecOf<E>;
  static V load(const E* p) { return V::load(p); }
  static V load(const E* p, int n) { return V::load(p, n); }
  static V all(const E* p) { return V(*p); }
  static void add(V& sum, V a, V b) { sum = fma(a, b, sum); }
};
template <>
struct Product<Bf16Pair> {
  using Sum = float;
  using V = vf;
  static V load(const Bf16Pair* p) { return V::load(reinterpret_cast<const float*>(p)); }
  static V load(const Bf16Pair* p, int n) { return V::load(reinterpret_cast<const float*>(p), n); }
  static V all(const Bf16Pair* p) { return V(std::bit_cast<float>(p->bits)); }
#if defined(STEEPEST_LEVEL_v4)
  // AVX512_BF16 is beyond the level; callers ask dnnlHasBf16 first.
  static void add(V& sum, V a, V b) { __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v)); }
#else
  static void add(V&, V, V) {}
#endif
};

// y[i][f] = start[i] + Σ_k w[k][i] · x[offsets[k] + f] for `Rows` rows i and `Vectors` vectors of f, of which the last has `tail` lanes
// with `Tail`. Where `start` is null the sum goes on from what y holds. One chain of sums for each number, whatever the blocking.
template <class E, int Rows, int Vectors, bool Tail>
void correlateBlock(std::int64_t k, const std::int64_t* offsets, const E* x, const E* w, const typename Product<E>::Sum* start,
                    typename Product<E>::Sum* y, std::int64_t yRow, int tail) {
  using P = Product<E>;
  using V = typename P::V;
  constexpr int W = V::kLanes;
  V sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Vectors; ++v) {
      if (start)
        sums[i][v] = V(start[i]);
      else
        sums[i][v] = Tail && v == Vectors - 1 ? V::load(y + i * yRow + v * W, tail) : V::load(y + i * yRow + v * W);
    }
  }
  for (std::int64_t p = 0; p < k; ++p) {
    const E* const from = x + offsets[p];
    V seen[Vectors];
    for (int v = 0; v < Vectors; ++v) seen[v] = Tail && v == Vectors - 1 ? P::load(from + v * W, tail) : P::load(from + v * W);
    for (int i = 0; i < Rows; ++i) {
      const V factor = P::all(w + i);
      for (int v = 0; v < Vectors; ++v) P::add(sums[i][v], seen[v], factor);
    }
    w += Rows;
  }
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Vectors; ++v) {
      if (Tail && v == Vectors - 1)
        store(y + i * yRow + v * W, sums[i][v], tail);
      else
        store(y + i * yRow + v * W, sums[i][v]);
    }
  }
}

// All of y for rows in blocks of `Rows`, the positions outermost: what a block of positions reads stays in the first-level cache.
// `w` is [block][depth][Rows], of which `k` steps are taken from the block's `at`-th on.
template <class E>
struct Correlate {
  using Sum = typename Product<E>::Sum;
  std::int64_t k, depth, at;
  const std::int64_t* offsets;
  const E* x;
  const E* w;
  const Sum* start;
  Sum* y;
  std::int64_t yRow, positions;

  template <int Rows, int Vectors>
  void blocks(std::int64_t count, std::int64_t f, int tail) const {
    for (std::int64_t b = 0; b < count; ++b) {
      const E* const weights = w + (b * depth + at) * Rows;
      const Sum* const first = start ? start + b * Rows : nullptr;
      Sum* const to = y + b * Rows * yRow + f;
      if (tail)
        correlateBlock<E, Rows, Vectors, true>(k, offsets, x + f, weights, first, to, yRow, tail);
      else
        correlateBlock<E, Rows, Vectors, false>(k, offsets, x + f, weights, first, to, yRow, 0);
    }
  }
  template <int Rows, int Vectors>
  void step(std::int64_t count, int vectors, std::int64_t f, int tail) const {
    if constexpr (Vectors > 0) {
      if (vectors == Vectors)
        blocks<Rows, Vectors>(count, f, tail);
      else
        step<Rows, Vectors - 1>(count, vectors, f, tail);
    }
  }
  template <int Rows>
  void run(std::int64_t count) const {
    constexpr int W = Product<E>::V::kLanes, kMost = convVectors(Rows);
    std::int64_t left = (positions + W - 1) / W;
    for (std::int64_t f = 0; left > 0;) {
      // The last two blocks share what is left evenly.
      const int vectors = static_cast<int>(left <= kMost ? left : left < 2 * kMost ? (left + 1) / 2 : kMost);
      left -= vectors;
      step<Rows, kMost>(count, vectors, f, left == 0 ? static_cast<int>(positions - f - (vectors - 1) * W) % W : 0);
      f += vectors * W;
    }
  }
};

// What a position of x is read as, where positions are paired rather than channels.
template <class E>
struct Positions {
  using X = E;
  static constexpr std::int64_t kEach = 1;
  static typename Product<E>::V all(const E* p, bool) { return Product<E>::all(p); }
};
template <>
struct Positions<Bf16Pair> {
  using X = bf16;
  static constexpr std::int64_t kEach = 2;
  static vf all(const bf16* p, bool both) {
    float pair = 0;
    std::memcpy(&pair, p, both ? 4 : 2);
    return vf(pair);
  }
};

// into[k][v] += Σ_f x[offsets[k] + f] · y[f][v] for `Rows` places k and `Vectors` vectors of y's channels. Pairs of positions lie side by
// side in y; the last has no partner where the count is odd.
template <class E, int Rows, int Vectors>
void outerBlock(std::int64_t count, const std::int64_t* offsets, const typename Positions<E>::X* x, const E* y, std::int64_t yRow,
                typename Product<E>::Sum* into, std::int64_t row) {
  using P = Product<E>;
  using V = typename P::V;
  constexpr int W = V::kLanes;
  constexpr std::int64_t kEach = Positions<E>::kEach;
  V sums[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Vectors; ++v) sums[i][v] = V(0);
  }
  const auto* from = x;
  std::int64_t left = count;
  const auto step = [&](bool both) {
    V slope[Vectors];
    for (int v = 0; v < Vectors; ++v) slope[v] = P::load(y + v * W);
    for (int i = 0; i < Rows; ++i) {
      const V factor = Positions<E>::all(from + offsets[i], both);
      for (int v = 0; v < Vectors; ++v) P::add(sums[i][v], slope[v], factor);
    }
  };
  for (; left >= kEach; left -= kEach) {
    step(true);
    from += kEach;
    y += yRow;
  }
  if (left) step(false);
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Vectors; ++v) store(into + i * row + v * W, V::load(into + i * row + v * W) + sums[i][v]);
  }
}

// into[i][k] += Σ_f x[offsets[k] + f] · y[i][f] for `Rows` channels i and `Places` places k: for groups of few channels.
template <class E, int Rows, int Places>
void dotBlock(std::int64_t count, const std::int64_t* offsets, const E* x, const E* y, std::int64_t yRow, E* into, std::int64_t row) {
  using V = VecOf<E>;
  constexpr int W = V::kLanes;
  V sums[Rows][Places];
  for (int i = 0; i < Rows; ++i) {
    for (int p = 0; p < Places; ++p) sums[i][p] = V(0);
  }
  const auto add = [&](std::int64_t f, auto load) {
    V slope[Rows];
    for (int i = 0; i < Rows; ++i) slope[i] = load(y + i * yRow + f);
    for (int p = 0; p < Places; ++p) {
      const V seen = load(x + offsets[p] + f);
      for (int i = 0; i < Rows; ++i) sums[i][p] = fma(slope[i], seen, sums[i][p]);
    }
  };
  std::int64_t f = 0;
  for (; f + W <= count; f += W) add(f, [](const E* p) { return V::load(p); });
  if (const int tail = static_cast<int>(count - f)) add(f, [tail](const E* p) { return V::load(p, tail); });
  for (int i = 0; i < Rows; ++i) {
    for (int p = 0; p < Places; ++p) into[i * row + p] += sum(sums[i][p]);
  }
}

}  // namespace steepest::STEEPEST_LEVEL
