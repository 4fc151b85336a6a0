// Group norm of [N, C, ...]: each group of channels of an example is normalized by its own mean and variance.
#include "cpu/groupnorm.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

template <class T, class W>
void forwardGroup(const NormIo& io, const GroupShape& s, std::int64_t example, std::int64_t group, double eps) {
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
void backwardGroup(const NormIo& io, const GroupShape& s, std::int64_t example, std::int64_t group, typename Math<T>::S* along,
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
  explicit GroupNorm(const Spec& spec) : attrs_(GroupNormAttrs::decode(spec.attrs)) { checkGroupNorm(spec, attrs_); }
  void run(const Call& call) const override {
    const GroupShape s = groupShapeOf(call.in[0], attrs_.groups);
    const NormIo io = groupForward(call, attrs_);
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
    checkGroupNormBackward(spec, attrs_);
    const View& x = spec.in[0];
    workspace = static_cast<std::size_t>(2 * x.shape[0] * x.shape[1]) * sizeOf(statistics(x.dtype));
  }
  void run(const Call& call) const override {
    const GroupShape s = groupShapeOf(call.in[0], attrs_.groups);
    const NormIo io = groupBackward(call, attrs_);
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
