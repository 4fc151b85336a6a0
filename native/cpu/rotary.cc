// Rotary positions: pairs of components are turned by angles in proportion to the position.
#include "cpu/norm.h"
#include "attrs/rotary.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

// Rows of x [batch, time, heads, depth] with any strides.
template <class T, class S>
void turn(const T* x, std::int64_t step, T* y, std::int64_t depth, std::int64_t pairs, bool interleaved, const S* cosines, const S* sines) {
  using V = VecOf<T>;
  if (step == 1 && !interleaved) {
    eachVector<V>(pairs, [&](auto w, std::int64_t i) {
      const V c = w.load(cosines + i), s = w.load(sines + i), a = w.load(x + i), b = w.load(x + pairs + i);
      w.store(y + i, fnma(b, s, a * c));
      w.store(y + pairs + i, fma(a, s, b * c));
    });
  } else {
    const std::int64_t first = interleaved ? 2 : 1, second = interleaved ? 1 : pairs;
    for (std::int64_t i = 0; i < pairs; ++i) {
      const V c(cosines[i]), s(sines[i]), a = V::load(x + i * first * step, 1), b = V::load(x + (i * first + second) * step, 1);
      put(y + i * first, fnma(b, s, a * c), 1);
      put(y + i * first + second, fma(a, s, b * c), 1);
    }
  }
  for (std::int64_t i = 2 * pairs; i < depth; ++i) y[i] = x[i * step];
}

class Rotary final : public Kernel {
 public:
  explicit Rotary(const Spec& spec) : attrs_(RotaryAttrs::decode(spec.attrs)) {
    require(spec.in.size() == 1u + attrs_.positions && spec.out.size() == 1, "rotary: wrong number of operands");
    const View& x = spec.in[0];
    pairs_ = static_cast<std::int64_t>(attrs_.frequencies.size());
    require(isFloat(x.dtype) && x.rank == 4 && 2 * pairs_ <= x.shape[3], "rotary: wrong input or number of frequencies");
    if (attrs_.positions) {
      const View& p = spec.in[1];
      const bool each = p.rank == 2 && p.shape[0] == x.shape[0];
      require((p.rank == 1 || each) && p.dim(-1) == x.shape[1] && p.dtype == DType::int32 && p.contiguous(), "rotary: wrong positions");
      tables_ = each ? x.shape[0] : 1;
    }
    require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "rotary: wrong output");
    workspace = static_cast<std::size_t>(2 * tables_ * x.shape[1] * pairs_) * sizeOf(statistics(x.dtype));
  }

  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto t) { runAs<decltype(t)>(call); });
  }

 private:
  template <class T>
  void runAs(const Call& call) const {
    using S = typename VecOf<T>::Scalar;
    const View& x = call.in[0];
    const std::int64_t time = x.shape[1], heads = x.shape[2], depth = x.shape[3];
    if (!x.size()) return;
    S* const cosines = reinterpret_cast<S*>(call.workspace);
    S* const sines = cosines + tables_ * time * pairs_;
    const std::int32_t* const positions = attrs_.positions ? call.in[1].template as<std::int32_t>() : nullptr;
    eachRow(call.pool, tables_ * time, 8 * pairs_, [&](std::int64_t row) {
      const double at = static_cast<double>((positions ? positions[row] : row) + attrs_.offset);
      for (std::int64_t i = 0; i < pairs_; i += vd::kLanes) {
        const int n = static_cast<int>(std::min<std::int64_t>(vd::kLanes, pairs_ - i));
        const vd angle = vd::load(attrs_.frequencies.data() + i, n) * vd(at);
        double c[vd::kLanes], s[vd::kLanes];
        store(c, cos(angle));
        store(s, attrs_.inverse ? vd(0) - sin(angle) : sin(angle));
        for (int j = 0; j < n; ++j) {
          cosines[row * pairs_ + i + j] = static_cast<S>(c[j]);
          sines[row * pairs_ + i + j] = static_cast<S>(s[j]);
        }
      }
    });
    eachRow(call.pool, x.shape[0] * time, heads * depth, [&](std::int64_t row) {
      const std::int64_t b = row / time, step = row % time, table = (tables_ > 1 ? row : step) * pairs_;
      const T* from = x.as<T>() + b * x.strides[0] + step * x.strides[1];
      T* to = call.out[0].template as<T>() + row * heads * depth;
      for (std::int64_t h = 0; h < heads; ++h) {
        turn(from + h * x.strides[2], x.strides[3], to + h * depth, depth, pairs_, attrs_.interleaved, cosines + table, sines + table);
      }
    });
  }

  RotaryAttrs attrs_;
  std::int64_t pairs_ = 0, tables_ = 1;
};

}  // namespace

std::unique_ptr<Kernel> makeRotary(const Spec& spec) { return std::make_unique<Rotary>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
