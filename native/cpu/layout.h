// Geometry of strided operands that the reduction, indexing and assembling kernels share.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>

#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL::layout {

inline void check(bool holds, const char* op, const char* rule) {
  if (!holds) throw Error("PROGRAM", std::string(op) + ": " + rule);
}

// One loop: its length, and the step that each of N operands makes in it.
template <int N>
struct Loop {
  std::int64_t n;
  std::array<std::int64_t, N> step;
};

// Nested loops, outermost first. Loops of length one are left out; neighbours that all operands walk as one are merged.
template <int N>
struct Loops {
  Loop<N> at[kMaxRank];
  int rank = 0;

  void add(std::int64_t n, const std::array<std::int64_t, N>& step) {
    if (n == 1) return;
    if (rank > 0) {
      Loop<N>& outer = at[rank - 1];
      bool merges = true;
      for (int i = 0; i < N; ++i) merges = merges && outer.step[i] == step[i] * n;
      if (merges) {
        outer = {outer.n * n, step};
        return;
      }
    }
    at[rank++] = {n, step};
  }
  std::int64_t size() const {
    std::int64_t total = 1;
    for (int i = 0; i < rank; ++i) total *= at[i].n;
    return total;
  }
};

// Walks all loops, carrying the offset of each operand; can begin anywhere.
template <int N>
class Walk {
 public:
  Walk(const Loops<N>& loops, std::int64_t start) : loops_(loops) {
    for (int i = loops.rank - 1; i >= 0; --i) {
      index_[i] = start % loops.at[i].n;
      start /= loops.at[i].n;
      for (int k = 0; k < N; ++k) offset_[k] += index_[i] * loops.at[i].step[k];
    }
  }
  std::int64_t offset(int operand = 0) const { return offset_[operand]; }
  // How far the innermost loop still goes.
  std::int64_t run() const { return loops_.rank ? loops_.at[loops_.rank - 1].n - index_[loops_.rank - 1] : 1; }
  // Steps by at most run() elements.
  void advance(std::int64_t by = 1) {
    for (int i = loops_.rank - 1; i >= 0; --i) {
      const Loop<N>& loop = loops_.at[i];
      index_[i] += by;
      for (int k = 0; k < N; ++k) offset_[k] += by * loop.step[k];
      if (index_[i] < loop.n) return;
      index_[i] = 0;
      for (int k = 0; k < N; ++k) offset_[k] -= loop.n * loop.step[k];
      by = 1;
    }
  }

 private:
  const Loops<N>& loops_;
  std::int64_t index_[kMaxRank] = {};
  std::array<std::int64_t, N> offset_{};
};

// Orders strides by how near the elements lie; a stride of 0 costs nothing wherever it is, so it goes outermost.
inline std::int64_t distance(std::int64_t stride) { return stride == 0 ? std::numeric_limits<std::int64_t>::max() : std::llabs(stride); }

inline std::int64_t ceilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

inline bool sameShape(const View& a, const View& b) { return a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape); }

// Product of the lengths of the axes [from, to).
inline std::int64_t span(const View& v, int from, int to) {
  std::int64_t n = 1;
  for (int i = from; i < to; ++i) n *= v.shape[i];
  return n;
}

}  // namespace steepest::STEEPEST_LEVEL::layout
