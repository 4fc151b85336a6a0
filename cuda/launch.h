// How kernels are launched, and what all of them use. A file of cuda/ includes this one and nothing of CUDA's own: the same sources are
// compiled by nvcc, and as plain C++ for test/cuda/fibers, where every thread of a block is a fiber (STEEPEST_FIBERS).
//
//   STEEPEST_LAUNCH(kernel, grid, block, sharedBytes, call, args...)   on call.stream; an empty grid launches nothing. A kernel that is
//                                                                      a template with commas goes into parentheses.
//   STEEPEST_SHARED(T, name)      T* name: the dynamic shared memory of the launch
//   ceilDiv, blocksFor            grids
//   warpSum, blockSum, …          sums in one fixed order, the same for any grid; every thread gets the result
//   toFloat, toBf16               our bf16, rounded to nearest even as on the CPU
//   raise, faulted                call.deviceFault: 1 non-finite, 2 index out of range, 3 factorization failed; the first one stays
//
// What may not be used, because the fibers do not know it, or because it would change bits from run to run: atomics on floats,
// cooperative groups, inline PTX and tensor cores (these only under `#ifndef STEEPEST_FIBERS`, beside a plain path).
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "cuda/check.h"
#include "runtime/kernel.h"

#ifdef STEEPEST_FIBERS
#include "fibers.h"
#define STEEPEST_SHARED(T, name) T* name = reinterpret_cast<T*>(::steepest::fibers::dynamicShared())
#else
#define STEEPEST_SHARED(T, name)                                 \
  extern __shared__ __align__(16) unsigned char steepestBytes[]; \
  T* name = reinterpret_cast<T*>(steepestBytes)
#endif

#define STEEPEST_LAUNCH(kernel, grid, block, sharedBytes, call, ...) \
  ::steepest::cuda::launch(#kernel, kernel, grid, block, sharedBytes, (call).stream __VA_OPT__(, ) __VA_ARGS__)

namespace steepest::cuda {

// More dynamic shared memory than this has to be asked for, by kernel.
constexpr std::size_t kSharedByDefault = 48 << 10;

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t sharedBytes, void* stream, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "a kernel is launched with all of its arguments");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef STEEPEST_FIBERS
  fibers::enqueue(name, kernel, grid, block, sharedBytes, stream, static_cast<P>(args)...);
#else
  if (sharedBytes > kSharedByDefault) {
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(sharedBytes)),
          name);
  }
  // clang-format off
  kernel<<<grid, block, sharedBytes, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(args)...);
  // clang-format on
#endif
  check(cudaGetLastError(), name);
}

template <class T>
__host__ __device__ constexpr T ceilDiv(T a, T b) {
  return (a + b - 1) / b;
}

constexpr std::int64_t kMaxGridX = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t kMaxGridYZ = 65535;

// Blocks for n pieces of work, `perBlock` a block; kernels go on in steps of the whole grid where `most` is less than that.
inline unsigned blocksFor(std::int64_t n, std::int64_t perBlock, std::int64_t most = kMaxGridX) {
  return static_cast<unsigned>(std::min(ceilDiv(n, perBlock), std::min(most, kMaxGridX)));
}

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// combine(a, b) over the 32 lanes of a warp, halves onto each other, 16 8 4 2 1. All lanes take part.
template <class T, class F>
__device__ __forceinline__ T warpReduce(T x, F combine) {
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}

// Over a block of one dimension whose size is a multiple of 32; all threads take part.
template <class T, class F>
__device__ __forceinline__ T blockReduce(T x, T neutral, F combine) {
  __shared__ T parts[32];
  const unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  x = warpReduce(x, combine);
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  x = warpReduce(lane < blockDim.x >> 5 ? parts[lane] : neutral, combine);
  // The next reduction writes `parts` again.
  __syncthreads();
  return x;
}

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

template <class T>
__device__ __forceinline__ T warpSum(T x) {
  return warpReduce(x, Sum());
}
template <class T>
__device__ __forceinline__ T warpMax(T x) {
  return warpReduce(x, Largest());
}
template <class T>
__device__ __forceinline__ T blockSum(T x) {
  return blockReduce(x, T(0), Sum());
}
// `least` is what stands for no number.
template <class T>
__device__ __forceinline__ T blockMax(T x, T least) {
  return blockReduce(x, least, Largest());
}

__device__ __forceinline__ float toFloat(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ __forceinline__ float toFloat(float x) { return x; }
__device__ __forceinline__ bf16 toBf16(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return bf16{static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return bf16{static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

__device__ __forceinline__ void raise(int* fault, int code) { atomicCAS(fault, 0, code); }
// Whether an earlier instruction raised a fault: what changes state writes nothing then.
__device__ __forceinline__ bool faulted(const int* fault) { return *static_cast<const volatile int*>(fault) != 0; }

}  // namespace steepest::cuda
