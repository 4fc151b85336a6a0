// Attention, forward: a block of query rows walks over tiles of keys with a running maximum, so that no matrix of scores exists
// (Milakov and Gimelshein, 2018; Dao, "FlashAttention-2", 2023).
#include "attrs/attention.gen.h"
#include "cuda/attention.cuh"

namespace steepest::cuda {

namespace {

// Over the threads that share rows of a tile; all of them get the result.
template <class S, class F>
__device__ inline S acrossRow(S x, F join) {
#pragma unroll
  for (int apart = kEdge / 2; apart > 0; apart /= 2) x = join(x, __shfl_xor_sync(kAllLanes, x, apart, kEdge));
  return x;
}

// Blocks of the last rows come first: under a causal mask they are the longest.
template <class S, int Parts>
__global__ void __launch_bounds__(kThreads) attend(const __grid_constant__ AttentionTask a) {
  constexpr int G = kGroup<S>;
  __shared__ __align__(16) S staging[kStaging<S>], weights[kWeights<S>];
  const Sizes& s = a.sizes;
  const Block<S, Parts> at(s, s.heads);
  const int b = at.b, h = at.h, column = at.column, first = ((s.queries + kTile<S> - 1) / kTile<S> - 1 - at.tile) * kTile<S>;
  const HeadRows<S> q(a.q, b, h, s.queries, s.depth), k(a.k, b, h / a.share, s.keys, s.depth), v(a.v, b, h / a.share, s.keys, s.depth);
  const Scores<S> scores{a, b, h};
  const int row = first + tileRow<S>();
  Tile<S> sums[Parts];
  clear(sums);
  S top[G], total[G];
#pragma unroll
  for (int i = 0; i < G; ++i) top[i] = -std::numeric_limits<S>::infinity(), total[i] = 0;
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
    Tile<S> x;
    dots(x, q, first, k, from, staging);
#pragma unroll
    for (int i = 0; i < G; ++i) {
      S most = top[i];
#pragma unroll
      for (int j = 0; j < G; ++j) {
        if (!(seen >> (i * G + j) & 1u)) continue;
        S slope;
        x.v[i][j] = scores.score(x.v[i][j], row + i, key + j, slope);
        most = x.v[i][j] > most ? x.v[i][j] : most;
      }
      // A number that is none does not become the maximum; it goes on into the sum.
      most = acrossRow(most, [](S p, S o) { return o > p ? o : p; });
      const S peak = most == -std::numeric_limits<S>::infinity() ? S(0) : most, shrink = expOf(top[i] - peak);
      top[i] = most;
      S part = 0;
#pragma unroll
      for (int j = 0; j < G; ++j) {
        const bool here = seen >> (i * G + j) & 1u;
        const S p = here ? expOf(x.v[i][j] - peak) : S(0);
        part += p;
        x.v[i][j] = here ? p * scores.factor(row + i, key + j) : S(0);
      }
      total[i] = total[i] * shrink + acrossRow(part, Sum());
#pragma unroll
      for (int c = 0; c < Parts; ++c) {
#pragma unroll
        for (int j = 0; j < G; ++j) sums[c].v[i][j] *= shrink;
      }
    }
    keep(weights, x);
    mix(sums, weights, v, from, column, staging);
  }
  give(sums, HeadRows<S>(a.out, b, h, s.queries, s.depth), first, column, [&](int i) { return total[i] == 0 ? S(0) : S(1) / total[i]; });
  if (column != 0 || tileColumn<S>() != 0) return;
#pragma unroll
  for (int i = 0; i < G; ++i) {
    if (row + i >= s.queries) continue;
    static_cast<S*>(a.lse)[(std::int64_t{b} * s.heads + h) * s.queries + row + i] =
        total[i] == 0 ? -std::numeric_limits<S>::infinity() : top[i] + log(VecOf<S>(total[i])).v;
  }
}

class Attention final : public Kernel {
 public:
  explicit Attention(const Spec& spec)
      : options_(AttentionOptions::of(AttentionAttrs::decode(spec.attrs))), shape_(checkAttentionForward(spec, options_)) {}

  void run(const Call& call) const override {
    AttentionTask a(shape_, options_);
    a.take(call.in, 3, options_);
    a.out = Strided(call.out[0]);
    a.lse = call.out[1].data;
    byDepth(shape_, [&](auto zero, auto parts) {
      using S = decltype(zero);
      const std::int64_t blocks = Block<S, parts.value>::count(shape_, shape_.queries, shape_.heads);
      STEEPEST_LAUNCH((attend<S, parts.value>), blocksFor(blocks, 1), kThreads, 0, call, a);
    });
  }

 private:
  AttentionOptions options_;
  AttentionShape shape_;
};

// The factors of dropout as a tensor [batch, heads, queries, keys]: the definition of attention in primitive ops needs them.
template <class T>
__global__ void __launch_bounds__(kThreads) factors(const __grid_constant__ AttentionTask a, T* out) {
  const Sizes& s = a.sizes;
  const std::int64_t area = std::int64_t{s.queries} * s.keys;
  for (std::int64_t i = threadOf(); i < s.batch * s.heads * area; i += threads()) {
    const int head = static_cast<int>(i / area), t = static_cast<int>(i % area / s.keys), j = static_cast<int>(i % s.keys);
    write(out + i, staysOf(a, head / s.heads, head % s.heads, t, j) ? static_cast<ComputeOf<T>>(a.kept) : ComputeOf<T>(0));
  }
}

class AttentionDropout final : public Kernel {
 public:
  explicit AttentionDropout(const Spec& spec) : attrs_(AttentionDropoutAttrs::decode(spec.attrs)) { checkAttentionDropout(spec, attrs_); }

  void run(const Call& call) const override {
    const View& out = call.out[0];
    AttentionOptions options{};
    options.dropout = true;
    options.rate = attrs_.rate, options.site = attrs_.site, options.examples = attrs_.examples;
    AttentionTask a({out.shape[0], out.shape[2], out.shape[3], out.shape[1], 1, 0, out.dtype}, options);
    a.keys = call.in[0].as<std::int32_t>(), a.eachKey = call.in[0].rank == 2;
    if (attrs_.ids) a.ids = call.in[1].as<std::int32_t>();
    byFloat(out.dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(factors<T>, gridFor(out.size()), kThreads, 0, call, a, out.as<T>());
    });
  }

 private:
  AttentionDropoutAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeAttention(const Spec& spec) { return std::make_unique<Attention>(spec); }
std::unique_ptr<Kernel> makeAttentionDropout(const Spec& spec) { return std::make_unique<AttentionDropout>(spec); }

}  // namespace steepest::cuda
