// Row `sampleRows`: which rows of a product keep their part in its weight gradient, and with which weight
// (Liu et al., "Winner-Take-All Column Row Sampling", NeurIPS 2023).
#include <algorithm>
#include <bit>
#include <numeric>

#include "cpu/sampling_checks.h"
#include "math/vec.h"
#include "runtime/philox.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using Method = SampleRowsAttrs::Method;
using Draw = SampleRowsAttrs::Draw;

// Far enough below the largest double that sums of many stay finite.
constexpr double kLargest = 1e280;

std::int64_t padded(std::int64_t n) { return (n + 7) / 8 * 8; }

// Scratch of one set of rows: scores [padded n], running sums [n], and how often each row was drawn [n].
struct Scratch {
  double* scores;
  double* sums;
  std::int32_t* counts;

  static std::size_t bytes(std::int64_t n) { return static_cast<std::size_t>(padded(n)) * (2 * sizeof(double) + sizeof(std::int32_t)); }
  Scratch(std::byte* at, std::int64_t n)
      : scores(reinterpret_cast<double*>(at)), sums(scores + padded(n)), counts(reinterpret_cast<std::int32_t*>(sums + padded(n))) {}
};

// Winners are the rows above `threshold`; what the others have together is `rest`.
struct Cut {
  double threshold;
  double rest;
  std::int64_t winners;
};

// One pass over the scores, in fixed lanes.
Cut cutAt(const double* scores, std::int64_t n, double threshold) {
  vd sums(0);
  std::int64_t above = 0;
  for (std::int64_t i = 0; i < n; i += vd::kLanes) {
    const vd s = vd::load(scores + i);
    const auto mask = s > vd(threshold);
    above += std::popcount(bits(mask));
    sums += select(mask, vd(0), s);
  }
  return {threshold, sum(sums), above};
}

// The scan rule without a sort: rows whose expected number of draws is above one are certain. Taking them out only lowers the threshold
// for the others, so that what is above it now is above it at the end.
Cut winnersOf(const double* scores, std::int64_t n, std::int64_t k) {
  Cut cut{2 * kLargest, cutAt(scores, n, 2 * kLargest).rest, 0};
  while (cut.rest > 0) {
    const Cut next = cutAt(scores, n, cut.rest / static_cast<double>(k - cut.winners));
    // Rounding may put a tail of equal rows above their own mean: they then stay a tail.
    if (next.winners == cut.winners || (next.winners >= k && next.rest > 0) || next.winners > k) break;
    cut = next;
  }
  return cut;
}

// A uniform number, and a walk over all rows from a random row with a random step that has no factor in common with their number.
struct Walk {
  double u;
  std::int64_t at, step;

  Walk(PhiloxKey key, std::uint32_t example, std::uint32_t site, std::int64_t n) {
    const auto draw = [&](std::uint64_t i) { return philoxBits64(key, i, example, site, Stream::sample); };
    u = uniform01(draw(0));
    at = below(draw(1), n);
    std::uint64_t next = 2;
    do step = n > 1 ? 1 + below(draw(next++), n - 1) : 1;
    while (std::gcd(step, n) != 1);
  }
  static std::int64_t below(std::uint64_t bits, std::int64_t n) { return philoxBelow(bits, static_cast<std::uint64_t>(n)); }
};

template <class T>
class SampleRows final : public Kernel {
 public:
  SampleRows(const SampleRowsAttrs& a, const View& norms, const View& key)
      : attrs_(a),
        sets_(layout::span(norms, 0, norms.rank - 1)),
        perKey_(layout::span(norms, key.rank - 1, norms.rank - 1)),
        n_(norms.dim(-1)),
        k_(a.k) {
    workspace = Scratch::bytes(n_) * static_cast<std::size_t>(sets_);
  }

  void run(const Call& call) const override {
    if (k_ == 0) return;
    call.pool.run(sets_, [&](std::int64_t set, int) {
      const std::int32_t* words = call.in[1].as<std::int32_t>() + set / perKey_ * 2;
      const PhiloxKey key{static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1])};
      sample(call, set, key, Scratch(call.workspace + Scratch::bytes(n_) * static_cast<std::size_t>(set), n_));
    });
  }

 private:
  void sample(const Call& call, std::int64_t set, PhiloxKey key, const Scratch& s) const {
    scoresOf(call, set, s.scores);
    std::fill_n(s.counts, n_, 0);
    const auto example = static_cast<std::uint32_t>(set % perKey_);
    Cut cut = cutAt(s.scores, n_, 2 * kLargest);
    if (!(cut.rest > 0)) {
      std::fill_n(s.scores, n_, 1.0);
      cut.rest = static_cast<double>(n_);
    }
    if (attrs_.method == Method::kTopK) {
      largest(s);
      return put(call, set, s, cut, 0);
    }
    if (attrs_.method == Method::kWinners) cut = winnersOf(s.scores, n_, k_);
    const std::int64_t draws = cut.rest > 0 ? k_ - cut.winners : 0;
    const auto site = static_cast<std::uint32_t>(attrs_.site);
    if (draws > 0) {
      if (attrs_.draw == Draw::kSystematic)
        systematic(s, cut, draws, Walk(key, example, site, n_));
      else
        replacing(s, cut, draws, key, example, site);
    }
    put(call, set, s, cut, draws);
  }

  // Norm of the row times what is known of its gradient's: never negative, always finite.
  void scoresOf(const Call& call, std::int64_t set, double* scores) const {
    const T* norms = call.in[0].as<T>() + set * n_;
    const T* gains = attrs_.gains ? call.in[2].as<T>() + set * n_ : nullptr;
    double total = 0, seen = 0;
    if (gains) {
      for (std::int64_t i = 0; i < n_; ++i) {
        if (!(gains[i] >= 0)) continue;
        total += std::min<double>(gains[i], kLargest);
        seen += 1;
      }
    }
    const double mean = total > 0 ? total / seen : 1, floor = total > 0 ? attrs_.floor * mean : 1;
    for (std::int64_t i = 0; i < n_; ++i) {
      const double gain = !gains ? 1 : gains[i] >= 0 ? std::max<double>(gains[i], floor) : mean;
      const double score = static_cast<double>(norms[i]) * gain;
      scores[i] = score > 0 ? std::min(score, kLargest) : 0;
    }
    std::fill(scores + n_, scores + padded(n_), 0.0);
  }

  // One point every (rest / draws), from a random one on, along the walk: a row is hit in proportion to its score.
  void systematic(const Scratch& s, const Cut& cut, std::int64_t draws, Walk walk) const {
    const double step = cut.rest / static_cast<double>(draws);
    double sum = 0;
    std::int64_t done = 0, last = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
      const double score = s.scores[walk.at];
      if (score > 0 && score <= cut.threshold) {
        sum += score;
        last = walk.at;
        for (; done < draws && (static_cast<double>(done) + walk.u) * step < sum; ++done) ++s.counts[walk.at];
      }
      walk.at += walk.step;
      if (walk.at >= n_) walk.at -= n_;
    }
    // What rounding has left beyond the end.
    s.counts[last] += static_cast<std::int32_t>(draws - done);
  }

  void replacing(const Scratch& s, const Cut& cut, std::int64_t draws, PhiloxKey key, std::uint32_t example, std::uint32_t site) const {
    double sum = 0;
    std::int64_t last = 0;
    for (std::int64_t i = 0; i < n_; ++i) {
      if (s.scores[i] > 0 && s.scores[i] <= cut.threshold) {
        sum += s.scores[i];
        last = i;
      }
      s.sums[i] = sum;
    }
    for (std::int64_t j = 0; j < draws; ++j) {
      const double u = uniform01(philoxBits64(key, static_cast<std::uint64_t>(j), example, site, Stream::sample)) * sum;
      // The first row whose sum is beyond the point: rows without a score add nothing and are never the first.
      const std::int64_t i = std::upper_bound(s.sums, s.sums + n_, u) - s.sums;
      ++s.counts[std::min(i, last)];
    }
  }

  // The k largest, of equal ones those that come first; without their order.
  void largest(const Scratch& s) const {
    auto* order = reinterpret_cast<std::int64_t*>(s.sums);
    std::iota(order, order + n_, std::int64_t{0});
    std::nth_element(order, order + k_ - 1, order + n_,
                     [&](std::int64_t a, std::int64_t b) { return s.scores[a] != s.scores[b] ? s.scores[a] > s.scores[b] : a < b; });
    for (std::int64_t j = 0; j < k_; ++j) s.counts[order[j]] = 1;
  }

  // Rows in their order: certain ones count once, drawn ones by what makes their mean right, and what is left over counts nothing.
  void put(const Call& call, std::int64_t set, const Scratch& s, const Cut& cut, std::int64_t draws) const {
    std::int32_t* indices = call.out[0].as<std::int32_t>() + set * k_;
    T* weights = call.out[1].as<T>() + set * k_;
    T* inverse = call.out[2].as<T>() + set * n_;
    const double mean = draws > 0 ? cut.rest / static_cast<double>(draws) : 0;
    std::int64_t at = 0;
    for (std::int64_t i = 0; i < n_; ++i) {
      const bool winner = attrs_.method == Method::kWinners && s.scores[i] > cut.threshold;
      const bool chosen = winner || attrs_.method == Method::kTopK;
      const double weight = chosen ? 1 : s.scores[i] > 0 ? std::min(mean / s.scores[i], kFloat) : 0;
      inverse[i] = static_cast<T>(chosen ? 0 : weight);
      for (std::int64_t c = winner ? 1 : s.counts[i]; c > 0 && at < k_; --c, ++at) {
        indices[at] = static_cast<std::int32_t>(i);
        weights[at] = static_cast<T>(weight);
      }
    }
    for (; at < k_; ++at) {
      indices[at] = 0;
      weights[at] = 0;
    }
  }

  static constexpr double kFloat = 1e38;
  SampleRowsAttrs attrs_;
  std::int64_t sets_, perKey_, n_, k_;
};

}  // namespace

std::unique_ptr<Kernel> makeSampleRows(const Spec& spec) {
  const SampleRowsAttrs a = checkSampleRows(spec);
  if (spec.in[0].dtype == DType::float64) return std::make_unique<SampleRows<double>>(a, spec.in[0], spec.in[1]);
  return std::make_unique<SampleRows<float>>(a, spec.in[0], spec.in[1]);
}

}  // namespace steepest::STEEPEST_LEVEL
