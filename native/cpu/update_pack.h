// How weights and gradients of 16 bits become float32 and come back.
//
// A bfloat16 weight with hidden bits is a float32 number x in two parts: the visible bfloat16 is x rounded to nearest (halves away from
// zero), the hidden 16 bits are x's low half, which read as a signed number is what must be added to the visible half to get x.
// They lie as two planes of bytes, the lower byte first. All zero: x is the visible number.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ahead.h"
#include "math/vec.h"
#include "runtime/philox.h"

namespace steepest::STEEPEST_LEVEL {

// Found by the generator of runtime/philox.h.
inline void mulHiLo(std::uint32_t m, vi x, vi& hi, vi& lo) {
  const vi k(static_cast<std::int32_t>(m));
  hi = mulHigh(k, x);
  lo = k * x;
}

constexpr std::int64_t kLanes = vf::kLanes;

inline int lanesLeft(std::int64_t i, std::int64_t n) { return static_cast<int>(std::min(n - i, kLanes)); }

inline void unpack(const bf16* from, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    ask(from + i);
    const int k = lanesLeft(i, n);
    store(to + i, vf::load(from + i, k), k);
  }
}

inline void packNearest(const float* from, bf16* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const int k = lanesLeft(i, n);
    store(to + i, vf::load(from + i, k), k);
  }
}

inline void unpackMaster(const bf16* high, const std::uint8_t* low0, const std::uint8_t* low1, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    ask(high + i);
    ask(low0 + i);
    ask(low1 + i);
    const int k = lanesLeft(i, n);
    const vi low = vi::load(low0 + i, k) | vi::load(low1 + i, k) << 8;
    store(to + i, fromBits(toBits(vf::load(high + i, k)) + (low << 16 >> 16)), k);
  }
}

// A NaN must not turn into something else when its bits are cut or rounded up.
inline vi plainBits(vf x) { return select(isNan(x), vi(0x7fc00000), toBits(x)); }

inline void packMaster(const float* from, bf16* high, std::uint8_t* low0, std::uint8_t* low1, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const int k = lanesLeft(i, n);
    const vi bits = plainBits(vf::load(from + i, k));
    store(high + i, fromBits((bits + 0x8000) & vi(-0x10000)), k);
    store(low0 + i, bits, k);
    store(low1 + i, shr(bits, 8), k);
  }
}

// Where the random bits of a weight come from: the key is that of the run, the example word is the step.
struct RoundingSource {
  PhiloxKey key;
  std::uint32_t step, site;
};

// Rounds up with the probability that makes the mean right. `first` is the tensor's position of from[0], a multiple of 64.
inline void packStochastic(const float* from, bf16* to, std::int64_t n, std::int64_t first, const RoundingSource& source) {
  for (std::int64_t i = 0; i < n; i += 4 * kLanes) {
    const std::uint64_t block = static_cast<std::uint64_t>(first + i) / 64 * 16;
    vi c[4] = {vi(static_cast<std::int32_t>(block)) + vi::iota(), vi(static_cast<std::int32_t>(source.step)),
               vi(static_cast<std::int32_t>(source.site)), vi(static_cast<std::int32_t>(philoxStream(Stream::rounding, block)))};
    philox4x32(c, vi(static_cast<std::int32_t>(source.key.k0)), vi(static_cast<std::int32_t>(source.key.k1)));
    for (int j = 0; j < 4; ++j) {
      const std::int64_t at = i + j * kLanes;
      if (at >= n) return;
      const int k = lanesLeft(at, n);
      store(to + at, fromBits((plainBits(vf::load(from + at, k)) + shr(c[j], 16)) & vi(-0x10000)), k);
    }
  }
}

// True where all n numbers are finite.
template <class V, class S>
bool allFinite(const S* from, std::int64_t n) {
  V bad[4] = {V(0), V(0), V(0), V(0)};
  std::int64_t i = 0;
  // A product with 0 is 0, or NaN for what is not finite.
  for (; i + 4 * V::kLanes <= n; i += 4 * V::kLanes) {
    for (int j = 0; j < 4; ++j) bad[j] = fma(V::load(from + i + j * V::kLanes), V(0), bad[j]);
  }
  for (; i < n; i += V::kLanes) {
    const int k = static_cast<int>(std::min<std::int64_t>(n - i, V::kLanes));
    bad[0] = fma(V::load(from + i, k), V(0), bad[0]);
  }
  return none(isNan((bad[0] + bad[1]) + (bad[2] + bad[3])));
}

}  // namespace steepest::STEEPEST_LEVEL
