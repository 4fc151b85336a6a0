// Dropout. The mask is drawn anew wherever it is needed (the gradient is the same op on the cotangent), so it is never stored.
#include <cmath>

#include "random_checks.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

template <class T>
class Dropout final : public Kernel {
  using V = VecOf<T>;

 public:
  Dropout(const Draws& draws, double p, std::uint32_t site)
      : draws_(draws), site_(site), keep_(philoxThreshold(1 - p)), scale_(static_cast<typename V::Scalar>(p < 1 ? 1 / (1 - p) : 0)) {}

  void run(const Call& call) const override {
    const T* in = call.in[0].template as<T>();
    T* out = call.out[0].template as<T>();
    const View* ids = draws_.ids ? &call.in[2] : nullptr;
    draws_.each(call, call.in[1], ids, [&](PhiloxKey key, std::uint32_t id, std::int64_t example, std::int64_t from, std::int64_t count) {
      const std::int64_t base = example * draws_.size + from;
      for (std::int64_t at = 0; at < count; at += 64) {
        vi w[4];
        philoxGroup(w, key, static_cast<std::uint64_t>((from + at) / 64), id, site_, Stream::dropout);
        for (int p = 0; p < 4 && at + 16 * p < count; ++p) {
          const std::int64_t i = at + 16 * p;
          apply(in + base + i, out + base + i, w[p], static_cast<int>(std::min<std::int64_t>(16, count - i)));
        }
      }
    });
  }

 private:
  // All bits of a lane that is kept are set.
  vi kept(vi w) const {
    if (keep_ >> 32) return vi(-1);
    const vi sign(std::numeric_limits<std::int32_t>::min());
    return select((w ^ sign) < (vi(static_cast<std::int32_t>(static_cast<std::uint32_t>(keep_))) ^ sign), vi(-1), vi(0));
  }

  void apply(const T* in, T* out, vi w, int n) const {
    const vi mask = kept(w);
    if constexpr (std::is_same_v<T, double>) {
      alignas(64) std::int32_t lanes[16];
      store(lanes, mask);
      for (int i = 0; i < n; ++i) out[i] = lanes[i] ? in[i] * scale_ : 0.0;
    } else if (n == 16) {
      store(out, select(mask != vi(0), vf::load(in) * vf(scale_), vf(0)));
    } else {
      store(out, select(mask != vi(0), vf::load(in, n) * vf(scale_), vf(0)), n);
    }
  }

  Draws draws_;
  std::uint32_t site_;
  std::uint64_t keep_;
  typename V::Scalar scale_;
};

}  // namespace

std::unique_ptr<Kernel> makeDropout(const Spec& spec) {
  const DropoutAttrs a = DropoutAttrs::decode(spec.attrs);
  const Draws draws = checkDropout(spec, a);
  const View& x = spec.in[0];
  const auto site = static_cast<std::uint32_t>(a.site);
  switch (x.dtype) {
    case DType::float64:
      return std::make_unique<Dropout<double>>(draws, a.p, site);
    case DType::bfloat16:
      return std::make_unique<Dropout<bf16>>(draws, a.p, site);
    default:
      return std::make_unique<Dropout<float>>(draws, a.p, site);
  }
}

}  // namespace steepest::STEEPEST_LEVEL
