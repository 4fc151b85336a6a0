// What the kernels share: ranges of threads, 128-bit access, and reductions by fixed trees.
#pragma once

#include <limits>

#include "cpu/norm.h"
#include "cuda/launch.h"

namespace steepest::cuda {

constexpr int kIndexFault = 2;
constexpr int kThreads = 256;
// Blocks that fill any device some times over; loops stride over what is left.
constexpr std::int64_t kBlocks = 4096;
constexpr int kWarp = 32;

// Blocks for n pieces of work, `each` a block.
inline unsigned gridFor(std::int64_t n, std::int64_t each = kThreads) { return n > 0 ? blocksFor(n, each, kBlocks) : 0; }

// This thread among all of the grid, and how many there are.
__device__ inline std::int64_t threadOf() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ inline std::int64_t threads() { return std::int64_t{gridDim.x} * blockDim.x; }

template <class T>
using ComputeOf = typename VecOf<T>::Scalar;

template <class T>
__device__ inline ComputeOf<T> read(const T* p) {
  return VecOf<T>::load(p).v;
}
template <class T>
__device__ inline void write(T* p, ComputeOf<T> x) {
  store(p, VecOf<T>(x));
}

// Neighbours that one 128-bit access moves.
template <class T>
constexpr int kGroup = 16 / static_cast<int>(sizeof(T));

template <class T>
struct alignas(16) Group {
  T v[kGroup<T>];
};
template <class T>
__device__ inline Group<T> readGroup(const T* p) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  Group<T> g;
  memcpy(&g, &raw, sizeof g);
  return g;
}
template <class T>
__device__ inline void writeGroup(T* p, const Group<T>& g) {
  uint4 raw;
  memcpy(&raw, &g, sizeof raw);
  *reinterpret_cast<uint4*>(p) = raw;
}
inline bool aligned16(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

// Who works on a row: a warp, or a whole block of Size threads. Every one gets the result.
template <int Size, class T, class F>
__device__ inline T joinTeam(T x, T neutral, F join) {
  if constexpr (Size == kWarp)
    return warpReduce(x, join);
  else
    return blockReduce(x, neutral, join);
}
template <int Size, class T>
__device__ inline T sumTeam(T x) {
  return joinTeam<Size>(x, T(0), Sum());
}
template <int Size, class T>
__device__ inline T maxTeam(T x) {
  return joinTeam<Size>(x, -std::numeric_limits<T>::infinity(), Largest());
}

// Calls f(k, i, x[i]...) for what one lane of a team takes of a row: groups of neighbours where `wide`, else every Size-th element. k
// counts this lane's elements, so that stage[k * Size + lane] is a place of its own.
template <int Size, class F, class T, class... More>
__device__ inline void eachOf(std::int64_t n, bool wide, int lane, F f, const T* x, const More*... more) {
  int k = 0;
  if (wide) {
    constexpr int G = kGroup<T>;
    for (std::int64_t i = std::int64_t{lane} * G; i < n; i += std::int64_t{Size} * G, k += G) {
      const auto each = [&](const auto&... g) {
#pragma unroll
        for (int j = 0; j < G; ++j) f(k + j, i + j, read(g.v + j)...);
      };
      each(readGroup(x + i), readGroup(more + i)...);
    }
  } else {
    for (std::int64_t i = lane; i < n; i += Size, ++k) f(k, i, read(x + i), read(more + i)...);
  }
}
// How many that are.
template <class T, int Size>
__device__ inline int countOf(std::int64_t n, bool wide, int lane) {
  const std::int64_t group = wide ? kGroup<T> : 1, groups = n / group;
  return static_cast<int>((groups + Size - 1 - lane) / Size * group);
}
// y[i] = f(k, i, from[i]...), in the same way.
template <int Size, class T, class F, class... From>
__device__ inline void fillOf(T* y, std::int64_t n, bool wide, int lane, F f, const From*... from) {
  int k = 0;
  if (wide) {
    constexpr int G = kGroup<T>;
    for (std::int64_t i = std::int64_t{lane} * G; i < n; i += std::int64_t{Size} * G, k += G) {
      const auto each = [&](const auto&... g) {
        Group<T> to;
#pragma unroll
        for (int j = 0; j < G; ++j) write(to.v + j, f(k + j, i + j, read(g.v + j)...));
        writeGroup(y + i, to);
      };
      each(readGroup(from + i)...);
    }
  } else {
    for (std::int64_t i = lane; i < n; i += Size, ++k) write(y + i, f(k, i, read(from + i)...));
  }
}

// How rows are given to teams, and how much shared memory holds what each lane keeps of its row.
struct Rows {
  std::int64_t count, length;
  bool warps;  // a warp takes a row, eight to a block; else a block
  bool wide;   // groups of 16 bytes
  int stage;   // numbers that a team keeps; 0 where a row is too long for that
  unsigned grid;
  std::size_t shared;

  // Elements of `bytes` bytes, of which `kept` numbers of `unit` bytes each are kept.
  Rows(std::int64_t rows, std::int64_t n, std::size_t bytes, bool aligned, std::size_t unit, int kept = 1)
      : count(rows), length(n), warps(n <= 1024), wide(aligned && n * static_cast<std::int64_t>(bytes) % 16 == 0) {
    const std::int64_t size = warps ? kWarp : kThreads, teams = kThreads / size, group = wide ? 16 / static_cast<std::int64_t>(bytes) : 1;
    const std::int64_t numbers = ceilDiv(n, size * group) * size * group;
    const auto total = static_cast<std::size_t>(teams * numbers * kept) * unit;
    stage = total <= kSharedByDefault - 1024 ? static_cast<int>(numbers) : 0;
    shared = stage ? total : 0;
    grid = gridFor(count, teams);
  }
};

// Calls f(a constant of the team's size).
template <class F>
void byTeam(const Rows& rows, F&& f) {
  if (rows.warps)
    f(std::integral_constant<int, kWarp>{});
  else
    f(std::integral_constant<int, kThreads>{});
}

}  // namespace steepest::cuda
