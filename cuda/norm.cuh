// What the norms share: weights of either dtype, and sums over pieces.
#pragma once

#include "cuda/device.cuh"

namespace steepest::cuda {

// Weights in the dtype that computes, or in bfloat16; `at` may be null.
template <class S>
struct Weights {
  const std::byte* at;
  bool half;
  __device__ S operator()(std::int64_t i) const {
    return half ? static_cast<S>(toFloat(reinterpret_cast<const bf16*>(at)[i])) : reinterpret_cast<const S*>(at)[i];
  }
};

// Which weight belongs to element i of a row: every element has its own where `groups` is 0, else every channel.
struct Channels {
  std::int64_t groups = 0, perGroup = 0, area = 1;
  __device__ std::int64_t of(std::int64_t row, std::int64_t i) const { return groups ? row % groups * perGroup + i / area : i; }
};

template <class S>
struct Affine {
  Weights<S> weight, bias;
  Channels channels;
  __device__ S operator()(S x, S scale, std::int64_t row, std::int64_t i) const {
    S y = x * scale;
    if (!weight.at && !bias.at) return y;
    const std::int64_t at = channels.of(row, i);
    if (weight.at) y *= weight(at);
    if (bias.at) y += bias(at);
    return y;
  }
};

template <class S>
__device__ inline void writeWeight(std::byte* to, bool half, std::int64_t i, S x) {
  if (half)
    reinterpret_cast<bf16*>(to)[i] = toBf16(static_cast<float>(x));
  else
    reinterpret_cast<S*>(to)[i] = x;
}

template <class S>
__global__ void addPiecesOf(const S* partials, std::int64_t pieces, std::int64_t stride, std::int64_t n, std::byte* out, bool half) {
  // A warp's lanes are neighbours; the warps of a block take pieces in turn.
  __shared__ S parts[kWarp][kWarp + 1];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  for (std::int64_t base = std::int64_t{blockIdx.x} * kWarp; base < n; base += std::int64_t{gridDim.x} * kWarp) {
    const std::int64_t i = base + lane;
    S total = 0;
    if (i < n)
      for (std::int64_t p = warp; p < pieces; p += warps) total += partials[p * stride + i];
    parts[warp][lane] = total;
    __syncthreads();
    if (warp == 0 && i < n) {
      for (int w = 1; w < warps; ++w) total += parts[w][lane];
      writeWeight(out, half, i, total);
    }
    __syncthreads();
  }
}

// out[i] = the sum of partials[p][i] over p, for pieces that lie `stride` apart.
template <class S>
void addPieces(const Call& call, const S* partials, std::int64_t pieces, std::int64_t stride, std::int64_t n, std::byte* out, bool half) {
  STEEPEST_LAUNCH(addPiecesOf<S>, gridFor(n, kWarp), kThreads, 0, call, partials, pieces, stride, n, out, half);
}

}  // namespace steepest::cuda
