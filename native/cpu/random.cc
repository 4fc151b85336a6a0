// Keys and draws: every number is a function of (key, site, example, element) only.
#include "random_checks.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace steepest::STEEPEST_LEVEL {
namespace {

using Kind = RandomAttrs::Kind;

// Draws for an output of elements T: `Narrow` takes a word an element (64 to a group), `Wide` two (32 to a group).
struct Uniform {
  float low, span, below;
  void operator()(vi (&w)[4], vf (&y)[4]) const {
    for (int p = 0; p < 4; ++p) y[p] = min(fma(toFloat(shr(w[p], 8)) * vf(0x1p-24f), vf(span), vf(low)), vf(below));
  }
};
struct Normal {
  float mean, std;
  void operator()(vi (&w)[4], vf (&y)[4]) const {
    for (int p = 0; p < 4; p += 2) {
      normalsOf(w[p], w[p + 1], y[p], y[p + 1]);
      y[p] = fma(y[p], vf(std), vf(mean));
      y[p + 1] = fma(y[p + 1], vf(std), vf(mean));
    }
  }
};
struct Exponential {
  void operator()(vi (&w)[4], vf (&y)[4]) const {
    for (int p = 0; p < 4; ++p) y[p] = exponentialOf(w[p]);
  }
};
struct Bits {
  void operator()(vi (&w)[4], vi (&y)[4]) const {
    for (int p = 0; p < 4; ++p) y[p] = w[p];
  }
};
struct Integer {
  std::int32_t low;
  std::uint32_t range;
  void operator()(vi (&w)[4], vi (&y)[2]) const {
    for (int p = 0; p < 2; ++p) y[p] = belowOf(w[2 * p], w[2 * p + 1], range) + vi(low);
  }
};
// Four vectors of 8: elements 0-7, 8-15 (p = 0), 16-23, 24-31 (p = 1).
struct UniformWide {
  double low, span, below;
  void operator()(vi (&w)[4], vd (&y)[4]) const {
    for (int p = 0; p < 2; ++p) {
      vd hi[2], lo[2];
      unsignedTo(w[2 * p], hi[0], hi[1]);
      unsignedTo(shr(w[2 * p + 1], 11), lo[0], lo[1]);
      for (int i = 0; i < 2; ++i) y[2 * p + i] = min(fma(fma(hi[i], vd(0x1p21), lo[i]) * vd(0x1p-53), vd(span), vd(low)), vd(below));
    }
  }
};
struct NormalWide {
  double mean, std;
  void operator()(vi (&w)[4], vd (&y)[4]) const {
    vd a[2], b[2];
    normalsOf(w, a, b);
    for (int i = 0; i < 2; ++i) {
      y[i] = fma(a[i], vd(std), vd(mean));
      y[2 + i] = fma(b[i], vd(std), vd(mean));
    }
  }
};
struct ExponentialWide {
  void operator()(vi (&w)[4], vd (&y)[4]) const {
    exponentialOf(w[0], w[1], y[0], y[1]);
    exponentialOf(w[2], w[3], y[2], y[3]);
  }
};

template <class T, class V, int N, class F>
class Random final : public Kernel {
 public:
  Random(const Draws& draws, std::uint32_t site, F f) : draws_(draws), site_(site), f_(f) {}

  void run(const Call& call) const override {
    T* out = call.out[0].template as<T>();
    const View* ids = draws_.ids ? &call.in[1] : nullptr;
    draws_.each(call, call.in[0], ids, [&](PhiloxKey key, std::uint32_t id, std::int64_t example, std::int64_t from, std::int64_t count) {
      constexpr std::int64_t kGroup = N * V::kLanes;
      T* to = out + example * draws_.size + from;
      for (std::int64_t at = 0; at < count; at += kGroup) {
        vi w[4];
        V y[N];
        philoxGroup(w, key, static_cast<std::uint64_t>((from + at) / kGroup), id, site_, Stream::draw);
        f_(w, y);
        const std::int64_t left = count - at;
        for (int k = 0; k < N; ++k) {
          const std::int64_t here = left - k * V::kLanes;
          if (here >= V::kLanes)
            store(to + at + k * V::kLanes, y[k]);
          else if (here > 0)
            store(to + at + k * V::kLanes, y[k], static_cast<int>(here));
        }
      }
    });
  }

 private:
  Draws draws_;
  std::uint32_t site_;
  F f_;
};

template <class T, class V, int N, class F>
std::unique_ptr<Kernel> make(const Draws& draws, std::uint32_t site, F f) {
  return std::make_unique<Random<T, V, N, F>>(draws, site, f);
}

float widenOne(bf16 x) {
  const std::uint32_t bits = std::uint32_t{x.bits} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

std::unique_ptr<Kernel> makeFloats(const Draws& draws, DType dtype, const RandomAttrs& a) {
  const auto site = static_cast<std::uint32_t>(a.site);
  const auto f = [](double x) { return static_cast<float>(x); };
  if (dtype == DType::float64) {
    if (a.kind == Kind::kUniform) return make<double, vd, 4>(draws, site, UniformWide{a.a, a.b - a.a, belowHigh<double>(a.a, a.b)});
    if (a.kind == Kind::kNormal) return make<double, vd, 4>(draws, site, NormalWide{a.a, a.b});
    return make<double, vd, 4>(draws, site, ExponentialWide{});
  }
  if (dtype == DType::bfloat16) {
    const float below = a.b > a.a ? widenOne(belowHigh<bf16>(a.a, a.b)) : f(a.a);
    if (a.kind == Kind::kUniform) return make<bf16, vf, 4>(draws, site, Uniform{f(a.a), f(a.b - a.a), below});
    if (a.kind == Kind::kNormal) return make<bf16, vf, 4>(draws, site, Normal{f(a.a), f(a.b)});
    return make<bf16, vf, 4>(draws, site, Exponential{});
  }
  if (a.kind == Kind::kUniform) return make<float, vf, 4>(draws, site, Uniform{f(a.a), f(a.b - a.a), belowHigh<float>(a.a, a.b)});
  if (a.kind == Kind::kNormal) return make<float, vf, 4>(draws, site, Normal{f(a.a), f(a.b)});
  return make<float, vf, 4>(draws, site, Exponential{});
}

// A stack of keys and what is folded into each: its number in the stack (split), or a word (fold).
template <Stream stream>
void deriveKeys(const Call& call, std::int64_t keys, std::int64_t each, const std::int32_t* data) {
  const std::int32_t* from = call.in[0].as<std::int32_t>();
  std::int32_t* to = call.out[0].as<std::int32_t>();
  constexpr std::int64_t kChunk = 1024;
  const std::int64_t total = keys * each;
  call.pool.run((total + kChunk - 1) / kChunk, [&](std::int64_t tile, int) {
    for (std::int64_t i = tile * kChunk; i < std::min(total, (tile + 1) * kChunk); ++i) {
      const std::int64_t k = i / each;
      const PhiloxKey key{static_cast<std::uint32_t>(from[2 * k]), static_cast<std::uint32_t>(from[2 * k + 1])};
      const std::uint64_t block = data ? static_cast<std::uint32_t>(data[i]) : static_cast<std::uint64_t>(i % each);
      const PhiloxBlock made = philox(key, block, 0, 0, stream);
      to[2 * i] = static_cast<std::int32_t>(made.w[0]);
      to[2 * i + 1] = static_cast<std::int32_t>(made.w[1]);
    }
  });
}

void splitKeys(const Call& call, const SplitKeyAttrs& a) { deriveKeys<Stream::split>(call, call.in[0].size() / 2, a.count, nullptr); }
void foldKeys(const Call& call, const FoldKeyAttrs&) {
  deriveKeys<Stream::fold>(call, call.in[0].size() / 2, 1, call.in[1].as<std::int32_t>());
}

}  // namespace

std::unique_ptr<Kernel> makeRandom(const Spec& spec) {
  const RandomAttrs a = RandomAttrs::decode(spec.attrs);
  const Draws draws = checkRandom(spec, a);
  const auto site = static_cast<std::uint32_t>(a.site);
  if (a.kind == Kind::kBits) return make<std::int32_t, vi, 4>(draws, site, Bits{});
  if (a.kind == Kind::kInteger) {
    return make<std::int32_t, vi, 2>(
        draws, site, Integer{static_cast<std::int32_t>(a.a), static_cast<std::uint32_t>(static_cast<std::int64_t>(a.b - a.a))});
  }
  return makeFloats(draws, a.dtype, a);
}

std::unique_ptr<Kernel> makeSplitKey(const Spec& spec) {
  const SplitKeyAttrs a = SplitKeyAttrs::decode(spec.attrs);
  checkSplitKey(spec, a);
  return std::make_unique<SimpleKernel<SplitKeyAttrs, splitKeys>>(spec);
}

std::unique_ptr<Kernel> makeFoldKey(const Spec& spec) {
  checkFoldKey(spec);
  return std::make_unique<SimpleKernel<FoldKeyAttrs, foldKeys>>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL
