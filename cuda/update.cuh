// Kernels of the update rules. One launch moves all parameters of an instruction: a table of them travels by value, a block finds its
// parameter by its number. A warp moves 256 neighbours at a time (a block of the eight-bit states), eight numbers a lane.
#pragma once

#include "cpu/update_operands.h"
#include "cuda/pack.cuh"
#include "cuda/quantize.cuh"

namespace steepest::cuda {

constexpr int kUpdateThreads = 256;

constexpr std::int64_t kWarpRun = 256, kBlockRun = kUpdateThreads / 32 * kWarpRun;
// As on the CPU: these are part of the bits of sums.
constexpr std::int64_t kSegment = 32768, kPiece = 256;
// Pieces of sums that a block takes.
constexpr int kTilePieces = 128;

template <int Slots>
struct UpdatePart {
  static constexpr int kSlots = Slots;
  static constexpr int kArrays = Slots > 0 ? Slots : 1;
  const void* p;
  void* pOut;
  const void* g;
  const std::uint8_t* low;
  std::uint8_t* lowOut;
  const void* s[kArrays];
  void* sOut[kArrays];
  const float* units[kArrays];
  float* unitsOut[kArrays];
  std::int64_t size, cols, rows;
  std::int64_t numbers;  // where its sums and factors begin
  double lrScale;
  int rank;
  std::uint32_t site;
  unsigned firstTile, firstSum;  // blocks of the parameters before it, in the kernels that move and in those that sum
  bool wide;                     // all its arrays are aligned
};

// Kernel arguments may take 32,764 bytes.
template <class Part>
struct UpdateTable {
  static constexpr int kCapacity = static_cast<int>(27000 / sizeof(Part));
  int count;
  Part part[kCapacity];
};

// What all parameters share.
struct UpdateStep {
  const double* args;
  const void* scale;
  const std::int32_t* key;
  const int* fault;
  double* numbers;
  std::int64_t tile;
  Storage storage;
  bool wideScale, narrowGrad;
};

struct QuantTables {
  QuantTable either, positive;
};
struct NoTables {};

__device__ inline double updateScale(const UpdateStep& u) {
  if (!u.scale) return 1;
  return u.wideScale ? *static_cast<const double*>(u.scale) : static_cast<double>(*static_cast<const float*>(u.scale));
}

template <class Table>
__device__ inline int partOf(const Table& table, unsigned tile, unsigned std::remove_cvref_t<decltype(table.part[0])>::* first) {
  int low = 0, high = table.count - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (table.part[middle].*first <= tile)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

// Numbers of a lane: four from i, and four from i + 128.
template <int Slots>
struct UpdateLane {
  float p[8], g[8], s[8][Slots + 1];
  int count[2];

  __device__ void read(const UpdatePart<Slots>& part, const UpdateStep& u, std::int64_t i, float scale, bool moved, const QuantTables* maps,
                       const QuantLookup* look, std::uint32_t positive) {
    const bool narrow = u.storage != Storage::plain;
    uint4 rawP[2], rawG[2], rawS[Slots + 1][2];
    std::uint32_t low[2][2] = {};
    for (int c = 0; c < 2; ++c) {
      const std::int64_t at = i + 128 * c, left = part.size - at;
      count[c] = left >= 4 ? 4 : left > 0 ? static_cast<int>(left) : 0;
      rawP[c] = fetch4(part.p, narrow, at, count[c], part.wide);
      rawG[c] = fetch4(part.g, u.narrowGrad, at, count[c], part.wide);
      if (u.storage == Storage::master) {
        low[0][c] = fetchBytes(part.low, at, count[c], part.wide);
        low[1][c] = fetchBytes(part.low + part.size, at, count[c], part.wide && part.size % 4 == 0);
      }
#pragma unroll
      for (int k = 0; k < Slots; ++k) {
        if (maps)
          rawS[k][c].x = fetchBytes(static_cast<const std::uint8_t*>(part.s[k]), at, count[c], part.wide);
        else
          rawS[k][c] = fetch4(moved ? part.sOut[k] : part.s[k], false, at, count[c], part.wide);
      }
    }
    float unit[Slots + 1];
#pragma unroll
    for (int k = 0; k < Slots; ++k) unit[k] = maps && i / kQuantBlock * kQuantBlock < part.size ? part.units[k][i / kQuantBlock] : 1;
    for (int c = 0; c < 2; ++c) {
      numbers4(rawP[c], narrow, p + 4 * c);
      numbers4(rawG[c], u.narrowGrad, g + 4 * c);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int e = 4 * c + j;
        if (u.storage == Storage::master) {
          const std::uint32_t half = (low[0][c] >> 8 * j & 0xff) | (low[1][c] >> 8 * j & 0xff) << 8;
          p[e] = sameBits<float>(sameBits<std::uint32_t>(p[e]) + static_cast<std::uint32_t>(static_cast<std::int32_t>(half << 16) >> 16));
        }
        g[e] = g[e] * scale;
      }
#pragma unroll
      for (int k = 0; k < Slots; ++k) {
        float x[4];
        if (maps) {
          const float* values = look[positive >> k & 1].values;
          for (int j = 0; j < 4; ++j) x[j] = values[rawS[k][c].x >> 8 * j & 0xff] * unit[k];
        } else {
          numbers4(rawS[k][c], false, x);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) s[4 * c + j][k] = x[j];
      }
    }
  }

  // All lanes of a warp take part.
  __device__ void write(const UpdatePart<Slots>& part, const UpdateStep& u, std::int64_t i, bool states, const QuantTables* maps,
                        const QuantLookup* look, std::uint32_t positive) {
    for (int c = 0; c < 2; ++c) {
      const std::int64_t at = i + 128 * c;
      std::uint32_t bits[4];
      switch (u.storage) {
        case Storage::plain:
          put4(static_cast<float*>(part.pOut), at, count[c], part.wide, p + 4 * c);
          break;
        case Storage::nearest:
          for (int j = 0; j < 4; ++j) bits[j] = narrowBf16(p[4 * c + j]).bits;
          break;
        case Storage::stochastic: {
          const PhiloxKey key{static_cast<std::uint32_t>(u.key[0]), static_cast<std::uint32_t>(u.key[1])};
          const double t = u.args[1];
          const auto step = static_cast<std::uint32_t>(static_cast<std::uint64_t>(t >= 0 && t < 0x1p53 ? t : 0));
          words4(key, static_cast<std::uint64_t>(at), step, part.site, Stream::rounding, bits);
          for (int j = 0; j < 4; ++j) bits[j] = (plainBits(p[4 * c + j]) + (bits[j] >> 16)) >> 16;
          break;
        }
        case Storage::master: {
          std::uint32_t low0 = 0, low1 = 0;
          for (int j = 0; j < 4; ++j) {
            const std::uint32_t x = plainBits(p[4 * c + j]);
            bits[j] = (x + 0x8000u) >> 16;
            low0 |= (x & 0xffu) << 8 * j;
            low1 |= (x >> 8 & 0xffu) << 8 * j;
          }
          putBytes(part.lowOut, at, count[c], part.wide, low0);
          putBytes(part.lowOut + part.size, at, count[c], part.wide && part.size % 4 == 0, low1);
          break;
        }
      }
      if (u.storage != Storage::plain) put4(static_cast<bf16*>(part.pOut), at, count[c], part.wide, bits);
    }
    if (!states) return;
#pragma unroll
    for (int k = 0; k < Slots; ++k) {
      float x[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) x[e] = e % 4 < count[e / 4] ? s[e][k] : 0;
      if (!maps) {
        for (int c = 0; c < 2; ++c) put4(static_cast<float*>(part.sOut[k]), i + 128 * c, count[c], part.wide, x + 4 * c);
        continue;
      }
      const float unit = unitOf(x);
      const bool is = positive >> k & 1;
      const QuantTable& map = is ? maps->positive : maps->either;
      if (i % kQuantBlock == 0 && i < part.size) part.unitsOut[k][i / kQuantBlock] = unit;
      for (int c = 0; c < 2; ++c) {
        std::uint32_t codes = 0;
        for (int j = 0; j < 4; ++j) codes |= static_cast<std::uint32_t>(look[is].encode(map, x[4 * c + j] / unit)) << 8 * j;
        putBytes(static_cast<std::uint8_t*>(part.sOut[k]), i + 128 * c, count[c], part.wide, codes);
      }
    }
  }
};

// Moves weights by `step`, or by `apply` with the factors of their rows.
template <class Rule, bool Blockwise>
__global__ void __launch_bounds__(kUpdateThreads, 2)
    updateMove(__grid_constant__ const UpdateTable<UpdatePart<slotsOf<Rule>()>> table, const typename Rule::Hyper hyper, const UpdateStep u,
               __grid_constant__ const std::conditional_t<Blockwise, QuantTables, NoTables> tables) {
  if (*u.fault) return;
  constexpr int slots = slotsOf<Rule>();
  constexpr std::uint32_t positive = positiveOf<Rule>();
  using Part = UpdatePart<slots>;
  using Coef = typename Rule::template Coef<float>;
  const int thread = static_cast<int>(threadIdx.x);
  const Part& part = table.part[partOf(table, blockIdx.x, &Part::firstTile)];
  __shared__ Coef shared;
  if (thread == 0) shared = Rule::template prepare<float>(hyper, u.args[0] * part.lrScale, u.args[1]);
  const QuantTables* maps = nullptr;
  const QuantLookup* look = nullptr;
  if constexpr (Blockwise) {
    __shared__ QuantLookup lookups[2];
    lookups[0].fill(tables.either, thread, kUpdateThreads);
    lookups[1].fill(tables.positive, thread, kUpdateThreads);
    maps = &tables, look = lookups;
  }
  __syncthreads();
  const Coef coef = shared;
  const float scale = static_cast<float>(updateScale(u));
  const std::int64_t begin = (blockIdx.x - part.firstTile) * u.tile;
  const std::int64_t end = begin + u.tile < part.size ? begin + u.tile : part.size;
  for (std::int64_t at = begin + thread / 32 * kWarpRun; at < end; at += kBlockRun) {
    const std::int64_t i = at + thread % 32 * 4;
    UpdateLane<slots> lane;
    if constexpr (TwoPhase<Rule>) {
      constexpr bool leaves = reduceLeaves<Rule, float, float>;
      lane.read(part, u, i, scale, !leaves, maps, look, positive);
      const double* factors = u.numbers + part.numbers + part.rows * ((part.cols + kSegment - 1) / kSegment + 1) * Rule::kSums;
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        if (e % 4 >= lane.count[e / 4]) continue;
        const std::int64_t place = i + e / 4 * 128 + e % 4;
        const std::int64_t row = part.rows == 1            ? 0
                                 : part.size < (1ll << 32) ? static_cast<std::uint32_t>(place) / static_cast<std::uint32_t>(part.cols)
                                                           : place / part.cols;
        if constexpr (Blockwise) {
          float ignored[Rule::kSums] = {};
          Rule::reduce(lane.p[e], lane.g[e], lane.s[e], coef, ignored);
        }
        float factor[Rule::kFactors];
        for (int k = 0; k < Rule::kFactors; ++k) factor[k] = static_cast<float>(factors[row * Rule::kFactors + k]);
        Rule::apply(lane.p[e], lane.g[e], lane.s[e], coef, factor);
      }
      lane.write(part, u, i, Blockwise || !applyLeaves<Rule, float, float>, maps, look, positive);
    } else {
      lane.read(part, u, i, scale, false, maps, look, positive);
#pragma unroll
      for (int e = 0; e < 8; ++e) Rule::step(lane.p[e], lane.g[e], lane.s[e], coef);
      lane.write(part, u, i, true, maps, look, positive);
    }
  }
}

// How the sums of a parameter's rows are cut: a row into segments, a segment into pieces; four lanes take a piece as the sixteen lanes of
// a vector on the CPU.
struct SumCut {
  std::int64_t segments;  // of a row
  int pieces, perTile;    // of a segment, and segments that a block takes
};
STEEPEST_HD inline SumCut sumCut(std::int64_t cols) {
  const std::int64_t longest = cols < kSegment ? cols : kSegment;
  const int pieces = longest > kPiece ? static_cast<int>((longest + kPiece - 1) / kPiece) : 1;
  return {(cols + kSegment - 1) / kSegment, pieces, kTilePieces / pieces};
}

// One number of a parameter, and its states, as the rule's `reduce` sees them.
template <class Rule, bool Blockwise>
__device__ inline void reduceOne(const UpdatePart<slotsOf<Rule>()>& part, const UpdateStep& u, std::int64_t i, float scale, float p,
                                 float g, const typename Rule::template Coef<float>& coef, const QuantLookup* look, float* sums) {
  constexpr int slots = slotsOf<Rule>();
  constexpr bool leaves = reduceLeaves<Rule, float, float>;
  if (u.storage == Storage::master) {
    const std::uint32_t half = part.low[i] | static_cast<std::uint32_t>(part.low[part.size + i]) << 8;
    p = sameBits<float>(sameBits<std::uint32_t>(p) + static_cast<std::uint32_t>(static_cast<std::int32_t>(half << 16) >> 16));
  }
  float s[slots + 1];
  if constexpr (!leaves) {
#pragma unroll
    for (int k = 0; k < slots; ++k) {
      if constexpr (Blockwise)
        s[k] = look[positiveOf<Rule>() >> k & 1].values[static_cast<const std::uint8_t*>(part.s[k])[i]] * part.units[k][i / kQuantBlock];
      else
        s[k] = static_cast<const float*>(part.s[k])[i];
    }
  }
  Rule::reduce(p, g * scale, s, coef, sums);
  if constexpr (!leaves && !Blockwise) {
#pragma unroll
    for (int k = 0; k < slots; ++k) static_cast<float*>(part.sOut[k])[i] = s[k];
  }
}

template <class Rule, bool Blockwise>
__global__ void __launch_bounds__(kUpdateThreads, 2)
    updateReduce(__grid_constant__ const UpdateTable<UpdatePart<slotsOf<Rule>()>> table, const typename Rule::Hyper hyper,
                 const UpdateStep u, __grid_constant__ const std::conditional_t<Blockwise, QuantTables, NoTables> tables) {
  if (*u.fault) return;
  constexpr int sums = Rule::kSums, quads = kUpdateThreads / 4;
  using Part = UpdatePart<slotsOf<Rule>()>;
  using Coef = typename Rule::template Coef<float>;
  const int thread = static_cast<int>(threadIdx.x), quad = thread / 4, q = thread % 4;
  const Part& part = table.part[partOf(table, blockIdx.x, &Part::firstSum)];
  __shared__ Coef shared;
  __shared__ double found[kTilePieces][sums], tails[kTilePieces][sums];
  if (thread == 0) shared = Rule::template prepare<float>(hyper, u.args[0] * part.lrScale, u.args[1]);
  const QuantLookup* look = nullptr;
  if constexpr (Blockwise) {
    __shared__ QuantLookup lookups[2];
    for (int i = thread; i < 256; i += kUpdateThreads)
      lookups[0].values[i] = tables.either.values[i], lookups[1].values[i] = tables.positive.values[i];
    look = lookups;
  }
  __syncthreads();
  const Coef coef = shared;
  const float scale = static_cast<float>(updateScale(u));
  const SumCut cut = sumCut(part.cols);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x - part.firstSum) * cut.perTile, all = part.rows * cut.segments;
  const int units = static_cast<int>(all - first < cut.perTile ? all - first : cut.perTile), pieces = units * cut.pieces;
  const bool narrow = u.storage != Storage::plain;
  for (int from = 0; from < pieces; from += quads) {
    const int piece = from + quad, unit = piece / cut.pieces, within = piece % cut.pieces;
    float lanes[4][sums] = {};
    if (piece < pieces) {
      const std::int64_t row = (first + unit) / cut.segments, before = (first + unit) % cut.segments * kSegment;
      const std::int64_t begin = row * part.cols + before;
      const std::int64_t left = part.cols - before, n = left < kSegment ? left : kSegment;
      const std::int64_t stop = n / 16 * 16 < (within + 1) * kPiece ? n / 16 * 16 : (within + 1) * kPiece;
      const bool wide = part.wide && begin % 4 == 0;
      for (std::int64_t v = within * kPiece; v < stop; v += 16) {
        const std::int64_t i = begin + v + 4 * q;
        float p[4], g[4];
        const uint4 rawP = fetch4(part.p, narrow, i, 4, wide), rawG = fetch4(part.g, u.narrowGrad, i, 4, wide);
        numbers4(rawP, narrow, p);
        numbers4(rawG, u.narrowGrad, g);
#pragma unroll
        for (int l = 0; l < 4; ++l) reduceOne<Rule, Blockwise>(part, u, i + l, scale, p[l], g[l], coef, look, lanes[l]);
      }
      if (q == 0 && within == cut.pieces - 1) {
        float last[sums] = {};
        for (std::int64_t i = begin + n / 16 * 16; i < begin + n; ++i) {
          float p[4], g[4];
          numbers4(fetch4(part.p, narrow, i, 1, false), narrow, p);
          numbers4(fetch4(part.g, u.narrowGrad, i, 1, false), u.narrowGrad, g);
          reduceOne<Rule, Blockwise>(part, u, i, scale, p[0], g[0], coef, look, last);
        }
        for (int k = 0; k < sums; ++k) tails[unit][k] = static_cast<double>(last[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < sums; ++k) {
      double d[4];
#pragma unroll
      for (int l = 0; l < 4; ++l) {
        d[l] = static_cast<double>(lanes[l][k]);
        d[l] += __shfl_xor_sync(0xffffffffu, d[l], 2);
        d[l] += __shfl_xor_sync(0xffffffffu, d[l], 1);
      }
      if (q == 0 && piece < pieces) found[piece][k] = (d[0] + d[2]) + (d[1] + d[3]);
    }
  }
  __syncthreads();
  for (int at = thread; at < units * sums; at += kUpdateThreads) {
    const int unit = at / sums, k = at % sums;
    double sum = 0;
    for (int i = 0; i < cut.pieces; ++i) sum += found[unit * cut.pieces + i][k];
    u.numbers[part.numbers + (first + unit) * sums + k] = sum + tails[unit][k];
  }
}

// One block a parameter: sums of its rows from those of their segments, and the rule's factors.
template <class Rule>
__global__ void updateFinish(__grid_constant__ const UpdateTable<UpdatePart<slotsOf<Rule>()>> table, const typename Rule::Hyper hyper,
                             const UpdateStep u) {
  if (*u.fault) return;
  constexpr int sums = Rule::kSums;
  const auto& part = table.part[blockIdx.x];
  const std::int64_t segments = (part.cols + kSegment - 1) / kSegment;
  const double* from = u.numbers + part.numbers;
  double* to = u.numbers + part.numbers + part.rows * segments * sums;
  for (std::int64_t at = threadIdx.x; at < part.rows * sums; at += blockDim.x) {
    double sum = 0;
    for (std::int64_t s = 0; s < segments; ++s) sum += from[(at / sums * segments + s) * sums + at % sums];
    to[at] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    Rule::finish(hyper, rules::RuleShape{part.rows, part.cols, part.rank}, u.args[0] * part.lrScale, u.args[1], to, to + part.rows * sums);
}

// Sets the fault where a gradient, or what it is multiplied by, is not finite.
struct FinitePart {
  const void* g;
  std::int64_t size;
  unsigned firstTile;
  bool wide;
};
__global__ void __launch_bounds__(kUpdateThreads, 2)
    updateFinite(__grid_constant__ const UpdateTable<FinitePart> table, const UpdateStep u, int* fault) {
  if (*u.fault) return;
  const int thread = static_cast<int>(threadIdx.x);
  const FinitePart& part = table.part[partOf(table, blockIdx.x, &FinitePart::firstTile)];
  const std::int64_t begin = (blockIdx.x - part.firstTile) * u.tile;
  const std::int64_t end = begin + u.tile < part.size ? begin + u.tile : part.size;
  float bad = static_cast<float>(updateScale(u) * 0);
  for (std::int64_t i = begin + 4 * thread; i < end; i += 4 * kUpdateThreads) {
    float g[4];
    const int count = part.size - i >= 4 ? 4 : static_cast<int>(part.size - i);
    numbers4(fetch4(part.g, u.narrowGrad, i, count, part.wide), u.narrowGrad, g);
#pragma unroll
    // A product with 0 is 0, or NaN for what is not finite.
    for (int j = 0; j < 4; ++j) bad = std::fma(g[j], 0.0f, bad);
  }
  if (bad != bad) atomicCAS(fault, 0, 1);
}

}  // namespace steepest::cuda
