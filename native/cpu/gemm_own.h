// steepest's own products: matrix-vector products and products too small to pay for a library call.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {

inline float scalarOf(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }
inline float scalarOf(float x) { return x; }
inline double scalarOf(double x) { return x; }

// C (+)= A·B for one block that lies in registers: `Rows` rows and `Vectors` vectors of columns. With `Tail`, the last of them has
// only `tail` lanes.
template <int Rows, int Vectors, bool Tail, class In, class Wide, class Acc>
inline void ownBlock(std::int64_t k, const In* a, std::int64_t aRow, std::int64_t aCol, const Wide* b, std::int64_t bRow, Acc* c,
                     std::int64_t cRow, int tail, bool accumulate) {
  using V = VecOf<Acc>;
  constexpr int W = V::kLanes;
  const auto load = [&](const auto* from, int v) { return Tail && v == Vectors - 1 ? V::load(from + v * W, tail) : V::load(from + v * W); };
  V sum[Rows][Vectors];
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Vectors; ++v) sum[i][v] = accumulate ? load(c + i * cRow, v) : V(Acc(0));
  }
  for (std::int64_t p = 0; p < k; ++p) {
    V row[Vectors];
    for (int v = 0; v < Vectors; ++v) row[v] = load(b + p * bRow, v);
    for (int i = 0; i < Rows; ++i) {
      const V x(scalarOf(a[i * aRow + p * aCol]));
      for (int v = 0; v < Vectors; ++v) sum[i][v] = fma(x, row[v], sum[i][v]);
    }
  }
  for (int i = 0; i < Rows; ++i) {
    for (int v = 0; v < Vectors; ++v) {
      if (Tail && v == Vectors - 1)
        store(c + i * cRow + v * W, sum[i][v], tail);
      else
        store(c + i * cRow + v * W, sum[i][v]);
    }
  }
}

// As many accumulators as the registers of the level hold beside the operands.
#if defined(STEEPEST_LEVEL_v4)
constexpr int kOwnRows = 8, kOwnVectors = 2;
#elif defined(STEEPEST_LEVEL_v3)
constexpr int kOwnRows = 4, kOwnVectors = 1;
#else
constexpr int kOwnRows = 2, kOwnVectors = 1;
#endif
// Rows of B in one panel: with 32 float32 or 16 float64 columns it takes 32 KB, most of a first-level cache.
constexpr std::int64_t kOwnDepth = 256;

// Bytes of the panel that ownProduct copies columns of B to.
template <class Acc>
constexpr std::size_t ownScratch() {
  return kOwnDepth * kOwnVectors * VecOf<Acc>::kLanes * sizeof(Acc);
}

// All rows of C for one panel of `n` columns.
template <class In, class Wide, class Acc>
void ownPanel(std::int64_t m, std::int64_t n, std::int64_t k, const In* a, std::int64_t aRow, std::int64_t aCol, const Wide* b,
              std::int64_t bRow, Acc* c, std::int64_t cRow, bool accumulate) {
  constexpr int W = VecOf<Acc>::kLanes;
  const auto column = [&]<int Vectors, bool Tail>() {
    const int tail = static_cast<int>(n - (Vectors - 1) * W);
    std::int64_t i = 0;
    const auto rows = [&]<int Rows>() {
      for (; i + Rows <= m; i += Rows) {
        ownBlock<Rows, Vectors, Tail>(k, a + i * aRow, aRow, aCol, b, bRow, c + i * cRow, cRow, tail, accumulate);
      }
    };
    rows.template operator()<kOwnRows>();
    if constexpr (kOwnRows > 4) rows.template operator()<4>();
    if constexpr (kOwnRows > 2) rows.template operator()<2>();
    rows.template operator()<1>();
  };
  if constexpr (kOwnVectors == 2) {
    if (n == 2 * W) return column.template operator()<2, false>();
    if (n > W) return column.template operator()<2, true>();
  }
  if (n == W)
    column.template operator()<1, false>();
  else
    column.template operator()<1, true>();
}

// C (+)= A·B with any strides of A and B. Every element is one chain of fma over k, whatever the level and the blocking.
// Panels of B are copied to `panel` where they are read often enough or have no contiguous rows.
template <class In, class Acc>
void ownProduct(std::int64_t m, std::int64_t n, std::int64_t k, const In* a, std::int64_t aRow, std::int64_t aCol, const In* b,
                std::int64_t bRow, std::int64_t bCol, Acc* c, std::int64_t cRow, bool accumulate, Acc* panel) {
  using V = VecOf<Acc>;
  constexpr std::int64_t W = V::kLanes, kWide = kOwnVectors * W;
  const bool copies = bCol != 1 || (m > 2 * kOwnRows && k * bRow * static_cast<std::int64_t>(sizeof(In)) > 32 * 1024);
  std::int64_t p = 0;
  do {
    const std::int64_t depth = std::min(kOwnDepth, k - p);
    const bool adds = accumulate || p > 0;
    for (std::int64_t j = 0; j < n; j += kWide) {
      const std::int64_t width = std::min(kWide, n - j);
      const In* from = b + p * bRow + j * bCol;
      const In* left = a + p * aCol;
      if (!copies) {
        ownPanel(m, width, depth, left, aRow, aCol, from, bRow, c + j, cRow, adds);
        continue;
      }
      if (bCol == 1) {
        for (std::int64_t q = 0; q < depth; ++q) {
          for (std::int64_t v = 0; v < width; v += W) {
            const int lanes = static_cast<int>(std::min(W, width - v));
            store(panel + q * kWide + v, lanes == W ? V::load(from + q * bRow + v) : V::load(from + q * bRow + v, lanes));
          }
        }
      } else {
        for (std::int64_t v = 0; v < width; ++v) {
          for (std::int64_t q = 0; q < depth; ++q) panel[q * kWide + v] = scalarOf(from[q * bRow + v * bCol]);
        }
      }
      ownPanel(m, width, depth, left, aRow, aCol, panel, kWide, c + j, cRow, adds);
    }
    p += depth;
  } while (p < k);
}

// c[0..n) (+)= a·B, a row times a matrix whose rows are contiguous: eight rows at a time, so that memory is read in long runs.
template <class In, class Acc>
void ownRow(std::int64_t n, std::int64_t k, const In* a, std::int64_t aCol, const In* b, std::int64_t bRow, Acc* c, bool accumulate) {
  using V = VecOf<Acc>;
  constexpr int W = V::kLanes, kDepth = 8;
  if (!accumulate) std::fill(c, c + n, Acc(0));
  const auto deep = [&]<int Depth>(std::int64_t p) {
    V x[Depth];
    for (int d = 0; d < Depth; ++d) x[d] = V(scalarOf(a[(p + d) * aCol]));
    const In* rows = b + p * bRow;
    std::int64_t j = 0;
    for (; j + W <= n; j += W) {
      V sum = V::load(c + j);
      for (int d = 0; d < Depth; ++d) sum = fma(x[d], V::load(rows + d * bRow + j), sum);
      store(c + j, sum);
    }
    if (const int tail = static_cast<int>(n - j)) {
      V sum = V::load(c + j, tail);
      for (int d = 0; d < Depth; ++d) sum = fma(x[d], V::load(rows + d * bRow + j, tail), sum);
      store(c + j, sum, tail);
    }
  };
  std::int64_t p = 0;
  for (; p + kDepth <= k; p += kDepth) deep.template operator()<kDepth>(p);
  for (; p < k; ++p) deep.template operator()<1>(p);
}

// c[0..n) (+)= a·B, the columns of B and a contiguous: dot products with two chains of lanes each, four columns at a time.
template <class In, class Acc>
void ownDots(std::int64_t n, std::int64_t k, const In* a, const In* b, std::int64_t bCol, Acc* c, bool accumulate) {
  using V = VecOf<Acc>;
  constexpr int W = V::kLanes;
  const auto columns = [&]<int Count>(std::int64_t j) {
    V even[Count], odd[Count];
    for (int i = 0; i < Count; ++i) even[i] = odd[i] = V(Acc(0));
    const In* from = b + j * bCol;
    std::int64_t p = 0;
    for (; p + 2 * W <= k; p += 2 * W) {
      const V x = V::load(a + p), y = V::load(a + p + W);
      for (int i = 0; i < Count; ++i) {
        even[i] = fma(x, V::load(from + i * bCol + p), even[i]);
        odd[i] = fma(y, V::load(from + i * bCol + p + W), odd[i]);
      }
    }
    for (; p < k; p += W) {
      const int tail = static_cast<int>(std::min<std::int64_t>(W, k - p));
      const V x = V::load(a + p, tail);
      for (int i = 0; i < Count; ++i) even[i] = fma(x, V::load(from + i * bCol + p, tail), even[i]);
    }
    for (int i = 0; i < Count; ++i) {
      const Acc dot = sum(even[i] + odd[i]);
      c[j + i] = accumulate ? c[j + i] + dot : dot;
    }
  };
  std::int64_t j = 0;
  for (; j + 4 <= n; j += 4) columns.template operator()<4>(j);
  for (; j < n; ++j) columns.template operator()<1>(j);
}

}  // namespace steepest::STEEPEST_LEVEL
