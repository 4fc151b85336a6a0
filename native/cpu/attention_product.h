// Small products on packed operands that lie in the caches: C[m][n] (+)= Σ_k A(m, k)·B[k][n], n a whole number of vectors.
// Every element is one chain of fma over k, so its bits do not depend on how the loops are blocked.
#pragma once

#include <cstdint>

#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {

#if defined(STEEPEST_LEVEL_v4)
constexpr int kBlockRows = 6, kBlockVectors = 4;
#elif defined(STEEPEST_LEVEL_v3)
constexpr int kBlockRows = 6, kBlockVectors = 1;
#else
constexpr int kBlockRows = 3, kBlockVectors = 1;
#endif

// A has any strides, so a transpose costs nothing; rows of B and C lie side by side.
template <class S>
struct Operands {
  const S* a;
  std::int64_t aRow, aCol;
  const S* b;
  std::int64_t bRow;
  S* c;
  std::int64_t cRow;
};

template <class V, int R, int N, class S>
inline void productBlock(const Operands<S>& o, std::int64_t begin, std::int64_t end, bool accumulate) {
  constexpr int L = V::kLanes;
  V acc[R][N];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) acc[r][j] = accumulate ? V::load(o.c + r * o.cRow + j * L) : V(S(0));
  const S* a = o.a + begin * o.aCol;
  const S* b = o.b + begin * o.bRow;
  for (std::int64_t k = begin; k < end; ++k, a += o.aCol, b += o.bRow) {
    V row[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) row[j] = V::load(b + j * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V x(a[r * o.aRow]);
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) acc[r][j] = fma(x, row[j], acc[r][j]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) store(o.c + r * o.cRow + j * L, acc[r][j]);
}

template <class V, int N, class S>
inline void productRows(int rows, const Operands<S>& o, std::int64_t begin, std::int64_t end, bool accumulate) {
  static_assert(kBlockRows <= 6);
  switch (rows) {
    case 1:
      return productBlock<V, 1, N>(o, begin, end, accumulate);
    case 2:
      return productBlock<V, 2, N>(o, begin, end, accumulate);
    case 3:
      return productBlock<V, 3, N>(o, begin, end, accumulate);
    case 4:
      return productBlock<V, 4, N>(o, begin, end, accumulate);
    case 5:
      return productBlock<V, 5, N>(o, begin, end, accumulate);
    default:
      return productBlock<V, 6, N>(o, begin, end, accumulate);
  }
}

// Up to kBlockRows rows by `vectors` vectors, k in [begin, end).
template <class V, class S>
inline void product(int rows, std::int64_t vectors, Operands<S> o, std::int64_t begin, std::int64_t end, bool accumulate) {
  constexpr int L = V::kLanes;
  for (; vectors >= kBlockVectors; vectors -= kBlockVectors, o.b += kBlockVectors * L, o.c += kBlockVectors * L) {
    productRows<V, kBlockVectors>(rows, o, begin, end, accumulate);
  }
  if constexpr (kBlockVectors == 4) {
    switch (vectors) {
      case 1:
        return productRows<V, 1>(rows, o, begin, end, accumulate);
      case 2:
        return productRows<V, 2>(rows, o, begin, end, accumulate);
      case 3:
        return productRows<V, 3>(rows, o, begin, end, accumulate);
      default:
        return;
    }
  }
}

}  // namespace steepest::STEEPEST_LEVEL
