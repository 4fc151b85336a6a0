// Copies what a correlation reads into planes (conv_shape.h), padded and with the step taken out, in the type that is multiplied.
#pragma once

#include <cstring>
#include <type_traits>

#include "cpu/conv_shape.h"
#include "cpu/gemm_own.h"
#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {

// Two bfloat16 numbers that are multiplied and summed by one instruction; the first is in the low half.
struct Bf16Pair {
  std::uint32_t bits;
};

// The channel planes of one image: where the first begins, and the steps in elements.
template <class T>
struct Source {
  const T* data;
  std::int64_t channel, row, column;
};

// The same bits; rows are short, so that a call would show.
template <class T>
inline void copyRow(const T* from, std::int64_t n, T* to) {
  constexpr std::int64_t kPiece = 32 / sizeof(T);
  if (n < kPiece || n > 64 * kPiece) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
    return;
  }
  const auto piece = [&](std::int64_t i) { std::memcpy(to + i, from + i, 32); };
  for (std::int64_t i = 0; i + kPiece < n; i += kPiece) piece(i);
  piece(n - kPiece);  // over some of the last once more
}

// to[0..n) = from[0], from[step], … in the type of `to`.
template <class T, class E>
inline void copyStrided(const T* from, std::int64_t step, std::int64_t n, E* to) {
  if constexpr (std::is_same_v<T, E>) {
    if (step == 1) return copyRow(from, n, to);
    if (step == 2) {  // by shuffles
      for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * 2];
      return;
    }
    for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * step];
  } else {
    using V = VecOf<E>;
    std::int64_t i = 0;
    if (step == 1) {
      for (; i + V::kLanes <= n; i += V::kLanes) store(to + i, V::load(from + i));
    }
    for (; i < n; ++i) to[i] = scalarOf(from[i * step]);
  }
}

// Pairs of two channels; `other` is null where the last channel has no partner.
inline void copyPairs(const bf16* from, const bf16* other, std::int64_t step, std::int64_t n, Bf16Pair* to) {
  if (!other) {
    for (std::int64_t i = 0; i < n; ++i) to[i].bits = from[i * step].bits;
  } else if (step == 1) {
    for (std::int64_t i = 0; i < n; ++i) to[i].bits = from[i].bits | static_cast<std::uint32_t>(other[i].bits) << 16;
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i].bits = from[i * step].bits | static_cast<std::uint32_t>(other[i * step].bits) << 16;
  }
}

// The part of [0, n) whose place start + i·step lies in [0, length).
struct Inside {
  std::int64_t begin, end;
  Inside(std::int64_t start, std::int64_t step, std::int64_t n, std::int64_t length) {
    const auto places = [&](std::int64_t distance) { return distance <= 0 ? 0 : (distance + step - 1) / step; };
    begin = std::min(n, places(-start));
    end = std::max(begin, std::min(n, places(length - start)));
  }
};

// Packs the first `rows` rows of the planes of a band that begins at position [first[0], first[1]], for channels [0, channels), of which
// an E holds one or two; `around` stands outside of the input. Planes are ordered [channel][plane of h][plane of w][h.length][w.length].
template <class T, class E>
void packPlanes(const Source<T>& x, std::int64_t channels, const std::int64_t (&lengths)[2], const ConvAxis& h, const ConvAxis& w,
                const std::int64_t (&first)[2], std::int64_t rows, E* to, E around = E{}) {
  constexpr bool kPairs = std::is_same_v<E, Bf16Pair>;
  constexpr std::int64_t kEach = kPairs ? 2 : 1;
  for (std::int64_t c = 0; c < channels; c += kEach) {
    const T* const image = x.data + c * x.channel;
    for (const std::int64_t top : h.starts) {
      const Inside seen(top + first[0] * h.step, h.step, rows, lengths[0]);
      for (const std::int64_t start : w.starts) {
        const std::int64_t left = start + first[1] * w.step;
        const Inside within(left, w.step, w.length, lengths[1]);
        const std::int64_t column = left + within.begin * w.step, count = within.end - within.begin;
        for (std::int64_t r = 0; r < rows; ++r) {
          E* const row = to + r * w.length;
          if (r < seen.begin || r >= seen.end) {
            std::fill_n(row, w.length, around);
            continue;
          }
          std::fill_n(row, within.begin, around);
          std::fill_n(row + within.end, w.length - within.end, around);
          if (count == 0) continue;
          const T* const from = image + (top + (first[0] + r) * h.step) * x.row + column * x.column;
          if constexpr (kPairs)
            copyPairs(from, c + 1 < channels ? from + x.channel : nullptr, w.step * x.column, count, row + within.begin);
          else
            copyStrided(from, w.step * x.column, count, row + within.begin);
        }
        to += h.length * w.length;
      }
    }
  }
}

// Where tap (i of h, j of w) of one channel begins in its planes.
inline std::int64_t offsetOf(const ConvAxis& h, const ConvAxis& w, const ConvAxis::Tap& i, const ConvAxis::Tap& j) {
  return (i.plane * w.planes() + j.plane) * h.length * w.length + i.shift * w.length + j.shift;
}

}  // namespace steepest::STEEPEST_LEVEL
