// Row `matmul`, and the product that other kernels use: tiles in shared memory, sums in registers, the epilogue on them.
#include "attrs/matmul.gen.h"
#include "cpu/matmul_epilogue.h"
#include "cuda/product.h"

namespace steepest::cuda {
namespace {

constexpr int kProductThreads = 256, kSide = 16;  // threads along an edge of a tile
constexpr int kDepth = 16;                        // of k at a time

template <class V>
// Not in line: a thread has up to 64 sums.
__attribute__((noinline)) __device__ V activateBy(MatmulAttrs::Activation kind, V z) {
  using Activation = MatmulAttrs::Activation;
  switch (kind) {
    case Activation::kRelu:
      return activate<Activation::kRelu>(z);
    case Activation::kGelu:
      return activate<Activation::kGelu>(z);
    case Activation::kGeluTanh:
      return activate<Activation::kGeluTanh>(z);
    case Activation::kSilu:
      return activate<Activation::kSilu>(z);
    case Activation::kTanh:
      return activate<Activation::kTanh>(z);
    default:
      return z;
  }
}

// Brings a piece [length of the tile, kDepth] of an operand into shared memory, k first; zeros beyond its ends. Neighbouring threads take
// what is adjacent in memory.
template <int Length, class In, class Sum>
__device__ void stage(Sum (*to)[Length + 4], const In* from, std::int64_t first, std::int64_t count, std::int64_t alongTile, std::int64_t k,
                      std::int64_t depth, std::int64_t alongDepth) {
  const bool deep = alongDepth == 1 && alongTile != 1;
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < Length * kDepth; at += kProductThreads) {
    const int i = deep ? at / kDepth : at % Length, d = deep ? at % kDepth : at / Length;
    const bool inside = first + i < count && k + d < depth;
    to[d][i] = inside ? VecOf<In>::load(from + (first + i) * alongTile + (k + d) * alongDepth).v : Sum(0);
  }
}

// A block makes a tile of Each * 16 rows and columns; a thread has every 16th of both.
template <class In, class Out, int Each>
__global__ void __launch_bounds__(kProductThreads, 2) productTiles(__grid_constant__ const Product p) {
  using V = VecOf<In>;
  using Sum = typename V::Scalar;
  constexpr int length = Each * kSide;
  __shared__ Sum left[kDepth][length + 4], right[kDepth][length + 4];
  const std::int64_t tilesN = (p.n + length - 1) / length, tilesM = (p.m + length - 1) / length;
  // Rows of tiles come first: blocks that run together share a panel of b.
  const std::int64_t tile = blockIdx.x, batch = tile / (tilesM * tilesN);
  const std::int64_t row = tile % tilesM * length, column = tile / tilesM % tilesN * length;
  const In* a = static_cast<const In*>(p.a) + p.aAt.at(batch);
  const In* b = static_cast<const In*>(p.b) + p.bAt.at(batch);
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  Sum sums[Each][Each] = {};
  for (std::int64_t k = 0; k < p.k; k += kDepth) {
    stage<length>(left, a, row, p.m, p.aAt.row, k, p.k, p.aAt.col);
    stage<length>(right, b, column, p.n, p.bAt.col, k, p.k, p.bAt.row);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      Sum u[Each], v[Each];
#pragma unroll
      for (int i = 0; i < Each; ++i) u[i] = left[d][y + i * kSide], v[i] = right[d][x + i * kSide];
#pragma unroll
      for (int i = 0; i < Each; ++i) {
#pragma unroll
        for (int j = 0; j < Each; ++j) sums[i][j] = std::fma(u[i], v[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
  const Sum scale = static_cast<Sum>(p.scale);
#pragma unroll
  for (int i = 0; i < Each; ++i) {
    const std::int64_t r = row + y + i * kSide;
    if (r >= p.m) continue;
#pragma unroll
    for (int j = 0; j < Each; ++j) {
      const std::int64_t c = column + x + j * kSide;
      if (c >= p.n) continue;
      const std::int64_t at = (batch * p.m + r) * p.n + c;
      V z = sums[i][j];
      if (p.scale != 1) z = z * V(scale);
      if (p.bias) z += V::load(static_cast<const In*>(p.bias) + c * p.biasStep);
      if (p.preactivation) store(static_cast<Out*>(p.preactivation) + at, z);
      z = activateBy(p.activation, z);
      if (p.residual)
        z += V::load(static_cast<const Out*>(p.residual) + p.residualAt.at(batch) + r * p.residualAt.row + c * p.residualAt.col);
      store(static_cast<Out*>(p.out) + at, z);
    }
  }
}

template <class In, class Out>
void launchProduct(const Call& call, const Product& p) {
  const auto tiles = [&](std::int64_t length) { return p.batch * ceilDiv(p.m, length) * ceilDiv(p.n, length); };
  // Large tiles where they still fill a device.
  if constexpr (sizeof(In) < 8) {
    if (tiles(128) >= 128) {
      STEEPEST_LAUNCH((productTiles<In, Out, 8>), dim3(blocksFor(tiles(128), 1)), dim3(kProductThreads), 0, call, p);
      return;
    }
  }
  STEEPEST_LAUNCH((productTiles<In, Out, 4>), dim3(blocksFor(tiles(64), 1)), dim3(kProductThreads), 0, call, p);
}

class Matmul final : public Kernel {
 public:
  explicit Matmul(const Spec& spec) : attrs_(MatmulAttrs::decode(spec.attrs)) {
    checkMatmul(spec, attrs_);
    const View &a = spec.in[0], &b = spec.in[1];
    p_.in = a.dtype, p_.outDtype = attrs_.outDtype;
    p_.m = a.dim(-2), p_.k = a.dim(-1), p_.n = b.dim(-1);
    for (int i = 0; i < a.rank - 2; ++i) p_.batch *= a.shape[i];
    p_.aAt = Batched(a), p_.bAt = Batched(b);
    if (attrs_.residual) p_.residualAt = Batched(spec.in.back());
    if (attrs_.bias) p_.biasStep = spec.in[2].strides[0];
    p_.scale = attrs_.scale, p_.activation = attrs_.activation;
    if (p_.batch * p_.m * p_.n == 0) return;
    p_.aAt.settle(p_.m);
    p_.residualAt.settle(p_.m);
    // One matrix on the right: the rows of all on the left are those of one.
    if (p_.batch > 1 && p_.bAt.repeats() && p_.aAt.stacks(p_.m) && (!attrs_.residual || p_.residualAt.stacks(p_.m))) {
      p_.m *= p_.batch;
      p_.batch = 1;
      p_.aAt.axes = p_.bAt.axes = p_.residualAt.axes = 0;
    }
  }

  void run(const Call& call) const override {
    Product p = p_;
    p.a = call.in[0].data, p.b = call.in[1].data, p.out = call.out[0].data;
    if (attrs_.bias) p.bias = call.in[2].data;
    if (attrs_.residual) p.residual = call.in.back().data;
    if (attrs_.preactivation) p.preactivation = call.out[1].data;
    product(call, p);
  }

 private:
  MatmulAttrs attrs_;
  Product p_;
};

}  // namespace

void product(const Call& call, const Product& p) {
  if (p.in == DType::float64)
    launchProduct<double, double>(call, p);
  else if (p.in == DType::float32)
    launchProduct<float, float>(call, p);
  else if (p.outDtype == DType::float32)
    launchProduct<bf16, float>(call, p);
  else
    launchProduct<bf16, bf16>(call, p);
}

std::unique_ptr<Kernel> makeMatmul(const Spec& spec) { return std::make_unique<Matmul>(spec); }

}  // namespace steepest::cuda
