// Philox 4x32-10, the counter-based generator behind every random number of steepest
// (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// A number is a pure function of (key, counter); nothing is advanced. So recomputation, accumulation, another composition of the
// batch, another thread or another device draw the same numbers.
//
//   key       the two int32 words of a key tensor
//   word 0    block of the element inside its example, low 32 bits
//   word 1    id of the example (0 where there are no ids: then the whole tensor is one example)
//   word 2    site: tells apart draws that share a key
//   word 3    stream (what the numbers are for) in the low 8 bits, high bits of the block above
//
// A block gives four words. Sixteen consecutive blocks (a group) serve 64 consecutive elements of an example: element i takes word
// (i / 16) % 4 of block (i / 64) * 16 + i % 16. So sixteen SIMD lanes, or a half warp, store what they drew without a shuffle.
// Elements that need two words (float64, wide integers) take 32 to a group: element i takes words 2p and 2p + 1, p = (i / 16) % 2,
// of block (i / 32) * 16 + i % 16.
#pragma once

#include <cstdint>

#include "device.h"

namespace steepest {

// What numbers are for. Streams never share a counter, so one key may serve several of them.
enum class Stream : std::uint32_t {
  draw = 0,       // the op `random`
  dropout = 1,    // the op `dropout`
  split = 2,      // keys made by random.split
  fold = 3,       // keys made by random.foldIn
  attention = 4,  // dropout inside attention
  rounding = 5,   // stochastic rounding of weights
  noise = 6,      // gradient noise
  sample = 7,     // sampled products
  residual = 8,   // dropout fused with a residual sum
};

constexpr std::uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;
constexpr std::uint32_t kPhiloxW0 = 0x9E3779B9u, kPhiloxW1 = 0xBB67AE85u;

STEEPEST_HD constexpr void mulHiLo(std::uint32_t m, std::uint32_t x, std::uint32_t& hi, std::uint32_t& lo) {
  const std::uint64_t product = static_cast<std::uint64_t>(m) * x;
  hi = static_cast<std::uint32_t>(product >> 32);
  lo = static_cast<std::uint32_t>(product);
}

// c becomes the block. U is std::uint32_t, or a vector of them with ^, + and mulHiLo(uint32_t, U, U&, U&).
template <class U>
STEEPEST_HD constexpr void philox4x32(U (&c)[4], U k0, U k1) {
  for (int round = 0; round < 10; ++round) {
    U hi0{}, lo0{}, hi1{}, lo1{};
    mulHiLo(kPhiloxM0, c[0], hi0, lo0);
    mulHiLo(kPhiloxM1, c[2], hi1, lo1);
    c[0] = hi1 ^ c[1] ^ k0;
    c[1] = lo1;
    c[2] = hi0 ^ c[3] ^ k1;
    c[3] = lo0;
    k0 = k0 + U(kPhiloxW0);
    k1 = k1 + U(kPhiloxW1);
  }
}

struct PhiloxKey {
  std::uint32_t k0, k1;
};

struct PhiloxBlock {
  std::uint32_t w[4];
};

// Word 3 of the counter.
STEEPEST_HD constexpr std::uint32_t philoxStream(Stream stream, std::uint64_t block) {
  return static_cast<std::uint32_t>(stream) | static_cast<std::uint32_t>(block >> 32) << 8;
}

STEEPEST_HD constexpr PhiloxBlock philox(PhiloxKey key, std::uint64_t block, std::uint32_t example, std::uint32_t site, Stream stream) {
  std::uint32_t c[4] = {static_cast<std::uint32_t>(block), example, site, philoxStream(stream, block)};
  philox4x32(c, key.k0, key.k1);
  return {{c[0], c[1], c[2], c[3]}};
}

// The 32 bits of element i of an example.
STEEPEST_HD constexpr std::uint32_t philoxBits(PhiloxKey key, std::uint64_t i, std::uint32_t example, std::uint32_t site, Stream stream) {
  return philox(key, i / 64 * 16 + i % 16, example, site, stream).w[i / 16 % 4];
}

// The 64 bits of element i of an example, where elements take two words.
STEEPEST_HD constexpr std::uint64_t philoxBits64(PhiloxKey key, std::uint64_t i, std::uint32_t example, std::uint32_t site, Stream stream) {
  const PhiloxBlock b = philox(key, i / 32 * 16 + i % 16, example, site, stream);
  const std::uint64_t p = i / 16 % 2 * 2;
  return static_cast<std::uint64_t>(b.w[p]) << 32 | b.w[p + 1];
}

// In [0, 1): the 24 (53) high bits, all of them exact.
STEEPEST_HD constexpr float uniform01(std::uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }
STEEPEST_HD constexpr double uniform01(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

// In (0, 1], for where a logarithm follows.
STEEPEST_HD constexpr float uniform01Open(std::uint32_t bits) { return static_cast<float>((bits >> 8) + 1) * 0x1p-24f; }
STEEPEST_HD constexpr double uniform01Open(std::uint64_t bits) { return static_cast<double>((bits >> 11) + 1) * 0x1p-53; }

// `bits` is below this with probability p. At p = 1 it is 2^32: hence the 64 bits.
STEEPEST_HD constexpr std::uint64_t philoxThreshold(double p) {
  return p <= 0 ? 0 : p >= 1 ? 1ull << 32 : static_cast<std::uint64_t>(p * 4294967296.0 + 0.5);
}

// An integer in [0, range), range in [1, 2^32], from 64 bits; a value's probability is off by less than 2^-32 of itself.
STEEPEST_HD constexpr std::uint32_t philoxBelow(std::uint64_t bits, std::uint64_t range) {
  const std::uint64_t low = (bits & 0xffffffffu) * range >> 32;
  // (2^32 - 1) 2^32 + (2^32 - 1) still fits.
  return static_cast<std::uint32_t>(((bits >> 32) * range + low) >> 32);
}

}  // namespace steepest
