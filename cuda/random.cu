// Keys, draws, dropout and draws from categorical distributions: the numbers of the CPU, bit for bit.
#include "attrs/categorical.gen.h"
#include "attrs/dropout.gen.h"
#include "attrs/foldKey.gen.h"
#include "attrs/random.gen.h"
#include "attrs/splitKey.gen.h"
#include "cpu/random_checks.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

namespace {

using Kind = RandomAttrs::Kind;

struct Keys {
  const std::int32_t *words, *ids;
  std::int64_t examples, batch, size;  // elements of an example
  std::uint32_t site;

  __device__ PhiloxKey key(std::int64_t example) const {
    const std::int64_t k = example / batch;
    return {static_cast<std::uint32_t>(words[2 * k]), static_cast<std::uint32_t>(words[2 * k + 1])};
  }
  __device__ std::uint32_t id(std::int64_t example) const { return ids ? static_cast<std::uint32_t>(ids[example]) : 0u; }
};

Keys keysOf(const Draws& d, const View& key, const View* ids, std::uint32_t site) {
  return {key.as<std::int32_t>(), d.ids ? ids->as<std::int32_t>() : nullptr, d.examples(), d.batch, d.size, site};
}

// The four words of block `lane` of a group, as lanes.
__device__ inline void blockOf(const Keys& k, std::int64_t example, std::int64_t group, int lane, Stream stream, vi (&w)[4]) {
  const PhiloxBlock b =
      philox(k.key(example), static_cast<std::uint64_t>(group) * 16 + static_cast<std::uint64_t>(lane), k.id(example), k.site, stream);
  for (int i = 0; i < 4; ++i) w[i] = static_cast<std::int32_t>(b.w[i]);
}

struct Draw {
  Kind kind;
  double low, span, below;  // uniform
  double mean, std;         // normal
  std::int32_t least;       // integer
  std::uint32_t range;
};

__device__ inline void drawSingle(const Draw& d, const vi (&w)[4], vf (&y)[4]) {
  for (int p = 0; p < 4; ++p) {
    if (d.kind == Kind::kUniform) {
      y[p] = min(fma(toFloat(shr(w[p], 8)) * vf(0x1p-24f), vf(static_cast<float>(d.span)), vf(static_cast<float>(d.low))),
                 vf(static_cast<float>(d.below)));
    } else if (d.kind == Kind::kExponential) {
      y[p] = exponentialOf(w[p]);
    } else if (p % 2 == 0) {
      normalsOf(w[p], w[p + 1], y[p], y[p + 1]);
      y[p] = fma(y[p], vf(static_cast<float>(d.std)), vf(static_cast<float>(d.mean)));
      y[p + 1] = fma(y[p + 1], vf(static_cast<float>(d.std)), vf(static_cast<float>(d.mean)));
    }
  }
}

// Two numbers from the four words of a block.
__device__ inline void drawWide(const Draw& d, const vi (&w)[4], vd (&y)[2]) {
  vd same;
  if (d.kind == Kind::kUniform) {
    for (int p = 0; p < 2; ++p) {
      vd hi, lo;
      unsignedTo(w[2 * p], hi, same);
      unsignedTo(shr(w[2 * p + 1], 11), lo, same);
      y[p] = min(fma(fma(hi, vd(0x1p21), lo) * vd(0x1p-53), vd(d.span), vd(d.low)), vd(d.below));
    }
  } else if (d.kind == Kind::kNormal) {
    vd a[2], b[2];
    normalsOf(w, a, b);
    y[0] = fma(a[0], vd(d.std), vd(d.mean));
    y[1] = fma(b[0], vd(d.std), vd(d.mean));
  } else {
    exponentialOf(w[0], w[1], y[0], same);
    exponentialOf(w[2], w[3], y[1], same);
  }
}

// A thread takes a block: element lane + 16 p of a group of 64 for p in 0..3; of 32 for elements of two words.
template <class T>
__global__ void __launch_bounds__(kThreads) draws(T* out, Keys k, Draw d) {
  constexpr bool kWhole = std::is_same_v<T, std::int32_t>, kWide = std::is_same_v<T, double>;
  const bool two = kWide || (kWhole && d.kind == Kind::kInteger);
  const std::int64_t group = two ? 32 : 64, groups = (k.size + group - 1) / group, blocks = k.examples * groups * 16;
  for (std::int64_t i = threadOf(); i < blocks; i += threads()) {
    const std::int64_t example = i / 16 / groups, g = i / 16 % groups;
    const int lane = static_cast<int>(i % 16);
    const std::int64_t first = g * group + lane;
    if (first >= k.size) continue;
    vi w[4];
    blockOf(k, example, g, lane, Stream::draw, w);
    T* to = out + example * k.size + first;
    const auto put = [&](int p, auto y) {
      if (first + 16 * p < k.size) store(to + 16 * p, y);
    };
    if constexpr (kWide) {
      vd y[2];
      drawWide(d, w, y);
      put(0, y[0]);
      put(1, y[1]);
    } else if constexpr (kWhole) {
      if (two) {
        put(0, belowOf(w[0], w[1], d.range) + vi(d.least));
        put(1, belowOf(w[2], w[3], d.range) + vi(d.least));
      } else {
        for (int p = 0; p < 4; ++p) put(p, w[p]);
      }
    } else {
      vf y[4];
      drawSingle(d, w, y);
      for (int p = 0; p < 4; ++p) put(p, y[p]);
    }
  }
}

class Random final : public Kernel {
 public:
  Random(const Draws& draws, const RandomAttrs& a) : draws_(draws), site_(static_cast<std::uint32_t>(a.site)) {
    d_ = {a.kind, a.a, a.b - a.a, 0, a.a, a.b, 0, 0};
    if (a.kind == Kind::kInteger) {
      d_.least = static_cast<std::int32_t>(a.a);
      d_.range = static_cast<std::uint32_t>(static_cast<std::int64_t>(a.b - a.a));
    }
    if (a.kind != Kind::kUniform) return;
    if (a.dtype == DType::float64)
      d_.below = belowHigh<double>(a.a, a.b);
    else if (a.dtype == DType::bfloat16)
      d_.below = a.b > a.a ? widenBf16(belowHigh<bf16>(a.a, a.b)) : static_cast<float>(a.a);
    else
      d_.below = belowHigh<float>(a.a, a.b);
  }
  void run(const Call& call) const override {
    const Keys k = keysOf(draws_, call.in[0], draws_.ids ? &call.in[1] : nullptr, site_);
    if (k.size == 0) return;
    const auto launch = [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(cuda::draws<T>, gridFor(k.examples * ceilDiv<std::int64_t>(k.size, 32) * 16), kThreads, 0, call, call.out[0].as<T>(),
                      k, d_);
    };
    if (call.out[0].dtype == DType::int32)
      launch(std::int32_t{});
    else
      byFloat(call.out[0].dtype, launch);
  }

 private:
  Draws draws_;
  std::uint32_t site_;
  Draw d_{};
};

template <Stream stream>
__global__ void deriveKeys(const std::int32_t* from, std::int32_t* to, std::int64_t total, std::int64_t each, const std::int32_t* data) {
  for (std::int64_t i = threadOf(); i < total; i += threads()) {
    const std::int64_t k = i / each;
    const PhiloxKey key{static_cast<std::uint32_t>(from[2 * k]), static_cast<std::uint32_t>(from[2 * k + 1])};
    const std::uint64_t block = data ? static_cast<std::uint32_t>(data[i]) : static_cast<std::uint64_t>(i % each);
    const PhiloxBlock made = philox(key, block, 0, 0, stream);
    to[2 * i] = static_cast<std::int32_t>(made.w[0]);
    to[2 * i + 1] = static_cast<std::int32_t>(made.w[1]);
  }
}

void splitKeys(const Call& call, const SplitKeyAttrs& a) {
  const std::int64_t total = call.in[0].size() / 2 * a.count;
  STEEPEST_LAUNCH(deriveKeys<Stream::split>, gridFor(total), kThreads, 0, call, call.in[0].as<std::int32_t>(),
                  call.out[0].as<std::int32_t>(), total, a.count, nullptr);
}
void foldKeys(const Call& call, const FoldKeyAttrs&) {
  const std::int64_t total = call.in[0].size() / 2;
  STEEPEST_LAUNCH(deriveKeys<Stream::fold>, gridFor(total), kThreads, 0, call, call.in[0].as<std::int32_t>(),
                  call.out[0].as<std::int32_t>(), total, std::int64_t{1}, call.in[1].as<std::int32_t>());
}

template <class T>
__global__ void __launch_bounds__(kThreads) dropped(const T* in, T* out, Keys k, std::uint64_t keep, double scale) {
  const std::int64_t groups = (k.size + 63) / 64, blocks = k.examples * groups * 16;
  for (std::int64_t i = threadOf(); i < blocks; i += threads()) {
    const std::int64_t example = i / 16 / groups, g = i / 16 % groups;
    const int lane = static_cast<int>(i % 16);
    const std::int64_t first = g * 64 + lane;
    if (first >= k.size) continue;
    vi w[4];
    blockOf(k, example, g, lane, Stream::dropout, w);
    const std::int64_t at = example * k.size + first;
    for (int p = 0; p < 4 && first + 16 * p < k.size; ++p) {
      const bool kept = static_cast<std::uint32_t>(w[p].v) < keep;
      const auto x = read(in + at + 16 * p);
      write(out + at + 16 * p, kept ? x * static_cast<ComputeOf<T>>(scale) : ComputeOf<T>(0));
    }
  }
}

class Dropout final : public Kernel {
 public:
  Dropout(const Draws& draws, double p, std::uint32_t site)
      : draws_(draws), site_(site), keep_(philoxThreshold(1 - p)), scale_(p < 1 ? 1 / (1 - p) : 0) {}
  void run(const Call& call) const override {
    const Keys k = keysOf(draws_, call.in[1], draws_.ids ? &call.in[2] : nullptr, site_);
    if (k.size == 0) return;
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(dropped<T>, gridFor(k.examples * ceilDiv<std::int64_t>(k.size, 64) * 16), kThreads, 0, call, call.in[0].as<T>(),
                      call.out[0].as<T>(), k, keep_, scale_);
    });
  }

 private:
  Draws draws_;
  std::uint32_t site_;
  std::uint64_t keep_;
  double scale_;
};

// The largest of logit + Gumbel noise; a warp takes a row. Of equal numbers the first wins.
template <class T>
__global__ void __launch_bounds__(kThreads) winners(const T* logits, std::int32_t* out, Keys k, std::int64_t n, int* fault) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t perExample = k.size / n, rows = k.examples * perExample;
  for (std::int64_t row = threadOf() / kWarp; row < rows; row += threads() / kWarp) {
    const std::int64_t example = row / perExample, first = row % perExample * n;
    const PhiloxKey key = k.key(example);
    const std::uint32_t id = k.id(example);
    S best = -std::numeric_limits<S>::infinity();
    std::int32_t where = -1;
    for (std::int64_t i = lane; i < n; i += kWarp) {
      const auto bits = philoxBits(key, static_cast<std::uint64_t>(first + i), id, k.site, Stream::draw);
      const S y = read(logits + row * n + i) + static_cast<S>(-logPositive(exponentialOf(vi(static_cast<std::int32_t>(bits)))).v);
      if (y > best) {
        best = y;
        where = static_cast<std::int32_t>(i);
      }
    }
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
      const S other = __shfl_xor_sync(kAllLanes, best, apart);
      const std::int32_t there = __shfl_xor_sync(kAllLanes, where, apart);
      if (there >= 0 && (where < 0 || other > best || (other == best && there < where))) {
        best = other;
        where = there;
      }
    }
    if (lane != 0) continue;
    if (where < 0) raise(fault, 1);
    out[row] = where < 0 ? 0 : where;
  }
}

class Categorical final : public Kernel {
 public:
  Categorical(const Draws& draws, std::int64_t n, std::uint32_t site) : draws_(draws), n_(n), site_(site) {}
  void run(const Call& call) const override {
    const Keys k = keysOf(draws_, call.in[1], draws_.ids ? &call.in[2] : nullptr, site_);
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(winners<T>, gridFor(k.examples * (k.size / n_), kThreads / kWarp), kThreads, 0, call, call.in[0].as<T>(),
                      call.out[0].as<std::int32_t>(), k, n_, call.deviceFault);
    });
  }

 private:
  Draws draws_;
  std::int64_t n_;
  std::uint32_t site_;
};

}  // namespace

std::unique_ptr<Kernel> makeRandom(const Spec& spec) {
  const RandomAttrs a = RandomAttrs::decode(spec.attrs);
  return std::make_unique<Random>(checkRandom(spec, a), a);
}

std::unique_ptr<Kernel> makeSplitKey(const Spec& spec) {
  checkSplitKey(spec, SplitKeyAttrs::decode(spec.attrs));
  return std::make_unique<SimpleKernel<SplitKeyAttrs, splitKeys>>(spec);
}

std::unique_ptr<Kernel> makeFoldKey(const Spec& spec) {
  checkFoldKey(spec);
  return std::make_unique<SimpleKernel<FoldKeyAttrs, foldKeys>>(spec);
}

std::unique_ptr<Kernel> makeDropout(const Spec& spec) {
  const DropoutAttrs a = DropoutAttrs::decode(spec.attrs);
  return std::make_unique<Dropout>(checkDropout(spec, a), a.p, static_cast<std::uint32_t>(a.site));
}

std::unique_ptr<Kernel> makeCategorical(const Spec& spec) {
  const CategoricalAttrs a = CategoricalAttrs::decode(spec.attrs);
  return std::make_unique<Categorical>(checkCategorical(spec, a), spec.in[0].dim(-1), static_cast<std::uint32_t>(a.site));
}

}  // namespace steepest::cuda
