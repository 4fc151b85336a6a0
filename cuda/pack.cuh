// Four neighbours of an array at a time: one access of 128 bits for float32, of 64 for bfloat16, or element by element at an end or where
// the array is not aligned. Numbers stay as they lie in memory until all loads are under way.
#pragma once

#include "cuda/launch.h"
#include "math/vec.h"
#include "runtime/philox.h"

namespace steepest::cuda {

// float32 in four words, or bfloat16 in the first two.
__device__ inline uint4 fetch4(const void* from, bool narrow, std::int64_t i, int count, bool wide) {
  uint4 r{0, 0, 0, 0};
  if (narrow) {
    const bf16* p = static_cast<const bf16*>(from) + i;
    if (wide && count == 4) {
      const uint2 h = *reinterpret_cast<const uint2*>(p);
      r.x = h.x, r.y = h.y;
    } else {
      if (count > 0) r.x = p[0].bits;
      if (count > 1) r.x |= static_cast<std::uint32_t>(p[1].bits) << 16;
      if (count > 2) r.y = p[2].bits;
      if (count > 3) r.y |= static_cast<std::uint32_t>(p[3].bits) << 16;
    }
  } else {
    const std::uint32_t* p = static_cast<const std::uint32_t*>(from) + i;
    if (wide && count == 4) {
      r = *reinterpret_cast<const uint4*>(p);
    } else {
      if (count > 0) r.x = p[0];
      if (count > 1) r.y = p[1];
      if (count > 2) r.z = p[2];
      if (count > 3) r.w = p[3];
    }
  }
  return r;
}

__device__ inline void numbers4(uint4 raw, bool narrow, float* to) {
  if (narrow) {
    to[0] = sameBits<float>(raw.x << 16), to[1] = sameBits<float>(raw.x & 0xffff0000u);
    to[2] = sameBits<float>(raw.y << 16), to[3] = sameBits<float>(raw.y & 0xffff0000u);
  } else {
    to[0] = sameBits<float>(raw.x), to[1] = sameBits<float>(raw.y), to[2] = sameBits<float>(raw.z), to[3] = sameBits<float>(raw.w);
  }
}

__device__ inline void put4(float* to, std::int64_t i, int count, bool wide, const float* x) {
  if (wide && count == 4) {
    // As a plain assignment the compiler takes it apart, together with the other branch.
    __stcs(reinterpret_cast<uint4*>(to + i), uint4{sameBits<std::uint32_t>(x[0]), sameBits<std::uint32_t>(x[1]),
                                                   sameBits<std::uint32_t>(x[2]), sameBits<std::uint32_t>(x[3])});
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (k < count) to[i + k] = x[k];
    }
  }
}

// Low halves of `bits`.
__device__ inline void put4(bf16* to, std::int64_t i, int count, bool wide, const std::uint32_t* bits) {
  if (wide && count == 4) {
    __stcs(reinterpret_cast<uint2*>(to + i), uint2{(bits[0] & 0xffffu) | bits[1] << 16, (bits[2] & 0xffffu) | bits[3] << 16});
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (k < count) to[i + k].bits = static_cast<std::uint16_t>(bits[k]);
    }
  }
}

// Four bytes as a word, the first lowest.
__device__ inline std::uint32_t fetchBytes(const std::uint8_t* from, std::int64_t i, int count, bool wide) {
  if (wide && count == 4) return *reinterpret_cast<const std::uint32_t*>(from + i);
  std::uint32_t r = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (k < count) r |= static_cast<std::uint32_t>(from[i + k]) << 8 * k;
  }
  return r;
}
__device__ inline void putBytes(std::uint8_t* to, std::int64_t i, int count, bool wide, std::uint32_t bytes) {
  if (wide && count == 4) {
    *reinterpret_cast<std::uint32_t*>(to + i) = bytes;
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (k < count) to[i + k] = static_cast<std::uint8_t>(bytes >> 8 * k);
    }
  }
}

// A NaN must not turn into something else when its bits are cut or rounded up.
__device__ inline std::uint32_t plainBits(float x) { return x != x ? 0x7fc00000u : sameBits<std::uint32_t>(x); }

// The random words of four neighbours from i, which is a multiple of 4: each half of a warp holds a group of 64 (philox.h), of which every
// lane draws one block; what it needs of the other lanes' comes by shuffles.
__device__ inline void words4(PhiloxKey key, std::uint64_t i, std::uint32_t example, std::uint32_t site, Stream stream, std::uint32_t* to) {
  const int lane = static_cast<int>(i / 4 % 16);
  const PhiloxBlock b = philox(key, i / 64 * 16 + static_cast<std::uint64_t>(lane), example, site, stream);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int from = (4 * lane + k) % 16;
    std::uint32_t w[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) w[j] = __shfl_sync(0xffffffffu, b.w[j], from, 16);
    to[k] = lane < 4 ? w[0] : lane < 8 ? w[1] : lane < 12 ? w[2] : w[3];
  }
}

}  // namespace steepest::cuda
