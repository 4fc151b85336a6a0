// Numbers to eight bits and back; a warp takes a block of 256.
#include "attrs/dequantizeBlockwise.gen.h"
#include "attrs/quantizeBlockwise.gen.h"
#include "cuda/pack.cuh"
#include "cuda/quantize.cuh"

namespace steepest::cuda {
namespace {

constexpr int kQuantThreads = 256, kQuantWarps = kQuantThreads / 32;
// Blocks of a grid are enough for any device, and few enough that making the look-up does not count.
constexpr std::int64_t kMostBlocks = 1056;

__global__ void __launch_bounds__(kQuantThreads) quantizeBlocks(__grid_constant__ const QuantTable map, const float* from,
                                                                std::uint8_t* codes, float* units, std::int64_t n, bool wide) {
  __shared__ QuantLookup look;
  const int thread = static_cast<int>(threadIdx.x);
  look.fill(map, thread, kQuantThreads);
  __syncthreads();
  for (std::int64_t block = std::int64_t{blockIdx.x} * kQuantWarps + thread / 32; block < quantBlocks(n);
       block += std::int64_t{gridDim.x} * kQuantWarps) {
    float x[8];
    int count[2];
    for (int c = 0; c < 2; ++c) {
      const std::int64_t i = block * kQuantBlock + 128 * c + thread % 32 * 4, left = n - i;
      count[c] = left >= 4 ? 4 : left > 0 ? static_cast<int>(left) : 0;
      numbers4(fetch4(from, false, i, count[c], wide), false, x + 4 * c);
    }
    const float unit = unitOf(x);
    if (thread % 32 == 0) units[block] = unit;
    for (int c = 0; c < 2; ++c) {
      std::uint32_t bytes = 0;
      for (int j = 0; j < 4; ++j) bytes |= static_cast<std::uint32_t>(look.encode(map, x[4 * c + j] / unit)) << 8 * j;
      putBytes(codes, block * kQuantBlock + 128 * c + thread % 32 * 4, count[c], wide, bytes);
    }
  }
}

__global__ void __launch_bounds__(kQuantThreads) dequantizeBlocks(__grid_constant__ const QuantTable map, const std::uint8_t* codes,
                                                                  const float* units, float* to, std::int64_t n, bool wide) {
  __shared__ float values[256];
  for (int i = static_cast<int>(threadIdx.x); i < 256; i += kQuantThreads) values[i] = map.values[i];
  __syncthreads();
  const std::int64_t step = std::int64_t{gridDim.x} * kQuantThreads * 4;
  for (std::int64_t i = (std::int64_t{blockIdx.x} * kQuantThreads + threadIdx.x) * 4; i < n; i += step) {
    const int count = n - i >= 4 ? 4 : static_cast<int>(n - i);
    const std::uint32_t bytes = fetchBytes(codes, i, count, wide);
    const float unit = units[i / kQuantBlock];
    float x[4];
    for (int j = 0; j < 4; ++j) x[j] = values[bytes >> 8 * j & 0xff] * unit;
    put4(to, i, count, wide, x);
  }
}

bool aligned(const View& numbers, const View& codes) {
  return reinterpret_cast<std::uintptr_t>(numbers.data) % 16 == 0 && reinterpret_cast<std::uintptr_t>(codes.data) % 4 == 0;
}

void runQuantize(const Call& call, const QuantizeBlockwiseAttrs& attrs) {
  const std::int64_t n = call.in[0].size();
  STEEPEST_LAUNCH(quantizeBlocks, dim3(blocksFor(quantBlocks(n), kQuantWarps, kMostBlocks)), dim3(kQuantThreads), 0, call,
                  quantTable(attrs.either), call.in[0].as<const float>(), call.out[0].as<std::uint8_t>(), call.out[1].as<float>(), n,
                  aligned(call.in[0], call.out[0]));
}

void runDequantize(const Call& call, const DequantizeBlockwiseAttrs& attrs) {
  const std::int64_t n = call.in[0].size();
  STEEPEST_LAUNCH(dequantizeBlocks, dim3(blocksFor(n, 4 * kQuantThreads, 8 * kMostBlocks)), dim3(kQuantThreads), 0, call,
                  quantTable(attrs.either), call.in[0].as<const std::uint8_t>(), call.in[1].as<const float>(), call.out[0].as<float>(), n,
                  aligned(call.out[0], call.in[0]));
}

}  // namespace

std::unique_ptr<Kernel> makeQuantizeBlockwise(const Spec& spec) {
  checkQuantize(spec.in, spec.out);
  return std::make_unique<SimpleKernel<QuantizeBlockwiseAttrs, runQuantize>>(spec);
}

std::unique_ptr<Kernel> makeDequantizeBlockwise(const Spec& spec) {
  checkDequantize(spec.in, spec.out);
  return std::make_unique<SimpleKernel<DequantizeBlockwiseAttrs, runDequantize>>(spec);
}

}  // namespace steepest::cuda
