// SIMD vectors that have the same lanes, and give the same bits, at every dispatch level.
//
//   vf  16 float32 lanes     vd  8 float64 lanes      vi  16 int32 lanes     vl  8 int64 lanes (bit tricks of vd)
//
// On a GPU each has one lane: a thread is a lane.
//
// Contraction is off: only `fma` rounds once. Loads and stores need no alignment. All functions are found by argument-dependent
// lookup, so that they never catch a call on plain floats.
//
//   load(p), load(p, n)            n lanes, the others 0 (0 <= n <= kLanes); vf from float*, bf16*; vd from double*, float*;
//   store(p, v), store(p, v, n)    bf16 rounds to nearest even and stays NaN; vi from and to int32*, uint8* (low bits)
//   + - * / fma(a, b, c) = a*b+c   fnma(a, b, c) = c-a*b, each rounded once
//   min(a, b) = a < b ? a : b      max(a, b) = a > b ? a : b: the second operand where either is NaN
//   abs sqrt floor ceil round trunc copysign    round: halves to even
//   == != < <= > >=                give V::Mask; & | ^ ~ any all none bits (lane 0 lowest); select(mask, a, b)
//   sum(v) hmax(v) hmin(v)         over all lanes by one tree: halves onto each other, 8 4 2 1
//   toInt truncToInt toFloat       vf <-> vi, out of range: INT_MIN. vd <-> vl: to nearest only, |x| < 2^51
//   toBits fromBits                the lanes' bits as integers
//   widen(v, lo, hi) narrow(lo, hi)  vf <-> two vd (of one lane, on a GPU: the second is a copy)
//   mulHigh(a, b)                  vi: high half of the unsigned product; `shr` shifts in zeros, `>>` the sign
//
// Templates are written over V = vf or vd with V::Scalar, V::Mask, V::Ints, V::kLanes; VecOf<T> is the vector that computes dtype T.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "runtime/device.h"
#include "runtime/types.h"

#if !defined(STEEPEST_LEVEL)
#error "STEEPEST_LEVEL must name the dispatch level"
#endif

#if defined(STEEPEST_LEVEL_cuda)
#include "math/vec_cuda.h"
#elif defined(STEEPEST_LEVEL_v4)
#include "math/vec_v4.h"
#elif defined(STEEPEST_LEVEL_v3)
#include "math/vec_v3.h"
#else
#include "math/vec_portable.h"
#endif

namespace steepest::STEEPEST_LEVEL {

template <class T>
using VecOf = std::conditional_t<std::is_same_v<T, double>, vd, std::conditional_t<std::is_integral_v<T>, vi, vf>>;

// 2^n for integral n in the range of normal numbers.
STEEPEST_HD inline vf exp2i(vf n) { return fromBits((toInt(n) + 127) << 23); }
STEEPEST_HD inline vd exp2i(vd n) { return fromBits((toInt(n) + 1023) << 52); }

// x * 2^n, n integral and within twice the exponent range, rounded once if x is near 1 (subnormal results too).
template <class V>
STEEPEST_HD inline V scale2(V x, V n) {
  const V half = floor(n * V(0.5));
  return x * exp2i(half) * exp2i(n - half);
}

// -1, 0 or 1; zeros keep their sign, NaN stays.
template <class V>
STEEPEST_HD inline V sign(V x) {
  return select((x > V(0)) | (x < V(0)), copysign(V(1), x), x);
}

template <class V>
STEEPEST_HD inline typename V::Mask isNan(V x) {
  return x != x;
}
template <class V>
STEEPEST_HD inline typename V::Mask isFinite(V x) {
  return (x - x) == V(0);
}

}  // namespace steepest::STEEPEST_LEVEL
