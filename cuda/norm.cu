// Layer norm, RMS norm and group norm. A row is what is normalized together: the last axes, or the channels of a group of an example.
#include "attrs/groupNorm.gen.h"
#include "attrs/groupNormBackward.gen.h"
#include "attrs/layerNorm.gen.h"
#include "attrs/layerNormBackward.gen.h"
#include "attrs/rmsNorm.gen.h"
#include "attrs/rmsNormBackward.gen.h"
#include "cpu/groupnorm.h"
#include "cpu/layernorm.h"
#include "cuda/norm.cuh"

namespace steepest::cuda {

namespace {

template <class T, int Size>
__global__ void __launch_bounds__(kThreads)
    normRows(const T* in, T* out, Affine<ComputeOf<T>> affine, ComputeOf<T>* means, ComputeOf<T>* rstds, std::int64_t rows, std::int64_t n,
             bool wide, int stage, double eps) {
  using S = ComputeOf<T>;
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  STEEPEST_SHARED(S, shared);
  S* const own = shared + team * stage + lane;
  const S per = S(1) / static_cast<S>(n);
  for (std::int64_t row = std::int64_t{blockIdx.x} * kTeams + team; row < rows; row += std::int64_t{gridDim.x} * kTeams) {
    const T* x = in + row * n;
    S mean = 0, square = 0;
    const auto first = [&](int k, std::int64_t, S v) {
      if (stage) own[k * Size] = v;
      mean += v;
    };
    eachOf<Size>(n, wide, lane, first, x);
    mean = means ? sumTeam<Size>(mean) * per : S(0);
    const auto add = [&](S v) { square += (v - mean) * (v - mean); };
    if (stage) {
      const int count = countOf<T, Size>(n, wide, lane);
      for (int k = 0; k < count; ++k) add(own[k * Size]);
    } else {
      eachOf<Size>(n, wide, lane, [&](int, std::int64_t, S v) { add(v); }, x);
    }
    const S rstd = S(1) / sqrt(VecOf<T>(sumTeam<Size>(square) * per + static_cast<S>(eps))).v;
    if (lane == 0) {
      if (means) means[row] = mean;
      rstds[row] = rstd;
    }
    T* y = out + row * n;
    if (stage)
      fillOf<Size>(y, n, wide, lane, [&](int k, std::int64_t i) { return affine(own[k * Size] - mean, rstd, row, i); });
    else
      fillOf<Size>(y, n, wide, lane, [&](int, std::int64_t i, S v) { return affine(v - mean, rstd, row, i); }, x);
  }
}

template <class T>
void normAs(const Call& call, const NormIo& io, double eps, Channels channels) {
  using S = ComputeOf<T>;
  if (!io.rows || !io.columns) return;
  const Affine<S> affine{{io.weight, io.weightType == DType::bfloat16}, {io.bias, io.weightType == DType::bfloat16}, channels};
  const Rows rows(io.rows, io.columns, sizeof(T), aligned16(io.x) && aligned16(io.y), sizeof(S));
  byTeam(rows, [&](auto size) {
    STEEPEST_LAUNCH((normRows<T, size.value>), rows.grid, kThreads, rows.shared, call, reinterpret_cast<const T*>(io.x),
                    reinterpret_cast<T*>(io.y), affine, reinterpret_cast<S*>(io.mean), reinterpret_cast<S*>(io.rstd), rows.count,
                    rows.length, rows.wide, rows.stage, eps);
  });
}

// dx of rows, and sums of dy·x̂ and dy over the rows of a piece, by column. A block takes a piece; `Size` threads.
template <class T, int Size>
__global__ void __launch_bounds__(Size) normBackwardRows(const T* in, const T* gradient, T* out, Weights<ComputeOf<T>> weight,
                                                         const ComputeOf<T>* means, const ComputeOf<T>* rstds, ComputeOf<T>* weightSums,
                                                         ComputeOf<T>* biasSums, std::int64_t rows, std::int64_t n, bool wide, int stage) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t piece = blockIdx.x, pieces = gridDim.x;
  STEEPEST_SHARED(S, shared);
  // Sums of this lane's columns: beside those of the other lanes, where they fit; else where they go.
  S* const ownWeight = shared + lane;
  S* const ownBias = ownWeight + stage;
  S* const farWeight = weightSums ? weightSums + piece * n : nullptr;
  S* const farBias = biasSums ? biasSums + piece * n : nullptr;
  const S per = S(1) / static_cast<S>(n);
  const std::int64_t begin = rows * piece / pieces, end = rows * (piece + 1) / pieces;
  for (std::int64_t row = begin; row < end; ++row) {
    const T *x = in + row * n, *dy = gradient + row * n;
    const S rstd = rstds[row], mean = means ? means[row] : S(0);
    S slope = 0, along = 0;
    const auto first = [&](int k, std::int64_t i, S g, S v) {
      const S normal = (v - mean) * rstd;
      const auto sum = [&](S* near, S* far, S add) {
        if (!far) return;
        S& to = stage ? near[k * Size] : far[i];
        to = row == begin ? add : to + add;
      };
      sum(ownWeight, farWeight, g * normal);
      sum(ownBias, farBias, g);
      g = weight.at ? g * weight(i) : g;
      slope += g;
      along += g * normal;
    };
    eachOf<Size>(n, wide, lane, first, dy, x);
    if (!out) continue;
    slope = means ? sumTeam<Size>(slope) * per : S(0);
    along = sumTeam<Size>(along) * per;
    const auto last = [&](int, std::int64_t i, S g, S v) {
      return rstd * ((weight.at ? g * weight(i) : g) - slope - (v - mean) * rstd * along);
    };
    fillOf<Size>(out + row * n, n, wide, lane, last, dy, x);
  }
  if (!stage || begin == end) return;
  const auto keep = [&](int k, std::int64_t i, S) {
    if (farWeight) farWeight[i] = ownWeight[k * Size];
    if (farBias) farBias[i] = ownBias[k * Size];
  };
  eachOf<Size>(n, wide, lane, keep, in);
}

// Pieces by the shape alone, so that their sums are joined in one order on any device.
std::int64_t pieceCount(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 4, 1, 512); }
std::size_t pieceBytes(const Spec& spec, std::int64_t axes, int sums) {
  const View& x = spec.in[0];
  const std::int64_t n = columnsOf(x, axes);
  if (!n) return 0;
  return static_cast<std::size_t>(pieceCount(x.size() / n) * sums * n) * sizeOf(statistics(x.dtype));
}

template <class T>
void normBackwardAs(const Call& call, const NormIo& io) {
  using S = ComputeOf<T>;
  const std::int64_t n = io.columns;
  const bool half = io.weightType == DType::bfloat16;
  if (!n) return;
  const std::int64_t pieces = pieceCount(io.rows), sums = (io.dweight != nullptr) + (io.dbias != nullptr);
  S* const partials = reinterpret_cast<S*>(call.workspace);
  S* const weightSums = io.dweight ? partials : nullptr;
  S* const biasSums = io.dbias ? partials + (io.dweight ? pieces * n : 0) : nullptr;
  if (io.rows) {
    const bool wide = aligned16(io.x) && aligned16(io.dy) && aligned16(io.dx) && n * static_cast<std::int64_t>(sizeof(T)) % 16 == 0;
    const auto launch = [&](auto size) {
      const std::int64_t step = size.value * (wide ? kGroup<T> : 1), numbers = ceilDiv(n, step) * step;
      const std::size_t bytes = sums ? static_cast<std::size_t>(2 * numbers) * sizeof(S) : 0;
      const bool fits = bytes && bytes <= kSharedByDefault - 1024;
      STEEPEST_LAUNCH((normBackwardRows<T, size.value>), static_cast<unsigned>(pieces), size.value, fits ? bytes : 0, call,
                      reinterpret_cast<const T*>(io.x), reinterpret_cast<const T*>(io.dy), reinterpret_cast<T*>(io.dx),
                      Weights<S>{io.weight, half}, reinterpret_cast<const S*>(io.mean), reinterpret_cast<const S*>(io.rstd), weightSums,
                      biasSums, io.rows, n, wide, fits ? static_cast<int>(numbers) : 0);
    };
    if (n <= 256)
      launch(std::integral_constant<int, kWarp>{});
    else
      launch(std::integral_constant<int, kThreads>{});
  }
  if (io.dweight) addPieces<S>(call, weightSums, io.rows ? pieces : 0, n, n, io.dweight, half);
  if (io.dbias) addPieces<S>(call, biasSums, io.rows ? pieces : 0, n, n, io.dbias, half);
}

class LayerNorm final : public Kernel {
 public:
  explicit LayerNorm(const Spec& spec) : attrs_(LayerNormAttrs::decode(spec.attrs)) {
    checkNorm(spec, attrs_.axes, attrs_.weight, attrs_.bias, true);
  }
  void run(const Call& call) const override {
    NormIo io = normForward(call, attrs_.axes, attrs_.weight, attrs_.bias);
    io.mean = call.out[1].data;
    io.rstd = call.out[2].data;
    byFloat(io.type, [&](auto t) { normAs<decltype(t)>(call, io, attrs_.eps, {}); });
  }

 private:
  LayerNormAttrs attrs_;
};

class RmsNorm final : public Kernel {
 public:
  explicit RmsNorm(const Spec& spec) : attrs_(RmsNormAttrs::decode(spec.attrs)) {
    checkNorm(spec, attrs_.axes, attrs_.weight, false, false);
  }
  void run(const Call& call) const override {
    NormIo io = normForward(call, attrs_.axes, attrs_.weight, false);
    io.rstd = call.out[1].data;
    byFloat(io.type, [&](auto t) { normAs<decltype(t)>(call, io, attrs_.eps, {}); });
  }

 private:
  RmsNormAttrs attrs_;
};

class LayerNormBackward final : public Kernel {
 public:
  explicit LayerNormBackward(const Spec& spec) : attrs_(LayerNormBackwardAttrs::decode(spec.attrs)) {
    checkNormBackward(spec, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, attrs_.dbias}, true);
    workspace = pieceBytes(spec, attrs_.axes, attrs_.dweight + attrs_.dbias);
  }
  void run(const Call& call) const override {
    const NormIo io = normBackward(call, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, attrs_.dbias}, true);
    byFloat(io.type, [&](auto t) { normBackwardAs<decltype(t)>(call, io); });
  }

 private:
  LayerNormBackwardAttrs attrs_;
};

class RmsNormBackward final : public Kernel {
 public:
  explicit RmsNormBackward(const Spec& spec) : attrs_(RmsNormBackwardAttrs::decode(spec.attrs)) {
    checkNormBackward(spec, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, false}, false);
    workspace = pieceBytes(spec, attrs_.axes, attrs_.dweight);
  }
  void run(const Call& call) const override {
    const NormIo io = normBackward(call, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, false}, false);
    byFloat(io.type, [&](auto t) { normBackwardAs<decltype(t)>(call, io); });
  }

 private:
  RmsNormBackwardAttrs attrs_;
};

class GroupNorm final : public Kernel {
 public:
  explicit GroupNorm(const Spec& spec) : attrs_(GroupNormAttrs::decode(spec.attrs)) { checkGroupNorm(spec, attrs_); }
  void run(const Call& call) const override {
    const GroupShape s = groupShapeOf(call.in[0], attrs_.groups);
    NormIo io = groupForward(call, attrs_);
    io.rows = s.examples * s.groups;
    io.columns = s.perGroup() * s.area;
    byFloat(io.type, [&](auto t) { normAs<decltype(t)>(call, io, attrs_.eps, {s.groups, s.perGroup(), s.area}); });
  }

 private:
  GroupNormAttrs attrs_;
};

// dy·x̂ and dy, summed over the channels of examples. A warp takes a channel.
template <class T>
__global__ void __launch_bounds__(kThreads)
    groupSums(const T* in, const T* gradient, const ComputeOf<T>* means, const ComputeOf<T>* rstds, ComputeOf<T>* along,
              ComputeOf<T>* slope, std::int64_t planes, std::int64_t area, std::int64_t perGroup, bool wide) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t plane = threadOf() / kWarp; plane < planes; plane += threads() / kWarp) {
    const S mean = means[plane / perGroup], rstd = rstds[plane / perGroup];
    const T* x = in + plane * area;
    S normal = 0, plain = 0;
    const auto add = [&](int, std::int64_t, S g, S v) {
      normal += g * ((v - mean) * rstd);
      plain += g;
    };
    eachOf<kWarp>(area, wide, lane, add, gradient + plane * area, x);
    normal = warpSum(normal);
    plain = warpSum(plain);
    if (lane == 0) {
      along[plane] = normal;
      slope[plane] = plain;
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    groupGradients(const T* in, const T* dy, T* dx, Weights<ComputeOf<T>> weight, const ComputeOf<T>* means, const ComputeOf<T>* rstds,
                   const ComputeOf<T>* along, const ComputeOf<T>* slope, std::int64_t rows, Channels c, bool wide) {
  using S = ComputeOf<T>;
  const std::int64_t n = c.perGroup * c.area;
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    S a = 0, b = 0;
    for (std::int64_t k = threadIdx.x; k < c.perGroup; k += blockDim.x) {
      const S w = weight.at ? weight(row % c.groups * c.perGroup + k) : S(1);
      a += along[row * c.perGroup + k] * w;
      b += slope[row * c.perGroup + k] * w;
    }
    const S per = S(1) / static_cast<S>(n), mean = means[row], rstd = rstds[row];
    const S ga = blockSum(a) * per, gb = blockSum(b) * per;
    const auto last = [&](int, std::int64_t i, S g, S v) {
      const S w = weight.at ? weight(c.of(row, i)) : S(1);
      return rstd * (g * w - gb - (v - mean) * rstd * ga);
    };
    fillOf<kThreads>(dx + row * n, n, wide, static_cast<int>(threadIdx.x), last, dy + row * n, in + row * n);
  }
}

class GroupNormBackward final : public Kernel {
 public:
  explicit GroupNormBackward(const Spec& spec) : attrs_(GroupNormBackwardAttrs::decode(spec.attrs)) {
    checkGroupNormBackward(spec, attrs_);
    const View& x = spec.in[0];
    workspace = static_cast<std::size_t>(2 * x.shape[0] * x.shape[1]) * sizeOf(statistics(x.dtype));
  }
  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const GroupShape s = groupShapeOf(call.in[0], attrs_.groups);
      const NormIo io = groupBackward(call, attrs_);
      const bool half = io.weightType == DType::bfloat16;
      auto* const along = reinterpret_cast<S*>(call.workspace);
      auto* const slope = along + s.examples * s.channels;
      const auto *x = reinterpret_cast<const T*>(io.x), *dy = reinterpret_cast<const T*>(io.dy);
      const auto *mean = reinterpret_cast<const S*>(io.mean), *rstd = reinterpret_cast<const S*>(io.rstd);
      const bool wide = aligned16(x) && aligned16(dy) && aligned16(io.dx) && s.area * static_cast<std::int64_t>(sizeof(T)) % 16 == 0;
      const std::int64_t planes = s.examples * s.channels;
      STEEPEST_LAUNCH(groupSums<T>, gridFor(planes, kThreads / kWarp), kThreads, 0, call, x, dy, mean, rstd, along, slope, planes, s.area,
                      s.perGroup(), wide);
      if (io.dx && planes && s.area) {
        STEEPEST_LAUNCH(groupGradients<T>, gridFor(s.examples * s.groups, 1), kThreads, 0, call, x, dy, reinterpret_cast<T*>(io.dx),
                        Weights<S>{io.weight, half}, mean, rstd, along, slope, s.examples * s.groups,
                        Channels{s.groups, s.perGroup(), s.area}, wide);
      }
      if (io.dweight) addPieces<S>(call, along, s.examples, s.channels, s.channels, io.dweight, half);
      if (io.dbias) addPieces<S>(call, slope, s.examples, s.channels, s.channels, io.dbias, half);
    });
  }

 private:
  GroupNormBackwardAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeLayerNorm(const Spec& spec) { return std::make_unique<LayerNorm>(spec); }
std::unique_ptr<Kernel> makeRmsNorm(const Spec& spec) { return std::make_unique<RmsNorm>(spec); }
std::unique_ptr<Kernel> makeLayerNormBackward(const Spec& spec) { return std::make_unique<LayerNormBackward>(spec); }
std::unique_ptr<Kernel> makeRmsNormBackward(const Spec& spec) { return std::make_unique<RmsNormBackward>(spec); }
std::unique_ptr<Kernel> makeGroupNorm(const Spec& spec) { return std::make_unique<GroupNorm>(spec); }
std::unique_ptr<Kernel> makeGroupNormBackward(const Spec& spec) { return std::make_unique<GroupNormBackward>(spec); }

}  // namespace steepest::cuda
