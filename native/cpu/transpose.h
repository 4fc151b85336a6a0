// Transposes of blocks in registers.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {

template <class U, int L>
struct Lanes {
  typedef U Vector __attribute__((vector_size(L * sizeof(U))));

  // Of two rows, the lanes that stay or come from the other when squares of `Step` change sides.
  template <int Step, int... J>
  static void exchange(Vector& a, Vector& b, std::integer_sequence<int, J...>) {
    const Vector low = __builtin_shufflevector(a, b, (J & Step ? L + J - Step : J)...);
    b = __builtin_shufflevector(a, b, (J & Step ? L + J : J + Step)...);
    a = low;
  }
  template <int Step>
  static void stage(Vector (&rows)[L]) {
    for (int i = 0; i < L; ++i) {
      if (!(i & Step)) exchange<Step>(rows[i], rows[i + Step], std::make_integer_sequence<int, L>{});
    }
    if constexpr (Step > 1) stage<Step / 2>(rows);
  }
};

// to[j][i] = from[i][j] for a square of L x L numbers; rows lie fromRow and toRow apart.
template <class U, int L>
void transposeSquare(const U* from, std::int64_t fromRow, U* to, std::int64_t toRow) {
  using Vector = typename Lanes<U, L>::Vector;
  Vector rows[L];
  for (int i = 0; i < L; ++i) std::memcpy(&rows[i], from + i * fromRow, sizeof(Vector));
  Lanes<U, L>::template stage<L / 2>(rows);
  for (int i = 0; i < L; ++i) std::memcpy(to + i * toRow, &rows[i], sizeof(Vector));
}

}  // namespace steepest::STEEPEST_LEVEL
