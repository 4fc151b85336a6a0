// Stable order of one row of numbers: radix sort on unsigned keys with the index beside them.
#pragma once

#include <cstdint>

#include "cpu/sort_keys.h"

namespace steepest::STEEPEST_LEVEL {

// Where row `row` of a view starts, and the step between its elements; rows run over all axes but the last.
inline std::int64_t rowStart(const View& v, std::int64_t row) {
  std::int64_t offset = 0;
  for (int axis = v.rank - 2; axis >= 0; --axis) {
    offset += row % v.shape[axis] * v.strides[axis];
    row /= v.shape[axis];
  }
  return offset;
}

// Sorts rows of n numbers of type T. A row longer than a piece is sorted by all threads together: pieces are cut by n only.
template <class T>
class RadixSorter {
 public:
  using Key = typename SortKey<T>::Key;
  static constexpr std::int64_t kPiece = 1 << 16;
  static constexpr std::int64_t kInsertion = 48;

  explicit RadixSorter(std::int64_t n) : n_(n), pieces_((n + kPiece - 1) / kPiece) {}

  bool together() const { return pieces_ > 1; }
  std::size_t bytes() const {
    return align(static_cast<std::size_t>(n_) * sizeof(Key)) * 2 + align(static_cast<std::size_t>(n_) * 4) * 2 +
           (together() ? align(static_cast<std::size_t>(pieces_) * 256 * 4) : 0);
  }

  // One thread; `order` gets n indices.
  void sort(const T* x, std::int64_t step, bool descending, std::byte* scratch, std::int32_t* order) const {
    if (n_ <= kInsertion) return insertion(x, step, descending, order);
    Buffers b = cut(scratch);
    std::uint32_t counts[SortKey<T>::passes][256] = {};
    for (std::int64_t i = 0; i < n_; ++i) {
      const Key key = SortKey<T>::of(x[i * step], descending);
      b.key[0][i] = key;
      b.index[0][i] = static_cast<std::int32_t>(i);
      for (int pass = 0; pass < SortKey<T>::passes; ++pass) ++counts[pass][key >> 8 * pass & 255];
    }
    int from = 0;
    for (int pass = 0; pass < SortKey<T>::passes; ++pass) {
      std::uint32_t* count = counts[pass];
      if (count[b.key[from][0] >> 8 * pass & 255] == n_) continue;
      std::uint32_t at = 0;
      for (int digit = 0; digit < 256; ++digit) {
        const std::uint32_t here = count[digit];
        count[digit] = at;
        at += here;
      }
      move(b, from, 8 * pass, 0, n_, count);
      from ^= 1;
    }
    for (std::int64_t i = 0; i < n_; ++i) order[i] = b.index[from][i];
  }

  // All threads.
  void sortTogether(const T* x, std::int64_t step, bool descending, std::byte* scratch, Pool& pool, std::int32_t* order) const {
    Buffers b = cut(scratch);
    const auto each = [&](auto&& body) {
      pool.run(pieces_, [&](std::int64_t piece, int) { body(piece, piece * kPiece, piece == pieces_ - 1 ? n_ : (piece + 1) * kPiece); });
    };
    each([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        b.key[0][i] = SortKey<T>::of(x[i * step], descending);
        b.index[0][i] = static_cast<std::int32_t>(i);
      }
    });
    int from = 0;
    for (int pass = 0; pass < SortKey<T>::passes; ++pass) {
      const int shift = 8 * pass;
      each([&](std::int64_t piece, std::int64_t begin, std::int64_t end) {
        std::uint32_t* count = b.count + piece * 256;
        for (int digit = 0; digit < 256; ++digit) count[digit] = 0;
        for (std::int64_t i = begin; i < end; ++i) ++count[b.key[from][i] >> shift & 255];
      });
      std::uint32_t at = 0;
      bool one = false;
      for (int digit = 0; digit < 256; ++digit) {
        const std::uint32_t before = at;
        for (std::int64_t piece = 0; piece < pieces_; ++piece) {
          std::uint32_t& count = b.count[piece * 256 + digit];
          const std::uint32_t here = count;
          count = at;
          at += here;
        }
        one = one || at - before == n_;
      }
      if (one) continue;
      each([&](std::int64_t piece, std::int64_t begin, std::int64_t end) { move(b, from, shift, begin, end, b.count + piece * 256); });
      from ^= 1;
    }
    each([&](std::int64_t, std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) order[i] = b.index[from][i];
    });
  }

 private:
  struct Buffers {
    Key* key[2];
    std::int32_t* index[2];
    std::uint32_t* count;
  };

  static std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  Buffers cut(std::byte* scratch) const {
    const std::size_t keys = align(static_cast<std::size_t>(n_) * sizeof(Key)), indices = align(static_cast<std::size_t>(n_) * 4);
    Buffers b;
    b.key[0] = reinterpret_cast<Key*>(scratch);
    b.key[1] = reinterpret_cast<Key*>(scratch + keys);
    b.index[0] = reinterpret_cast<std::int32_t*>(scratch + 2 * keys);
    b.index[1] = reinterpret_cast<std::int32_t*>(scratch + 2 * keys + indices);
    b.count = reinterpret_cast<std::uint32_t*>(scratch + 2 * keys + 2 * indices);
    return b;
  }

  static void move(const Buffers& b, int from, int shift, std::int64_t begin, std::int64_t end, std::uint32_t* at) {
    const Key* key = b.key[from];
    const std::int32_t* index = b.index[from];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint32_t to = at[key[i] >> shift & 255]++;
      b.key[from ^ 1][to] = key[i];
      b.index[from ^ 1][to] = index[i];
    }
  }

  void insertion(const T* x, std::int64_t step, bool descending, std::int32_t* order) const {
    Ranked<Key> sorted[kInsertion];
    for (std::int64_t i = 0; i < n_; ++i) {
      const Ranked<Key> mine = ranked(SortKey<T>::of(x[i * step], descending), i);
      std::int64_t at = i;
      for (; at > 0 && sorted[at - 1] > mine; --at) sorted[at] = sorted[at - 1];
      sorted[at] = mine;
    }
    for (std::int64_t i = 0; i < n_; ++i) order[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(sorted[i]));
  }

  std::int64_t n_, pieces_;
};

}  // namespace steepest::STEEPEST_LEVEL
