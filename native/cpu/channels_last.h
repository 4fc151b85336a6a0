// Changes of layout between planes of channels and channels side by side; only the size of an element matters.
#pragma once

#include "cpu/conv_pack.h"
#include "cpu/transpose.h"

namespace steepest::STEEPEST_LEVEL {

constexpr std::int64_t kSquare = 16;

// to[p][c] = the channels of an image at position p of `rows` x `columns`. `lines` holds kSquare · rows · columns elements.
template <class U>
void channelsLast(const Source<U>& x, std::int64_t channels, std::int64_t rows, std::int64_t columns, U* to, U* lines) {
  const std::int64_t positions = rows * columns;
  const bool flat = x.column == 1 && (rows == 1 || x.row == columns);
  for (std::int64_t c = 0; c < channels; c += kSquare) {
    const std::int64_t count = std::min(kSquare, channels - c);
    const U* from = x.data + c * x.channel;
    std::int64_t step = x.channel;
    if (x.channel == 1 && count > 1) {
      // They lie side by side already.
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t i = 0; i < columns; ++i)
          std::memcpy(to + (r * columns + i) * channels + c, from + r * x.row + i * x.column, static_cast<std::size_t>(count) * sizeof(U));
      }
      continue;
    }
    if (!flat) {
      for (std::int64_t k = 0; k < count; ++k) {
        for (std::int64_t r = 0; r < rows; ++r)
          copyStrided(from + k * x.channel + r * x.row, x.column, columns, lines + k * positions + r * columns);
      }
      from = lines;
      step = positions;
    }
    std::int64_t p = 0;
    if (count == kSquare) {
      for (; p + kSquare <= positions; p += kSquare) transposeSquare<U, kSquare>(from + p, step, to + p * channels + c, channels);
    }
    for (; p < positions; ++p) {
      for (std::int64_t k = 0; k < count; ++k) to[p * channels + c + k] = from[k * step + p];
    }
  }
}

// to[c][p] = from[p][c]; the planes of `to` lie `plane` apart.
template <class U>
void channelsFirst(const U* from, std::int64_t channels, std::int64_t positions, U* to, std::int64_t plane) {
  for (std::int64_t c = 0; c < channels; c += kSquare) {
    const std::int64_t count = std::min(kSquare, channels - c);
    std::int64_t p = 0;
    if (count == kSquare) {
      for (; p + kSquare <= positions; p += kSquare)
        transposeSquare<U, kSquare>(from + p * channels + c, channels, to + c * plane + p, plane);
    }
    for (; p < positions; ++p) {
      for (std::int64_t k = 0; k < count; ++k) to[(c + k) * plane + p] = from[p * channels + c + k];
    }
  }
}

}  // namespace steepest::STEEPEST_LEVEL
