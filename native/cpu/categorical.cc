// Draws from categorical distributions: the largest of logit + Gumbel noise is distributed as softmax of the logits
// (Gumbel 1954; Maddison, Tarlow, Minka 2014), so that nothing is normalized and one pass reads the row.
#include <cmath>
#include <cstring>

#include "random_checks.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

template <class T>
class Categorical final : public Kernel {
 public:
  Categorical(const Draws& draws, std::int64_t n, std::uint32_t site) : draws_(draws), n_(n), rows_(draws.size / n), site_(site) {}

  void run(const Call& call) const override {
    const T* logits = call.in[0].template as<T>();
    const std::int32_t* words = call.in[1].as<std::int32_t>();
    const std::int32_t* ids = draws_.ids ? call.in[2].as<std::int32_t>() : nullptr;
    std::int32_t* out = call.out[0].as<std::int32_t>();
    const std::int64_t total = draws_.examples() * rows_, per = std::max<std::int64_t>(1, 4096 / n_);
    call.pool.run((total + per - 1) / per, [&](std::int64_t tile, int) {
      for (std::int64_t row = tile * per; row < std::min(total, (tile + 1) * per); ++row) {
        const std::int64_t example = row / rows_, k = example / draws_.batch;
        const PhiloxKey key{static_cast<std::uint32_t>(words[2 * k]), static_cast<std::uint32_t>(words[2 * k + 1])};
        out[row] = best(logits + row * n_, key, ids ? static_cast<std::uint32_t>(ids[example]) : 0u, row % rows_ * n_);
        if (out[row] >= 0) continue;
        call.fault = 1;
        out[row] = 0;
      }
    });
  }

 private:
  // The winner of a row whose first element has number `first` in its example; -1 where no logit is above -infinity.
  std::int32_t best(const T* row, PhiloxKey key, std::uint32_t id, std::int64_t first) const {
    constexpr float kLowest = -std::numeric_limits<float>::infinity();
    constexpr double kLowestWide = -std::numeric_limits<double>::infinity();
    vf top(kLowest);
    vd topWide[2] = {vd(kLowestWide), vd(kLowestWide)};
    vi where(-1);
    alignas(64) std::int32_t index[16];
    std::int32_t indexWide[16];
    std::fill(indexWide, indexWide + 16, -1);
    for (std::int64_t group = first / 64; group * 64 < first + n_; ++group) {
      vi w[4];
      philoxGroup(w, key, static_cast<std::uint64_t>(group), id, site_, Stream::draw);
      for (int p = 0; p < 4; ++p) {
        const std::int64_t at = group * 64 + 16 * p - first;
        if (at + 16 <= 0 || at >= n_) continue;
        const vf noise = -logPositive(exponentialOf(w[p]));
        T part[16];
        const T* from = row + at;
        if (at < 0 || at + 16 > n_) {
          fillLowest(part);
          const std::int64_t begin = std::max<std::int64_t>(at, 0), end = std::min(at + 16, n_);
          std::memcpy(part + (begin - at), row + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
          from = part;
        }
        if constexpr (std::is_same_v<T, double>) {
          vd half[2];
          widen(noise, half[0], half[1]);
          for (int h = 0; h < 2; ++h) {
            const vd y = vd::load(from + 8 * h) + half[h];
            const auto better = y > topWide[h];
            topWide[h] = select(better, y, topWide[h]);
            for (unsigned set = bits(better); set; set &= set - 1) {
              const int lane = __builtin_ctz(set);
              indexWide[8 * h + lane] = static_cast<std::int32_t>(at + 8 * h + lane);
            }
          }
        } else {
          const vf y = vf::load(from) + noise;
          const auto better = y > top;
          top = select(better, y, top);
          where = select(better, vi::iota() + vi(static_cast<std::int32_t>(at)), where);
        }
      }
    }
    if constexpr (std::is_same_v<T, double>) {
      double values[16];
      store(values, topWide[0]);
      store(values + 8, topWide[1]);
      return winner(values, indexWide);
    } else {
      float values[16];
      store(values, top);
      store(index, where);
      return winner(values, index);
    }
  }

  template <class S>
  static std::int32_t winner(const S* values, const std::int32_t* index) {
    int best = 0;
    for (int i = 1; i < 16; ++i) {
      const bool beats =
          index[i] >= 0 && (index[best] < 0 || values[i] > values[best] || (values[i] == values[best] && index[i] < index[best]));
      if (beats) best = i;
    }
    return index[best];
  }

  static void fillLowest(T* part) {
    if constexpr (std::is_same_v<T, bf16>)
      std::fill(part, part + 16, bf16{0xff80});
    else
      std::fill(part, part + 16, -std::numeric_limits<T>::infinity());
  }

  Draws draws_;
  std::int64_t n_, rows_;
  std::uint32_t site_;
};

}  // namespace

std::unique_ptr<Kernel> makeCategorical(const Spec& spec) {
  const CategoricalAttrs a = CategoricalAttrs::decode(spec.attrs);
  const Draws draws = checkCategorical(spec, a);
  const View& x = spec.in[0];
  const auto site = static_cast<std::uint32_t>(a.site);
  switch (x.dtype) {
    case DType::float64:
      return std::make_unique<Categorical<double>>(draws, x.dim(-1), site);
    case DType::bfloat16:
      return std::make_unique<Categorical<bf16>>(draws, x.dim(-1), site);
    default:
      return std::make_unique<Categorical<float>>(draws, x.dim(-1), site);
  }
}

}  // namespace steepest::STEEPEST_LEVEL
