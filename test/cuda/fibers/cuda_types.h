// CUDA's words for functions and memory, and its small vectors, as plain C++.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static
// The fake runtime runs one launch at a time, so the block that runs has these for itself; values stay from block to block, as they may on
// a GPU.
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_assume(condition) static_cast<void>(0)
#define __isGlobal(pointer) true

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 {
  unsigned x, y, z;
};

#define STEEPEST_VECTORS(T, name, align1, align4)            \
  struct alignas(2 * (align1)) name##2 { T x, y; };          \
  struct name##3 { T x, y, z; };                             \
  struct alignas(align4) name##4 { T x, y, z, w; };          \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
STEEPEST_VECTORS(signed char, char, 1, 4)
STEEPEST_VECTORS(unsigned char, uchar, 1, 4)
STEEPEST_VECTORS(short, short, 2, 8)
STEEPEST_VECTORS(unsigned short, ushort, 2, 8)
STEEPEST_VECTORS(int, int, 4, 16)
STEEPEST_VECTORS(float, float, 4, 16)
STEEPEST_VECTORS(double, double, 8, 16)
STEEPEST_VECTORS(long long, longlong, 8, 16)
STEEPEST_VECTORS(unsigned long long, ulonglong, 8, 16)
#undef STEEPEST_VECTORS
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
