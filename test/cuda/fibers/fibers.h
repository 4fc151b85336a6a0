// Runs CUDA kernels on the CPU: every thread of a block is a fiber that goes on until it waits for others. Blocks run one after another.
//
// What it finds, as an Error that names kernel, block and thread: a barrier that some threads never reach, a warp function whose mask names
// lanes that have returned or wait for something else, a shuffle from a lane that does not take part, and launches over a limit of the
// hardware. A build with sanitizers finds reads and writes outside of buffers and of dynamic shared memory, and misaligned vectors. Lanes
// and blocks run backward with STEEPEST_FIBERS_ORDER=reverse: results that differ then lack a barrier.
//
// What it cannot find: races between blocks, and all that hangs on time.
#pragma once

#include <math.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#include "cuda_bf16.h"
#include "cuda_types.h"
#include "fibers_warp.h"

namespace steepest::fibers {

// Runs a launch to its end; throws an Error where the kernel breaks a rule.
void run(const char* name, dim3 grid, dim3 block, std::size_t sharedBytes, void (*body)(const void*), const void* context);

// Hands work to a stream of test/cuda/fake_runtime.cc, which runs it now, later, or as part of a graph.
void submit(void* stream, const char* name, std::function<void()> work);

template <class... P>
void enqueue(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, std::size_t sharedBytes, void* stream,
             std::type_identity_t<P>... args) {
  auto bound = [kernel, values = std::tuple<P...>(args...)] { std::apply(kernel, values); };
  submit(stream, name,
         [=] { run(name, grid, block, sharedBytes, [](const void* f) { (*static_cast<const decltype(bound)*>(f))(); }, &bound); });
}

}  // namespace steepest::fibers

#define threadIdx (::steepest::fibers::current.thread)
#define blockIdx (::steepest::fibers::current.block)
#define blockDim (::steepest::fibers::current.threads)
#define gridDim (::steepest::fibers::current.blocks)
constexpr int warpSize = 32;

// Integer atomics only: a sum of floats in the order of arrival has other bits in every run.
#define STEEPEST_ATOMIC(name, expression)             \
  template <class T, class U>                         \
    requires std::is_integral_v<T>                    \
  inline T name(T* at, U given) {                     \
    const T old = *at, value = static_cast<T>(given); \
    *at = static_cast<T>(expression);                 \
    return old;                                       \
  }
STEEPEST_ATOMIC(atomicAdd, old + value)
STEEPEST_ATOMIC(atomicSub, old - value)
STEEPEST_ATOMIC(atomicExch, value)
STEEPEST_ATOMIC(atomicMin, value < old ? value : old)
STEEPEST_ATOMIC(atomicMax, value > old ? value : old)
STEEPEST_ATOMIC(atomicAnd, old& value)
STEEPEST_ATOMIC(atomicOr, old | value)
STEEPEST_ATOMIC(atomicXor, old ^ value)
STEEPEST_ATOMIC(atomicInc, old >= value ? T(0) : old + 1)
#undef STEEPEST_ATOMIC
template <class T>
  requires std::is_integral_v<T>
inline T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  const T old = *at;
  if (old == expected) *at = value;
  return old;
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) {}

#define STEEPEST_LOAD(name)   \
  template <class T>          \
  inline T name(const T* p) { \
    return *p;                \
  }
STEEPEST_LOAD(__ldg)
STEEPEST_LOAD(__ldcs)
STEEPEST_LOAD(__ldcg)
STEEPEST_LOAD(__ldca)
#undef STEEPEST_LOAD
#define STEEPEST_STORE(name)                          \
  template <class T>                                  \
  inline void name(T* p, std::type_identity_t<T> v) { \
    *p = v;                                           \
  }
STEEPEST_STORE(__stcs)
STEEPEST_STORE(__stcg)
STEEPEST_STORE(__stwt)
#undef STEEPEST_STORE

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline int __double2hiint(double x) { return static_cast<int>(std::bit_cast<std::uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return static_cast<int>(std::bit_cast<std::uint64_t>(x)); }
inline double __hiloint2double(int hi, int lo) {
  return std::bit_cast<double>((static_cast<std::uint64_t>(static_cast<unsigned>(hi)) << 32) | static_cast<unsigned>(lo));
}

// Whole numbers out of floats saturate, and NaN is 0, as on a GPU.
template <class I, class F>
inline I steepestToInt(F x) {
  if (x != x) return 0;
  const F low = static_cast<F>(std::is_signed_v<I> ? -std::ldexp(F(1), 8 * sizeof(I) - 1) : F(0));
  const F high = std::ldexp(F(1), 8 * sizeof(I) - (std::is_signed_v<I> ? 1 : 0));
  if (x <= low) return static_cast<I>(std::is_signed_v<I> ? I(1) << (8 * sizeof(I) - 1) : 0);
  if (x >= high) return static_cast<I>(~(std::is_signed_v<I> ? I(1) << (8 * sizeof(I) - 1) : I(0)));
  return static_cast<I>(x);
}
inline int __float2int_rn(float x) { return steepestToInt<int>(rintf(x)); }
inline int __float2int_rz(float x) { return steepestToInt<int>(truncf(x)); }
inline int __float2int_rd(float x) { return steepestToInt<int>(floorf(x)); }
inline unsigned __float2uint_rn(float x) { return steepestToInt<unsigned>(rintf(x)); }
inline unsigned __float2uint_rz(float x) { return steepestToInt<unsigned>(truncf(x)); }
inline long long __float2ll_rn(float x) { return steepestToInt<long long>(rintf(x)); }
inline int __double2int_rn(double x) { return steepestToInt<int>(rint(x)); }
inline int __double2int_rz(double x) { return steepestToInt<int>(trunc(x)); }
inline long long __double2ll_rn(double x) { return steepestToInt<long long>(rint(x)); }
inline long long __double2ll_rz(double x) { return steepestToInt<long long>(trunc(x)); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline double __int2double_rn(int x) { return x; }
inline double __ll2double_rn(long long x) { return static_cast<double>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline double __dsqrt_rn(double x) { return sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

inline int __mulhi(int a, int b) { return static_cast<int>((static_cast<long long>(a) * b) >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1; }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= ((x >> i) & 1u) << (31 - i);
  return r;
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
  return static_cast<unsigned>(((static_cast<std::uint64_t>(hi) << 32 | lo) << (n & 31u)) >> 32);
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
  return static_cast<unsigned>((static_cast<std::uint64_t>(hi) << 32 | lo) >> (n & 31u));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t both = static_cast<std::uint64_t>(b) << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned s = selector >> (4 * i) & 15u, byte = static_cast<unsigned>(both >> (8 * (s & 7u)) & 0xFFu);
    r |= (s & 8u ? (byte & 0x80u ? 0xFFu : 0u) : byte) << (8 * i);
  }
  return r;
}

#define STEEPEST_MIN_MAX(A, B, R)                                                                                  \
  inline R min(A a, B b) { return static_cast<R>(a) < static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b); } \
  inline R max(A a, B b) { return static_cast<R>(a) > static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b); }
STEEPEST_MIN_MAX(int, int, int)
STEEPEST_MIN_MAX(unsigned, unsigned, unsigned)
STEEPEST_MIN_MAX(int, unsigned, unsigned)
STEEPEST_MIN_MAX(unsigned, int, unsigned)
STEEPEST_MIN_MAX(long, long, long)
STEEPEST_MIN_MAX(unsigned long, unsigned long, unsigned long)
STEEPEST_MIN_MAX(long long, long long, long long)
STEEPEST_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
#undef STEEPEST_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
