// Attention, backward: the weights are computed again from the kept log-sum-exp (Dao, "FlashAttention-2", 2023). One kernel owns query rows
// and makes dq, one owns key rows and makes dk and dv, so that every sum has one order and no float is added by an atomic.
#include "attrs/attentionBackward.gen.h"
#include "attrs/attentionBiasBackward.gen.h"
#include "cuda/attention.cuh"

namespace steepest::cuda {

namespace {

// Σ out·dout of a row, which is Σ over the keys of weight · gradient of the weight. A warp takes a row.
template <class S>
__global__ void __launch_bounds__(kThreads) deltas(const __grid_constant__ AttentionTask a) {
  const Sizes& s = a.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t rows = std::int64_t{s.batch} * s.heads * s.queries;
  for (std::int64_t r = threadOf() / kWarp; r < rows; r += threads() / kWarp) {
    const int t = static_cast<int>(r % s.queries), head = static_cast<int>(r / s.queries), h = head % s.heads, b = head / s.heads;
    const HeadRows<S> out(a.out, b, h, s.queries, s.depth), dout(a.dout, b, h, s.queries, s.depth);
    S total = 0;
    for (int d = lane * kGroup<S>; d < s.depth; d += kWarp * kGroup<S>) {
      const Group<S> x = out.at(t, d), y = dout.at(t, d);
#pragma unroll
      for (int j = 0; j < kGroup<S>; ++j) total = std::fma(x.v[j], y.v[j], total);
    }
    total = warpSum(total);
    if (lane == 0) static_cast<S*>(a.delta)[r] = total;
  }
}

// Log-sum-exp and Σ out·dout of a query. A row that sees nothing has weights of exp(score - ∞) = 0.
template <class S>
__device__ inline void rowValues(const AttentionTask& a, int b, int h, int t, S& shift, S& less) {
  shift = std::numeric_limits<S>::infinity(), less = 0;
  if (t >= a.sizes.queries) return;
  const std::int64_t at = (std::int64_t{b} * a.sizes.heads + h) * a.sizes.queries + t;
  const S lse = static_cast<const S*>(a.lse)[at];
  if (lse != -std::numeric_limits<S>::infinity()) shift = lse;
  less = static_cast<const S*>(a.delta)[at];
}

// A product of query and key becomes what multiplied the values, and the gradient of that the gradient of the score: of the product of
// query and key, but for the scale, or (Raw) of what the bias was added to.
template <class S, bool Raw>
__device__ inline void differentiate(const Scores<S>& scores, bool seen, int t, int j, S shift, S less, S& product, S& gradient) {
  if (!seen) {
    product = gradient = 0;
    return;
  }
  S slope;
  const S p = expOf(scores.score(product, t, j, slope) - shift), m = scores.factor(t, j);
  const S ds = p * (m * gradient - less);
  product = p * m;
  gradient = Raw ? ds : ds * slope;
}

template <class S, int Parts>
__global__ void __launch_bounds__(kThreads) queryGradients(const __grid_constant__ AttentionTask a) {
  constexpr int G = kGroup<S>;
  __shared__ __align__(16) S staging[kStaging<S>], weights[kWeights<S>];
  const Sizes& s = a.sizes;
  const Block<S, Parts> at(s, s.heads);
  const int b = at.b, h = at.h, column = at.column, first = ((s.queries + kTile<S> - 1) / kTile<S> - 1 - at.tile) * kTile<S>;
  const HeadRows<S> q(a.q, b, h, s.queries, s.depth), k(a.k, b, h / a.share, s.keys, s.depth), v(a.v, b, h / a.share, s.keys, s.depth),
      dout(a.dout, b, h, s.queries, s.depth);
  const Scores<S> scores{a, b, h};
  const int row = first + tileRow<S>();
  Tile<S> sums[Parts];
  clear(sums);
  const Span keys = keysOf<S>(a, first);
  for (int from = keys.begin; from < keys.end; from += kTile<S>) {
    const int key = from + tileColumn<S>();
    unsigned seen = 0;
#pragma unroll
    for (int i = 0; i < G; ++i) {
#pragma unroll
      for (int j = 0; j < G; ++j) seen |= scores.sees(row + i, key + j) ? 1u << (i * G + j) : 0u;
    }
    if (!__syncthreads_or(seen != 0)) continue;
    Tile<S> p, ds;
    dots(p, q, first, k, from, staging);
    dots(ds, dout, first, v, from, staging);
#pragma unroll
    for (int i = 0; i < G; ++i) {
      S shift, less;
      rowValues(a, b, h, row + i, shift, less);
#pragma unroll
      for (int j = 0; j < G; ++j)
        differentiate<S, false>(scores, seen >> (i * G + j) & 1u, row + i, key + j, shift, less, p.v[i][j], ds.v[i][j]);
    }
    keep(weights, ds);
    mix(sums, weights, k, from, column, staging);
  }
  give(sums, HeadRows<S>(a.dq, b, h, s.queries, s.depth), first, column, [&](int) { return static_cast<S>(a.scale); });
}

// Rows of tiles are keys here, and columns queries, of all heads that share these keys.
template <class S, int Parts>
__global__ void __launch_bounds__(kThreads) keyGradients(const __grid_constant__ AttentionTask a) {
  constexpr int G = kGroup<S>;
  __shared__ __align__(16) S staging[kStaging<S>], weights[kWeights<S>];
  const Sizes& s = a.sizes;
  const Block<S, Parts> at(s, s.keyHeads);
  const int b = at.b, group = at.h, column = at.column, first = at.tile * kTile<S>;
  const HeadRows<S> k(a.k, b, group, s.keys, s.depth), v(a.v, b, group, s.keys, s.depth);
  const int key = first + tileRow<S>();
  Tile<S> forKeys[Parts], forValues[Parts];
  clear(forKeys);
  clear(forValues);
  const Span queries = queriesOf<S>(a, first);
  for (int h = group * a.share; h < (group + 1) * a.share; ++h) {
    const HeadRows<S> q(a.q, b, h, s.queries, s.depth), dout(a.dout, b, h, s.queries, s.depth);
    const Scores<S> scores{a, b, h};
    for (int from = queries.begin; from < queries.end; from += kTile<S>) {
      const int row = from + tileColumn<S>();
      unsigned seen = 0;
#pragma unroll
      for (int i = 0; i < G; ++i) {
#pragma unroll
        for (int j = 0; j < G; ++j) seen |= scores.sees(row + j, key + i) ? 1u << (i * G + j) : 0u;
      }
      if (!__syncthreads_or(seen != 0)) continue;
      Tile<S> p, ds;
      dots(p, k, first, q, from, staging);
      dots(ds, v, first, dout, from, staging);
#pragma unroll
      for (int j = 0; j < G; ++j) {
        S shift, less;
        rowValues(a, b, h, row + j, shift, less);
#pragma unroll
        for (int i = 0; i < G; ++i)
          differentiate<S, false>(scores, seen >> (i * G + j) & 1u, row + j, key + i, shift, less, p.v[i][j], ds.v[i][j]);
      }
      keep(weights, p);
      mix(forValues, weights, dout, from, column, staging);
      __syncthreads();
      keep(weights, ds);
      mix(forKeys, weights, q, from, column, staging);
    }
  }
  give(forKeys, HeadRows<S>(a.dk, b, group, s.keys, s.depth), first, column, [&](int) { return static_cast<S>(a.scale); });
  give(forValues, HeadRows<S>(a.dv, b, group, s.keys, s.depth), first, column, [](int) { return S(1); });
}

// A tile of the bias's gradient, over the examples and heads that share it.
template <class S>
__global__ void __launch_bounds__(kThreads) biasGradients(const __grid_constant__ AttentionTask a) {
  constexpr int G = kGroup<S>;
  __shared__ __align__(16) S staging[kStaging<S>];
  const Sizes& s = a.sizes;
  const int across = (s.keys + kTile<S> - 1) / kTile<S>, down = (s.queries + kTile<S> - 1) / kTile<S>;
  unsigned at = blockIdx.x;
  const int from = static_cast<int>(at % across) * kTile<S>;
  at /= across;
  const int first = static_cast<int>(at % down) * kTile<S>;
  at /= down;
  const int head = static_cast<int>(at % a.dbiasHeads), example = static_cast<int>(at / a.dbiasHeads);
  const int lastB = a.dbiasBatch == 1 ? s.batch : example + 1, lastH = a.dbiasHeads == 1 ? s.heads : head + 1;
  const int row = first + tileRow<S>(), key = from + tileColumn<S>();
  Tile<S> sums[1];
  clear(sums);
  for (int b = example; b < lastB; ++b) {
    for (int h = head; h < lastH; ++h) {
      const Scores<S> scores{a, b, h};
      unsigned seen = 0;
#pragma unroll
      for (int i = 0; i < G; ++i) {
#pragma unroll
        for (int j = 0; j < G; ++j) seen |= scores.sees(row + i, key + j) ? 1u << (i * G + j) : 0u;
      }
      if (!__syncthreads_or(seen != 0)) continue;
      const HeadRows<S> q(a.q, b, h, s.queries, s.depth), k(a.k, b, h / a.share, s.keys, s.depth), v(a.v, b, h / a.share, s.keys, s.depth),
          dout(a.dout, b, h, s.queries, s.depth);
      Tile<S> p, ds;
      dots(p, q, first, k, from, staging);
      dots(ds, dout, first, v, from, staging);
#pragma unroll
      for (int i = 0; i < G; ++i) {
        S shift, less;
        rowValues(a, b, h, row + i, shift, less);
#pragma unroll
        for (int j = 0; j < G; ++j) {
          differentiate<S, true>(scores, seen >> (i * G + j) & 1u, row + i, key + j, shift, less, p.v[i][j], ds.v[i][j]);
          sums[0].v[i][j] += ds.v[i][j];
        }
      }
    }
  }
  Strided out;
  out.data = a.dbias, out.narrow = a.biasNarrow;
  out.row = s.keys, out.column = 1;
  out.head = std::int64_t{s.queries} * s.keys, out.batch = a.dbiasHeads * out.head;
  give(sums, HeadRows<S>(out, example, head, s.queries, s.keys), first, from, [](int) { return S(1); });
}

// What both kernels of this file begin with.
class Gradient : public Kernel {
 protected:
  Gradient(const AttentionOptions& options, const AttentionShape& shape) : options_(options), shape_(shape) {
    workspace = static_cast<std::size_t>(shape.batch * shape.heads * shape.queries) * sizeOf(statistics(shape.type));
  }
  AttentionTask begin(const Call& call) const {
    AttentionTask a(shape_, options_);
    a.take(call.in, kGradientOperands, options_);
    a.out = Strided(call.in[3]), a.dout = Strided(call.in[5]);
    a.lse = call.in[4].data, a.delta = call.workspace;
    const std::int64_t rows = shape_.batch * shape_.heads * shape_.queries;
    if (shape_.type == DType::float64)
      STEEPEST_LAUNCH(deltas<double>, gridFor(rows, kThreads / kWarp), kThreads, 0, call, a);
    else
      STEEPEST_LAUNCH(deltas<float>, gridFor(rows, kThreads / kWarp), kThreads, 0, call, a);
    return a;
  }

  AttentionOptions options_;
  AttentionShape shape_;
};

// Outputs dq, dk, dv.
class AttentionBackward final : public Gradient {
 public:
  AttentionBackward(const Spec& spec, const AttentionOptions& options) : Gradient(options, checkAttentionBackward(spec, options)) {}

  void run(const Call& call) const override {
    if (shape_.depth == 0) return;
    AttentionTask a = begin(call);
    a.dq = Strided(call.out[0]), a.dk = Strided(call.out[1]), a.dv = Strided(call.out[2]);
    byDepth(shape_, [&](auto zero, auto parts) {
      using S = decltype(zero);
      const auto blocks = [&](std::int64_t rows, std::int64_t heads) {
        return blocksFor(Block<S, parts.value>::count(shape_, rows, heads), 1);
      };
      STEEPEST_LAUNCH((queryGradients<S, parts.value>), blocks(shape_.queries, shape_.heads), kThreads, 0, call, a);
      STEEPEST_LAUNCH((keyGradients<S, parts.value>), blocks(shape_.keys, shape_.keyHeads), kThreads, 0, call, a);
    });
  }
};

class AttentionBiasBackward final : public Gradient {
 public:
  AttentionBiasBackward(const Spec& spec, const AttentionOptions& options) : Gradient(options, checkAttentionBiasBackward(spec, options)) {}

  void run(const Call& call) const override {
    AttentionTask a = begin(call);
    const View& out = call.out[0];
    a.dbias = out.data, a.dbiasBatch = static_cast<int>(out.shape[0]), a.dbiasHeads = static_cast<int>(out.shape[1]);
    const auto launch = [&]<class S>(S) {
      const std::int64_t tiles = ceilDiv<std::int64_t>(shape_.queries, kTile<S>) * ceilDiv<std::int64_t>(shape_.keys, kTile<S>);
      STEEPEST_LAUNCH(biasGradients<S>, blocksFor(out.shape[0] * out.shape[1] * tiles, 1), kThreads, 0, call, a);
    };
    if (shape_.type == DType::float64)
      launch(double{});
    else
      launch(float{});
  }
};

}  // namespace

std::unique_ptr<Kernel> makeAttentionBackward(const Spec& spec) {
  return std::make_unique<AttentionBackward>(spec, AttentionOptions::of(AttentionBackwardAttrs::decode(spec.attrs)));
}
std::unique_ptr<Kernel> makeAttentionBiasBackward(const Spec& spec) {
  return std::make_unique<AttentionBiasBackward>(spec, AttentionOptions::of(AttentionBiasBackwardAttrs::decode(spec.attrs)));
}

}  // namespace steepest::cuda
