// What random kernels share: Philox on vectors, the layout of draws over examples, and the transforms of uniform bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>

#include "math/vec.h"
#include "runtime/kernel.h"
#include "runtime/philox.h"

namespace steepest::STEEPEST_LEVEL {

STEEPEST_HD inline void mulHiLo(std::uint32_t m, vi x, vi& hi, vi& lo) {
  const vi factor(static_cast<std::int32_t>(m));
  hi = mulHigh(factor, x);
  lo = factor * x;
}

// The 64 words of a group: w[p] lane l belongs to block 16 * group + l.
inline void philoxGroup(vi (&w)[4], PhiloxKey key, std::uint64_t group, std::uint32_t example, std::uint32_t site, Stream stream) {
  const std::uint64_t block = group * 16;
  w[0] = vi(static_cast<std::int32_t>(static_cast<std::uint32_t>(block))) + vi::iota();
  w[1] = vi(static_cast<std::int32_t>(example));
  w[2] = vi(static_cast<std::int32_t>(site));
  w[3] = vi(static_cast<std::int32_t>(philoxStream(stream, block)));
  philox4x32(w, vi(static_cast<std::int32_t>(key.k0)), vi(static_cast<std::int32_t>(key.k1)));
}

// How one tensor of draws falls apart: a stack of keys, each with a batch of examples of `size` elements.
struct Draws {
  std::int64_t keys = 1, batch = 1, size = 1;
  bool ids = false;

  // `shape` follows the axes of the keys; with ids its first axis counts the examples. Throws unless the operands fit.
  static Draws of(const char* who, const View& key, const View* ids, std::span<const std::int64_t> shape) {
    const auto refuse = [&](const char* rule) { throw Error("PROGRAM", std::string(who) + ": " + rule); };
    if (key.rank < 1 || key.dim(-1) != 2 || key.dtype != DType::int32 || !key.contiguous()) refuse("keys are contiguous int32 [..., 2]");
    Draws d;
    for (int i = 0; i < key.rank - 1; ++i) d.keys *= key.shape[i];
    std::size_t from = 0;
    if (ids) {
      if (shape.empty() || ids->rank != key.rank || ids->dtype != DType::int32 || !ids->contiguous() || ids->dim(-1) != shape[0]) {
        refuse("ids are contiguous int32, one per example");
      }
      for (int i = 0; i < key.rank - 1; ++i) {
        if (ids->shape[i] != key.shape[i]) refuse("ids have the leading axes of the keys");
      }
      d.ids = true;
      d.batch = shape[0];
      from = 1;
    }
    for (std::size_t i = from; i < shape.size(); ++i) d.size *= shape[i];
    return d;
  }

  std::int64_t examples() const { return keys * batch; }

  // Calls body(key, id, example, from, count): elements [from, from + count) of an example; `from` is a multiple of 64.
  template <class F>
  void each(const Call& call, const View& keyView, const View* idView, F&& body) const {
    constexpr std::int64_t kChunk = 8192;
    if (size == 0) return;
    const std::int64_t chunks = (size + kChunk - 1) / kChunk, pieces = examples() * chunks;
    const std::int64_t per = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(size, 64));
    const std::int32_t* words = keyView.as<std::int32_t>();
    const std::int32_t* numbers = ids ? idView->as<std::int32_t>() : nullptr;
    call.pool.run((pieces + per - 1) / per, [&](std::int64_t tile, int) {
      for (std::int64_t piece = tile * per; piece < std::min(pieces, (tile + 1) * per); ++piece) {
        const std::int64_t example = piece / chunks, from = piece % chunks * kChunk, k = example / batch;
        const PhiloxKey key{static_cast<std::uint32_t>(words[2 * k]), static_cast<std::uint32_t>(words[2 * k + 1])};
        body(key, numbers ? static_cast<std::uint32_t>(numbers[example]) : 0u, example, from, std::min(kChunk, size - from));
      }
    });
  }
};

// Unsigned words as numbers, exact in float64.
STEEPEST_HD inline void unsignedTo(vi u, vd& a, vd& b) {
  vd h[2], l[2];
  widen(toFloat(shr(u, 16)), h[0], h[1]);
  widen(toFloat(u & vi(0xffff)), l[0], l[1]);
  a = fma(h[0], vd(65536), l[0]);
  b = fma(h[1], vd(65536), l[1]);
}

// (bits + 1/2) / 2^32 and (hi 2^32 + lo + 1/2) / 2^64, rounded: in (0, 1], with full relative precision at 0.
STEEPEST_HD inline vf unit(vi bits) { return fma(toFloat(shr(bits, 16)), vf(65536), toFloat(bits & vi(0xffff)) + vf(0.5f)) * vf(0x1p-32f); }
STEEPEST_HD inline void unit(vi hi, vi lo, vd& a, vd& b) {
  vd h[2], l[2];
  unsignedTo(hi, h[0], h[1]);
  unsignedTo(lo, l[0], l[1]);
  a = fma(h[0], vd(0x1p32), l[0] + vd(0.5)) * vd(0x1p-64);
  b = fma(h[1], vd(0x1p32), l[1] + vd(0.5)) * vd(0x1p-64);
}

// log(x) for normal positive x: x = 2^e m, m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(f / (2 + f)), f = m - 1.
template <class V>
STEEPEST_HD inline V logPositive(V x) {
  constexpr bool wide = std::is_same_v<V, vd>;
  V m, e;
  if constexpr (wide) {
    const vl bits = toBits(x), shifted = bits - toBits(vd(0x1.6a09e667f3bcdp-1));
    // The exponent's field is read as an unsigned number below 2^51 and its bias taken off.
    const vl field = shr(shifted + toBits(vd(0x1p1)), 52);
    e = toFloat(field) - vd(1024);
    m = fromBits(bits - ((field - vl(1024)) << 52));
  } else {
    const vi bits = toBits(x), exponent = (bits - toBits(vf(0x1.6a09e6p-1f))) >> 23;
    e = toFloat(exponent);
    m = fromBits(bits - (exponent << 23));
  }
  const V f = m - V(1), s = f / (f + V(2)), s2 = s * s;
  constexpr int terms = wide ? 11 : 5;
  V p(static_cast<typename V::Scalar>(1.0 / (2 * terms - 1)));
  for (int k = terms - 2; k >= 1; --k) p = fma(p, s2, V(static_cast<typename V::Scalar>(1.0 / (2 * k + 1))));
  return fma(e, V(static_cast<typename V::Scalar>(0.693147180559945309417)), V(2) * fma(s * s2, p, s));
}

// -log of a uniform number in (0, 1), precise at both ends: x is the number, or, where `flip`, its distance from 1.
template <class V>
STEEPEST_HD inline V negLog(V x, typename V::Mask flip) {
  const V y = select(flip, V(1) - x, x);
  const V lost = select(flip, (V(1) - y) - x, V(0));
  return -(logPositive(y) + lost / y);
}

// Exponential numbers (mean 1) from uniform words.
STEEPEST_HD inline vf exponentialOf(vi bits) {
  const auto flip = bits < vi(0);
  return negLog(select(flip, unit(~bits), unit(bits)), flip);
}
STEEPEST_HD inline void exponentialOf(vi hi, vi lo, vd& a, vd& b) {
  vd v[2], w[2];
  unit(hi, lo, v[0], v[1]);
  unit(~hi, ~lo, w[0], w[1]);
  const auto flip0 = v[0] > vd(0.5), flip1 = v[1] > vd(0.5);
  a = negLog(select(flip0, w[0], v[0]), flip0);
  b = negLog(select(flip1, w[1], v[1]), flip1);
}

// Sine and cosine of t turns, |t| <= 1/2: the quarter is taken off exactly, then Taylor's sums on [-pi/4, pi/4].
template <class V>
STEEPEST_HD inline void sinCosTurns(V t, V& sine, V& cosine) {
  using S = typename V::Scalar;
  constexpr int terms = std::is_same_v<V, vd> ? 8 : 5;
  // (-1)^k / (2k)! and (-1)^k / (2k + 1)!
  constexpr struct Taylor {
    S sine[terms + 1], cosine[terms + 1];
    constexpr Taylor() : sine{}, cosine{} {
      double factor = 1;
      for (int k = 0; k <= terms; ++k) {
        cosine[k] = static_cast<S>(factor);
        sine[k] = static_cast<S>(factor / (2 * k + 1));
        factor = -factor / ((2 * k + 1) * (2 * k + 2));
      }
    }
  } taylor;
  const V a = t * V(4), q = round(a), x = (a - q) * V(static_cast<S>(1.57079632679489661923)), x2 = x * x;
  V ps(taylor.sine[terms - 1]), pc(taylor.cosine[terms]);
  for (int k = terms - 2; k >= 1; --k) ps = fma(ps, x2, V(taylor.sine[k]));
  for (int k = terms - 1; k >= 0; --k) pc = fma(pc, x2, V(taylor.cosine[k]));
  const V s = fma(x * x2, ps, x), size = abs(q);
  const auto odd = size == V(1), half = size == V(2);
  const V swapped = select(odd, pc, s), other = select(odd, s, pc);
  sine = select(half | (q == V(-1)), -swapped, swapped);
  cosine = select(half | (q == V(1)), -other, other);
}

// Two independent normal numbers from two words (Box and Muller 1958).
STEEPEST_HD inline void normalsOf(vi bits, vi angle, vf& a, vf& b) {
  const vf r = sqrt(vf(2) * exponentialOf(bits));
  sinCosTurns(toFloat(angle) * vf(0x1p-32f), b, a);
  a *= r;
  b *= r;
}
STEEPEST_HD inline void normalsOf(const vi (&w)[4], vd (&a)[2], vd (&b)[2]) {
  vd r[2], turn[2], low[2];
  exponentialOf(w[0], w[1], r[0], r[1]);
  unsignedTo(w[2], turn[0], turn[1]);
  unsignedTo(w[3], low[0], low[1]);
  for (int i = 0; i < 2; ++i) {
    // The high word minus 2^31 is signed: turns in [-1/2, 1/2).
    const vd t = fma(turn[i] - vd(0x1p31), vd(0x1p32), low[i]) * vd(0x1p-64);
    sinCosTurns(t, b[i], a[i]);
    r[i] = sqrt(vd(2) * r[i]);
    a[i] *= r[i];
    b[i] *= r[i];
  }
}

// A uniform integer in [0, range) from 64 bits, as philoxBelow; range 0 stands for 2^32.
STEEPEST_HD inline vi belowOf(vi hi, vi lo, std::uint32_t range) {
  if (range == 0) return hi;
  const vi r(static_cast<std::int32_t>(range)), sign(std::numeric_limits<std::int32_t>::min());
  const vi t = mulHigh(lo, r), s = hi * r + t;
  return mulHigh(hi, r) + select((s ^ sign) < (t ^ sign), vi(1), vi(0));
}

}  // namespace steepest::STEEPEST_LEVEL
