// The norm of many tensors together, with the CPU's bits: a warp is the 32 lanes of a piece, and the pieces are added in their order.
#include <algorithm>
#include <cmath>

#include "attrs/globalNorm.gen.h"
#include "cuda/launch.h"
#include "math/vec.h"

namespace steepest::cuda {
namespace {

using Kind = GlobalNormAttrs::Kind;
using Stage = GlobalNormAttrs::Stage;

// As on the CPU: part of the bits.
constexpr std::int64_t kPiece = 32768;
constexpr int kNormThreads = 256, kWarps = kNormThreads / 32;

struct NormPart {
  const void* from;
  std::int64_t size;
  int firstPiece;
  bool narrow;
};
struct NormTable {
  static constexpr int kCapacity = 1024;
  int count, pieces;
  NormPart part[kCapacity];
};

// Largest absolute value, or NaN where there is one.
__device__ inline double largest(double a, double b) { return a != a || a > b ? a : b; }

__device__ inline double joinNorm(Kind kind, double a, double b) { return kind == Kind::kMax ? largest(a, b) : a + b; }

__global__ void __launch_bounds__(kNormThreads) normPieces(__grid_constant__ const NormTable table, Kind kind, double* parts) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int piece = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (piece >= table.pieces) return;
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.part[middle].firstPiece <= piece)
      low = middle;
    else
      high = middle - 1;
  }
  const NormPart& part = table.part[low];
  const std::int64_t begin = (piece - part.firstPiece) * kPiece;
  const std::int64_t n = part.size - begin < kPiece ? part.size - begin : kPiece;
  const auto at = [&](std::int64_t i) -> double {
    return part.narrow ? widenBf16(static_cast<const bf16*>(part.from)[begin + i]) : static_cast<const float*>(part.from)[begin + i];
  };
  double sum = 0;
  const auto add = [&](double x) {
    if (kind == Kind::kL2)
      sum = std::fma(x, x, sum);
    else
      sum = joinNorm(kind, sum, std::fabs(x));
  };
  const std::int64_t whole = n / 32 * 32;
#pragma unroll 8
  for (std::int64_t i = lane; i < whole; i += 32) add(at(i));
  // What is left goes to the first sixteen lanes.
  for (std::int64_t i = whole + lane; lane < 16 && i < n; i += 16) add(at(i));
  for (const int apart : {8, 16, 4, 2, 1}) {
    const double other = __shfl_xor_sync(kAllLanes, sum, apart);
    sum = joinNorm(kind, sum, other);
  }
  if (lane == 0) parts[piece] = sum;
}

// One block: brings pieces into shared memory, where one thread joins them in their order.
__global__ void __launch_bounds__(kNormThreads) normJoin(const double* parts, std::int64_t pieces, Kind kind, float* out) {
  constexpr int run = 4 * kNormThreads;
  __shared__ double stage[run];
  double sum = 0;
  for (std::int64_t from = 0; from < pieces; from += run) {
    const int n = static_cast<int>(pieces - from < run ? pieces - from : run);
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kNormThreads) stage[i] = parts[from + i];
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int i = 0; i < n; ++i) sum = joinNorm(kind, sum, stage[i]);
    }
    __syncthreads();
  }
  // Squares of float32 numbers neither overflow float64 nor vanish in it.
  if (threadIdx.x == 0) *out = static_cast<float>(kind == Kind::kL2 ? std::sqrt(sum) : sum);
}

// Brings the pieces of one tensor beside those of the others.
__global__ void __launch_bounds__(kNormThreads) normGather(const double* from, double* to, std::int64_t n) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kNormThreads + threadIdx.x;
  if (i < n) to[i] = from[i];
}

void checkNorm(const Spec& spec) {
  if (spec.out.size() != 1 || spec.out[0].rank != 0 || spec.out[0].dtype != DType::float32)
    throw Error("PROGRAM", "globalNorm: the output does not fit");
}

class GlobalNorm final : public Kernel {
 public:
  GlobalNorm(const Spec& spec, Kind kind, bool piecesOnly) : kind_(kind), piecesOnly_(piecesOnly) {
    for (const View& v : spec.in) {
      if ((v.dtype != DType::float32 && v.dtype != DType::bfloat16) || !v.contiguous())
        throw Error("PROGRAM", "globalNorm: on a GPU inputs must be contiguous float32 or bfloat16");
      pieces_ += ceilDiv(v.size(), kPiece);
    }
    if (piecesOnly_) {
      const bool fits = spec.out.size() == 1 && spec.out[0].rank == 1 && spec.out[0].dtype == DType::float64 && spec.out[0].contiguous() &&
                        spec.out[0].size() == pieces_;
      if (spec.in.size() != 1 || kind_ != Kind::kL2 || !fits) throw Error("PROGRAM", "globalNorm: the pieces do not fit");
      return;
    }
    checkNorm(spec);
    workspace = static_cast<std::size_t>(pieces_) * sizeof(double);
  }

  void run(const Call& call) const override {
    double* parts = piecesOnly_ ? call.out[0].as<double>() : reinterpret_cast<double*>(call.workspace);
    std::int64_t before = 0;
    NormTable table{};
    const auto flush = [&] {
      STEEPEST_LAUNCH(normPieces, dim3(blocksFor(table.pieces, kWarps)), dim3(kNormThreads), 0, call, table, kind_, parts + before);
      before += table.pieces;
      table.count = table.pieces = 0;
    };
    for (const View& v : call.in) {
      if (v.size() == 0) continue;
      table.part[table.count++] = {v.data, v.size(), table.pieces, v.dtype == DType::bfloat16};
      table.pieces += static_cast<int>(ceilDiv(v.size(), kPiece));
      if (table.count == NormTable::kCapacity) flush();
    }
    flush();
    if (piecesOnly_) return;
    STEEPEST_LAUNCH(normJoin, dim3(1), dim3(kNormThreads), 0, call, parts, pieces_, kind_, call.out[0].as<float>());
  }

 private:
  Kind kind_;
  bool piecesOnly_;
  std::int64_t pieces_ = 0;
};

class NormOfPieces final : public Kernel {
 public:
  explicit NormOfPieces(const Spec& spec) {
    for (const View& v : spec.in) {
      if (v.dtype != DType::float64 || v.rank != 1 || !v.contiguous())
        throw Error("PROGRAM", "globalNorm: pieces must be contiguous float64 of one axis");
      pieces_ += v.size();
    }
    checkNorm(spec);
    workspace = static_cast<std::size_t>(pieces_) * sizeof(double);
  }

  void run(const Call& call) const override {
    double* parts = reinterpret_cast<double*>(call.workspace);
    std::int64_t before = 0;
    for (const View& v : call.in) {
      const std::int64_t n = v.size();
      STEEPEST_LAUNCH(normGather, dim3(blocksFor(n, kNormThreads)), dim3(kNormThreads), 0, call, v.as<const double>(), parts + before, n);
      before += n;
    }
    STEEPEST_LAUNCH(normJoin, dim3(1), dim3(kNormThreads), 0, call, parts, pieces_, Kind::kL2, call.out[0].as<float>());
  }

 private:
  std::int64_t pieces_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeGlobalNorm(const Spec& spec) {
  const GlobalNormAttrs attrs = GlobalNormAttrs::decode(spec.attrs);
  if (attrs.stage == Stage::kJoin) return std::make_unique<NormOfPieces>(spec);
  return std::make_unique<GlobalNorm>(spec, attrs.kind, attrs.stage == Stage::kPieces);
}

}  // namespace steepest::cuda
