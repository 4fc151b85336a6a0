// Stable radix sort of rows of unsigned keys with their places beside them. Eight bits at a time: every warp counts the digits of its
// piece, the counts of a row become places, and every warp moves its piece. Nothing of it hangs on which block comes first.
#pragma once

#include "cuda/device.cuh"

namespace steepest::cuda {

constexpr int kSortPiece = 512;  // keys that one warp moves
constexpr int kDigits = 256;

// The first of n sorted keys that is not below `key`.
template <class Key>
__device__ inline std::int64_t lowerBound(const Key* keys, std::int64_t n, Key key) {
  std::int64_t low = 0, high = n;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    if (keys[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

template <class Key>
__device__ inline int digitOf(Key key, int shift) {
  return static_cast<int>(key >> shift) & (kDigits - 1);
}

// counts[row][digit][piece]
template <class Key>
__global__ void __launch_bounds__(kWarp)
    countDigits(const Key* keys, std::int32_t* counts, std::int64_t rows, std::int64_t n, std::int64_t pieces, int shift) {
  __shared__ std::int32_t own[kDigits];
  for (std::int64_t block = blockIdx.x; block < rows * pieces; block += gridDim.x) {
    const std::int64_t row = block / pieces, piece = block % pieces, begin = piece * kSortPiece;
    const std::int64_t end = begin + kSortPiece < n ? begin + kSortPiece : n;
    for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kWarp) own[d] = 0;
    __syncwarp();
    for (std::int64_t i = begin + threadIdx.x; i < end; i += kWarp) atomicAdd(own + digitOf(keys[row * n + i], shift), 1);
    __syncwarp();
    for (int d = static_cast<int>(threadIdx.x); d < kDigits; d += kWarp) counts[(row * kDigits + d) * pieces + piece] = own[d];
    __syncwarp();
  }
}

// Every count becomes the sum of those before it in its row. A block takes a row.
template <class Count>
__global__ void __launch_bounds__(kThreads) startDigits(Count* counts, std::int64_t rows, std::int64_t n) {
  __shared__ Count sums[kThreads];
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    Count* own = counts + row * n;
    const std::int64_t each = (n + kThreads - 1) / kThreads, begin = each * threadIdx.x, end = begin + each < n ? begin + each : n;
    Count total = 0;
    for (std::int64_t i = begin; i < end; ++i) total += own[i];
    sums[threadIdx.x] = total;
    __syncthreads();
    Count before = 0;
    for (unsigned k = 0; k < threadIdx.x; ++k) before += sums[k];
    for (std::int64_t i = begin; i < end; ++i) {
      const Count count = own[i];
      own[i] = before;
      before += count;
    }
    __syncthreads();
  }
}

template <class Key>
__global__ void __launch_bounds__(kWarp)
    placeDigits(const Key* keys, const std::int32_t* order, Key* toKeys, std::int32_t* toOrder, const std::int32_t* starts,
                std::int64_t rows, std::int64_t n, std::int64_t pieces, int shift) {
  __shared__ std::int32_t next[kDigits];
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t block = blockIdx.x; block < rows * pieces; block += gridDim.x) {
    const std::int64_t row = block / pieces, piece = block % pieces, begin = piece * kSortPiece, base = row * n;
    for (int d = lane; d < kDigits; d += kWarp) next[d] = starts[(row * kDigits + d) * pieces + piece];
    __syncwarp();
    for (std::int64_t at = begin; at < begin + kSortPiece && at < n; at += kWarp) {
      const std::int64_t i = at + lane;
      const bool there = i < n;
      const Key key = there ? keys[base + i] : Key(0);
      const int digit = digitOf(key, shift);
      // Lanes with the same digit.
      unsigned same = __ballot_sync(kAllLanes, there);
      for (int bit = 0; bit < 8; ++bit) {
        const unsigned set = __ballot_sync(kAllLanes, digit >> bit & 1);
        same &= digit >> bit & 1 ? set : ~set;
      }
      const int rank = __popc(same & ((1u << lane) - 1u));
      const std::int64_t place = base + next[digit] + rank;
      __syncwarp();
      if (there) {
        if (rank == 0) next[digit] += __popc(same);
        toKeys[place] = key;
        toOrder[place] = order[base + i];
      }
      __syncwarp();
    }
  }
}

// Keys and places of rows, in the workspace: filled by the caller, then sorted.
template <class Key>
struct Sorting {
  std::int64_t rows, n, pieces;
  Key *keys, *otherKeys;
  std::int32_t *order, *otherOrder, *counts;

  static std::int64_t piecesOf(std::int64_t n) { return ceilDiv<std::int64_t>(n, kSortPiece); }
  static std::size_t bytes(std::int64_t rows, std::int64_t n) {
    return static_cast<std::size_t>(rows) * (static_cast<std::size_t>(n) * 2 * (sizeof(Key) + sizeof(std::int32_t)) +
                                             static_cast<std::size_t>(kDigits * piecesOf(n)) * sizeof(std::int32_t));
  }
  Sorting(std::byte* at, std::int64_t rows, std::int64_t n)
      : rows(rows),
        n(n),
        pieces(piecesOf(n)),
        keys(reinterpret_cast<Key*>(at)),
        otherKeys(keys + rows * n),
        order(reinterpret_cast<std::int32_t*>(otherKeys + rows * n)),
        otherOrder(order + rows * n),
        counts(otherOrder + rows * n) {}

  // By the lowest `passes` digits of eight bits.
  void run(const Call& call, int passes) {
    if (rows * n == 0) return;
    const unsigned grid = blocksFor(rows * pieces, 1);
    for (int pass = 0; pass < passes; ++pass) {
      STEEPEST_LAUNCH(countDigits<Key>, grid, kWarp, 0, call, keys, counts, rows, n, pieces, 8 * pass);
      STEEPEST_LAUNCH(startDigits<std::int32_t>, blocksFor(rows, 1), kThreads, 0, call, counts, rows, kDigits * pieces);
      STEEPEST_LAUNCH(placeDigits<Key>, grid, kWarp, 0, call, keys, order, otherKeys, otherOrder, counts, rows, n, pieces, 8 * pass);
      std::swap(keys, otherKeys);
      std::swap(order, otherOrder);
    }
  }
};

}  // namespace steepest::cuda
