// What factorizations share: float64 copies of matrices in the workspace, column by column.
#pragma once

#include "cuda/reals.cuh"

namespace steepest::cuda {

// Cuts the workspace into parts: the same calls first with no memory, to count, then with it.
class Carve {
 public:
  explicit Carve(std::byte* base = nullptr) : base_(base) {}
  template <class T>
  T* take(std::int64_t n) {
    T* part = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    return part;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

__device__ inline bool isFinite(double x) { return x - x == 0; }

// Threads of a block that works on a column of m numbers: each has four of them, where that many are there.
inline unsigned threadsFor(std::int64_t m) {
  return static_cast<unsigned>(std::clamp<std::int64_t>(ceilDiv<std::int64_t>(m, 4 * kWarp) * kWarp, kWarp, kThreads));
}

static __global__ void __launch_bounds__(kThreads) setInts(int* to, std::int64_t n, int value) {
  for (std::int64_t i = threadOf(); i < n; i += threads()) to[i] = value;
}

}  // namespace steepest::cuda
