// Group norm of [N, C, ...]: each group of channels of an example is normalized by its own mean and variance.
#include "cpu/layernorm.h"
#include "attrs/groupNorm.gen.h"
#include "attrs/groupNormBackward.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

struct Shape {
  std::int64_t examples = 0, channels = 0, area = 1, groups = 1;
  std::int64_t perGroup() const { return channels / groups; }
};

Shape shapeOf(const View& x, std::int64_t groups) {
  Shape s{x.shape[0], x.shape[1], 1, groups};
  for (int i = 2; i < x.rank; ++i) s.area *= x.shape[i];
  return s;
}

void checkInput(const View& x, std::int64_t groups) {
  require(isFloat(x.dtype) && x.rank >= 2 && x.contiguous(), "groupNorm: wrong input");
  require(groups >= 1 && x.shape[1] % groups == 0, "groupNorm: groups must divide the channels");
}

void checkChannels(const View& w, const View& x) {
  require(w.rank == 1 && w.shape[0] == x.shape[1] && w.contiguous() &&
              (w.dtype == x.dtype || (x.dtype == DType::bfloat16 && w.dtype == DType::float32)),
          "groupNorm: wrong weight or bias");
}

void checkGroups(const View& s, const View& x, std::int64_t groups) {
  require(s.rank == 2 && s.shape[0] == x.shape[0] && s.shape[1] == groups && s.contiguous() && s.dtype == statistics(x.dtype),
          "groupNorm: wrong statistics");
}

template <class T, class W>
void forwardGroup(const NormIo& io, const Shape& s, std::int64_t example, std::int64_t group, double eps) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const std::int64_t first = group * s.perGroup(), n = s.perGroup() * s.area;
  const std::int64_t base = (example * s.channels + first) * s.area;
  const T* x = reinterpret_cast<const T*>(io.x) + base;
  T* y = reinterpret_cast<T*>(io.y) + base;
  // Long groups: sums of channels, then their sum, keep the error of a float32 sum small.
  const S per = S(1) / static_cast<S>(n);
  S total(0), square(0);
  for (std::int64_t c = 0; c < s.perGroup(); ++c) {
    total += sum(sumVectors<V>(s.area, [&](auto w, std::int64_t i) { return w.load(x + c * s.area + i); }));
  }
  const V mean(total * per);
  for (std::int64_t c = 0; c < s.perGroup(); ++c) {
    square += sum(sumVectors<V>(s.area, [&](auto w, std::int64_t i) {
      const V d = w.pad(w.load(x + c * s.area + i) - mean, V(0));
      return d * d;
    }));
  }
  const V rstd = V(1) / sqrt(V(square * per + static_cast<S>(eps)));
  const std::int64_t at = example * s.groups + group;
  store(reinterpret_cast<S*>(io.mean) + at, mean, 1);
  store(reinterpret_cast<S*>(io.rstd) + at, rstd, 1);
  for (std::int64_t c = 0; c < s.perGroup(); ++c) {
    const V scale = io.weight ? rstd * V(sum(V::load(reinterpret_cast<const W*>(io.weight) + first + c, 1))) : rstd;
    const V shift = io.bias ? V(sum(V::load(reinterpret_cast<const W*>(io.bias) + first + c, 1))) : V(0);
    eachVector<V>(s.area,
                  [&](auto w, std::int64_t i) { w.store(y + c * s.area + i, fma(w.load(x + c * s.area + i) - mean, scale, shift)); });
  }
}

// Writes dx, and the sums of one example's channels: dy·x̂ and dy.
template <class T, class W>
void backwardGroup(const NormIo& io, const Shape& s, std::int64_t example, std::int64_t group, typename Math<T>::S* along,
                   typename Math<T>::S* slope) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const std::int64_t first = group * s.perGroup();
  const std::int64_t base = (example * s.channels + first) * s.area;
  const T* x = reinterpret_cast<const T*>(io.x) + base;
  const T* dy = reinterpret_cast<const T*>(io.dy) + base;
  const V mean(reinterpret_cast<const S*>(io.mean)[example * s.groups + group]);
  const V rstd(reinterpret_cast<const S*>(io.rstd)[example * s.groups + group]);
  const auto weight = [&](std::int64_t c) { return io.weight ? sum(V::load(reinterpret_cast<const W*>(io.weight) + first + c, 1)) : S(1); };
  S a(0), b(0);
  for (std::int64_t c = 0; c < s.perGroup(); ++c) {
    const T* xc = x + c * s.area;
    const T* gc = dy + c * s.area;
    V normal(0), plain(0);
    eachVector<V>(s.area, [&](auto w, std::int64_t i) {
      const V g = w.load(gc + i);
      plain = plain + g;
      normal = fma(g, w.pad(w.load(xc + i) - mean, V(0)), normal);
    });
    along[c] = sum(normal * rstd);
    slope[c] = sum(plain);
    a += along[c] * weight(c);
    b += slope[c] * weight(c);
  }
  if (!io.dx) return;
  T* dx = reinterpret_cast<T*>(io.dx) + base;
  const S per = S(1) / static_cast<S>(s.perGroup() * s.area);
  const V ga = rstd * V(a * per), gb(b * per);
  for (std::int64_t c = 0; c < s.perGroup(); ++c) {
    const V scale(weight(c));
    eachVector<V>(s.area, [&](auto w, std::int64_t i) {
      const std::int64_t at = c * s.area + i;
      w.store(dx + at, rstd * (w.load(dy + at) * scale - gb - (w.load(x + at) - mean) * ga));
    });
  }
}

class GroupNorm final : public Kernel {
 public:
  explicit GroupNorm(const Spec& spec) : attrs_(GroupNormAttrs::decode(spec.attrs)) {
    require(spec.in.size() == 1u + attrs_.weight + attrs_.bias && spec.out.size() == 3, "groupNorm: wrong number of operands");
    const View& x = spec.in[0];
    checkInput(x, attrs_.groups);
    for (std::size_t i = 1; i < spec.in.size(); ++i) {
      checkChannels(spec.in[i], x);
      require(spec.in[i].dtype == spec.in[1].dtype, "groupNorm: weight and bias differ in dtype");
    }
    require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "groupNorm: wrong output");
    checkGroups(spec.out[1], x, attrs_.groups);
    checkGroups(spec.out[2], x, attrs_.groups);
  }
  void run(const Call& call) const override {
    const Shape s = shapeOf(call.in[0], attrs_.groups);
    NormIo io;
    io.type = call.in[0].dtype;
    io.weightType = call.in.size() > 1 ? call.in[1].dtype : io.type;
    io.x = call.in[0].data;
    if (attrs_.weight) io.weight = call.in[1].data;
    if (attrs_.bias) io.bias = call.in[1 + attrs_.weight].data;
    io.y = call.out[0].data;
    io.mean = call.out[1].data;
    io.rstd = call.out[2].data;
    byNormTypes(io, [&](auto t, auto w) {
      eachRow(call.pool, s.examples * s.groups, s.perGroup() * s.area,
              [&](std::int64_t i) { forwardGroup<decltype(t), decltype(w)>(io, s, i / s.groups, i % s.groups, attrs_.eps); });
    });
  }

 private:
  GroupNormAttrs attrs_;
};

class GroupNormBackward final : public Kernel {
 public:
  explicit GroupNormBackward(const Spec& spec) : attrs_(GroupNormBackwardAttrs::decode(spec.attrs)) {
    const std::size_t outputs = std::size_t(attrs_.dx) + attrs_.dweight + attrs_.dbias;
    require(spec.in.size() == 4u + attrs_.weight && spec.out.size() == outputs, "groupNorm: wrong number of operands");
    const View& x = spec.in[0];
    checkInput(x, attrs_.groups);
    require(sameShape(spec.in[1], x) && spec.in[1].dtype == x.dtype && spec.in[1].contiguous(), "groupNorm: wrong gradient");
    checkGroups(spec.in[2], x, attrs_.groups);
    checkGroups(spec.in[3], x, attrs_.groups);
    if (attrs_.weight) checkChannels(spec.in[4], x);
    std::size_t at = 0;
    if (attrs_.dx) require(sameShape(spec.out[at], x) && spec.out[at].dtype == x.dtype, "groupNorm: wrong output"), ++at;
    for (; at < outputs; ++at) {
      checkChannels(spec.out[at], x);
      require(spec.out[at].dtype == (attrs_.weight ? spec.in[4].dtype : spec.out.back().dtype), "groupNorm: wrong gradient of a weight");
    }
    workspace = static_cast<std::size_t>(2 * x.shape[0] * x.shape[1]) * sizeOf(statistics(x.dtype));
  }
  void run(const Call& call) const override {
    const Shape s = shapeOf(call.in[0], attrs_.groups);
    NormIo io;
    io.type = io.weightType = call.in[0].dtype;
    io.x = call.in[0].data;
    io.dy = call.in[1].data;
    io.rstd = call.in[2].data;
    io.mean = call.in[3].data;
    if (attrs_.weight) io.weight = call.in[4].data, io.weightType = call.in[4].dtype;
    std::size_t at = 0;
    if (attrs_.dx) io.dx = call.out[at++].data;
    if (attrs_.dweight) io.weightType = call.out[at].dtype, io.dweight = call.out[at++].data;
    if (attrs_.dbias) io.weightType = call.out[at].dtype, io.dbias = call.out[at++].data;
    byNormTypes(io, [&](auto t, auto w) {
      using T = decltype(t);
      using W = decltype(w);
      auto* along = reinterpret_cast<typename Math<T>::S*>(call.workspace);
      auto* slope = along + s.examples * s.channels;
      eachRow(call.pool, s.examples * s.groups, s.perGroup() * s.area, [&](std::int64_t i) {
        const std::int64_t first = i * s.perGroup();
        backwardGroup<T, W>(io, s, i / s.groups, i % s.groups, along + first, slope + first);
      });
      if (io.dweight) addPieces(call.pool, along, s.examples, s.channels, s.channels, reinterpret_cast<W*>(io.dweight));
      if (io.dbias) addPieces(call.pool, slope, s.examples, s.channels, s.channels, reinterpret_cast<W*>(io.dbias));
    });
  }

 private:
  GroupNormBackwardAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeGroupNorm(const Spec& spec) { return std::make_unique<GroupNorm>(spec); }
std::unique_ptr<Kernel> makeGroupNormBackward(const Spec& spec) { return std::make_unique<GroupNormBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
