// Device code of state.cu: copies, sums and the search for numbers that are not finite. Whatever changes state looks at the fault first.
#pragma once

#include "cuda/launch.h"

namespace steepest::cuda::state {

constexpr unsigned kThreads = 256;

// What is copied, in units of T, row-major over `shape`; the last axes are merged where they lie together.
struct Strided {
  int rank;
  std::int64_t shape[kMaxRank];
  std::int64_t strides[kMaxRank];
};

__device__ __forceinline__ std::int64_t firstIndex() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ std::int64_t gridStep() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

template <class T>
__global__ void __launch_bounds__(kThreads) copyKernel(const T* __restrict__ from, T* __restrict__ to, std::int64_t n, const int* fault) {
  if (faulted(fault)) return;
  for (std::int64_t i = firstIndex(); i < n; i += gridStep()) to[i] = from[i];
}

template <class T>
__global__ void __launch_bounds__(kThreads) copyStridedKernel(const T* __restrict__ from, T* __restrict__ to,
                                                              const __grid_constant__ Strided geometry, std::int64_t n, const int* fault) {
  if (faulted(fault)) return;
  for (std::int64_t i = firstIndex(); i < n; i += gridStep()) {
    std::int64_t rest = i, offset = 0;
    for (int axis = geometry.rank - 1; axis >= 0; --axis) {
      offset += rest % geometry.shape[axis] * geometry.strides[axis];
      rest /= geometry.shape[axis];
    }
    to[i] = from[offset];
  }
}

__device__ __forceinline__ double plus(double a, double b) { return a + b; }
__device__ __forceinline__ float plus(float a, float b) { return a + b; }
__device__ __forceinline__ float plus(float a, bf16 b) { return a + toFloat(b); }

// `out` may be `sum`: a thread reads what it writes.
template <class T, class G>
__global__ void __launch_bounds__(kThreads)
    accumulateKernel(const T* sum, const G* __restrict__ value, T* out, std::int64_t n, const int* fault) {
  if (faulted(fault)) return;
  for (std::int64_t i = firstIndex(); i < n; i += gridStep()) out[i] = plus(sum[i], value[i]);
}

__device__ __forceinline__ bool finite(std::uint16_t bits) { return (bits & 0x7F80u) != 0x7F80u; }
__device__ __forceinline__ bool finite(std::uint32_t bits) { return (bits & 0x7F800000u) != 0x7F800000u; }
__device__ __forceinline__ bool finite(std::uint64_t bits) { return (bits & 0x7FF0000000000000ull) != 0x7FF0000000000000ull; }

// T: the unsigned whole number as wide as the float. `out` may be `x`.
template <class T>
__global__ void __launch_bounds__(kThreads) guardKernel(const T* x, T* out, std::int64_t n, int* fault) {
  bool ok = true;
  for (std::int64_t i = firstIndex(); i < n; i += gridStep()) {
    const T bits = x[i];
    ok = ok && finite(bits);
    out[i] = bits;
  }
  if (!ok) raise(fault, 1);
}

}  // namespace steepest::cuda::state
