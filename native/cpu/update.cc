// The driver of the update rules: walks all parameters of an instruction in one round of the pool, cut into tiles by their shapes. The
// formulas are in native/rules, the loops over them in update.h, the operands in update_operands.h.
#include "update.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "blockwise.h"
#include "runtime/kernel.h"
#include "update_operands.h"
#include "update_pack.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

constexpr RuleRow kRules[] = {
#define STEEPEST_ROW(Rule) rowOf<rules::Rule>(),
    STEEPEST_RULES(STEEPEST_ROW)
#undef STEEPEST_ROW
};

// Elements of a segment: sums of rows are taken segment by segment, so this is part of their bits.
constexpr std::int64_t kSegment = 32768;
// Elements of a tile: half a megabyte of each array. Two cores of a Zen 5 EPYC move 100 M parameters of AdamW in 22.1 ms by such tiles and
// in 23.1 ms by tiles of 32,768; twice or half as many elements change nothing that can be measured. Fewer where there would be fewer than
// 128 tiles, for machines of many cores. Multiples of 1,024 (a group of random bits is 64).
constexpr std::int64_t kTile = 131072, kLeast = 16384;
// Elements that are unpacked at a time, to stay in the first-level cache.
constexpr std::int64_t kBlock = 1024;

std::int64_t tileOf(std::int64_t total) { return std::clamp((total / 128 + 1023) / 1024 * 1024, kLeast, kTile); }

// Elements of one parameter that a thread moves at a time.
struct Tile {
  int part;
  std::int64_t begin, end;
};

class Update final : public Kernel {
 public:
  explicit Update(const Spec& spec);
  void run(const Call& call) const override;

 private:
  // What is known once the arguments of the step are read.
  template <class T>
  struct Step {
    T scale;
    double lr, t;
    PhiloxKey key;
    std::uint32_t count;
    std::byte* coefs;
    const void* coef(const Part& part) const { return coefs + static_cast<std::size_t>(part.coef) * kCoefBytes; }
    RoundingSource rounding(const Part& part) const { return {key, count, part.site}; }
  };

  void cut();
  enum class Phase { step, reduce, apply };
  bool finite(const Call& call, double scale) const;
  template <class F>
  void each(const std::vector<Tile>& tiles, const Call& call, F&& f) const {
    call.pool.run(static_cast<std::int64_t>(tiles.size()), [&](std::int64_t i, int) {
      const Tile& tile = tiles[static_cast<std::size_t>(i)];
      f(operands_.parts[static_cast<std::size_t>(tile.part)], tile.begin, tile.end);
    });
  }
  template <class F>
  void segments(const Call& call, F&& f) const;
  template <class T>
  void runAs(const Call& call, double scale) const;
  template <class T, class F>
  void walk(const Call& call, const Part& part, const Step<T>& step, std::int64_t begin, std::int64_t end, Phase phase, F&& f) const;
  template <class T>
  void twoPhase(const Call& call, const Step<T>& step) const;
  template <class T>
  const RuleFunctions<T>& functions() const {
    if constexpr (std::is_same_v<T, float>) {
      return rule_->f32;
    } else {
      return rule_->f64;
    }
  }

  UpdateAttrs attrs_;
  const RuleRow* rule_;
  UpdateOperands operands_;
  std::vector<Tile> tiles_;
  std::vector<Tile> segments_;  // of whole segments, where the rule sums
  std::size_t coefBytes_;
};

Update::Update(const Spec& spec)
    : attrs_(UpdateAttrs::decode(spec.attrs)),
      rule_(&kRules[static_cast<int>(attrs_.rule)]),
      operands_(readOperands(spec, attrs_, *rule_)),
      coefBytes_(operands_.lrScales.size() * kCoefBytes) {
  cut();
  std::int64_t numbers = 0;
  for (Part& part : operands_.parts) {
    if (!rule_->finish) break;
    part.segments = (part.shape.cols + kSegment - 1) / kSegment;
    part.numbers = numbers;
    numbers += part.shape.rows * (part.segments * rule_->sums + rule_->sums + rule_->factors);
  }
  workspace = coefBytes_ + static_cast<std::size_t>(numbers) * sizeof(double);
}

void Update::cut() {
  std::int64_t total = 0;
  for (const Part& part : operands_.parts) total += part.size;
  const std::int64_t most = tileOf(total);
  int at = 0;
  for (const Part& part : operands_.parts) {
    for (std::int64_t i = 0; i < part.size; i += most) tiles_.push_back({at, i, std::min(part.size, i + most)});
    if (rule_->finish && part.size > 0) {
      const std::int64_t cols = part.shape.cols, segment = std::min(cols, kSegment);
      const std::int64_t length = std::max<std::int64_t>(1, most / segment) * segment;
      for (std::int64_t i = 0, end = 0; i < part.size; i = end) {
        end = std::min(part.size, i + length);
        // A segment ends with its row.
        if (cols > kSegment) end = std::min(end, (i / cols + 1) * cols);
        segments_.push_back({at, i, end});
      }
    }
    ++at;
  }
  // What is left when a thread finds nothing more to do is then small.
  const auto longer = [](const Tile& a, const Tile& b) { return a.end - a.begin > b.end - b.begin; };
  std::stable_sort(tiles_.begin(), tiles_.end(), longer);
  std::stable_sort(segments_.begin(), segments_.end(), longer);
}

// Calls f(arrays, position, count) for the arrays of [begin, end): for the whole where nothing is packed, else for blocks on the stack.
// What is packed is written back but in the phase `reduce`, which leaves the states of eight bits for `apply` to move again: the weights
// are moved by new states that have not been rounded.
template <class T, class F>
void Update::walk(const Call& call, const Part& part, const Step<T>& step, std::int64_t begin, std::int64_t end, Phase phase, F&& f) const {
  const int slots = rule_->slots;
  const Storage storage = operands_.storage;
  const bool blockwise = operands_.blockwise;
  const View* in = &call.in[static_cast<std::size_t>(part.in)];
  const View* out = &call.out[static_cast<std::size_t>(part.out)];
  const View *slotsIn = in + operands_.slotsAt, *slotsOut = out + operands_.firstOut;
  Arrays<T> a;
  const auto point = [&](std::int64_t i) {
    for (int k = 0; k < slots && !blockwise; ++k) {
      a.s[k] = slotsIn[k].as<const T>() + i;
      a.sOut[k] = slotsOut[k].as<T>() + i;
    }
    a.p = in[0].as<const T>() + i;
    a.g = in[1].as<const T>() + i;
    a.pOut = out[0].as<T>() + i;
  };
  if (storage == Storage::plain && !blockwise) {
    point(begin);
    f(a, begin, end - begin);
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    alignas(64) float weights[kBlock], grads[kBlock], states[kMaxSlots][kBlock];
    const bool narrow = in[1].dtype == DType::bfloat16;
    const auto mapOf = [&](int k) -> const BlockMap& { return blockMap((rule_->positive >> k & 1) == 0); };
    for (std::int64_t i = begin; i < end; i += kBlock) {
      const std::int64_t n = std::min(kBlock, end - i);
      point(i);
      const bf16* p = in[0].as<const bf16>() + i;
      if (storage == Storage::master) {
        const std::uint8_t* low = in[operands_.lowAt].as<const std::uint8_t>() + i;
        unpackMaster(p, low, low + part.size, weights, n);
      } else if (storage != Storage::plain) {
        unpack(p, weights, n);
      }
      if (storage != Storage::plain) a.p = a.pOut = weights;
      if (narrow) {
        unpack(in[1].as<const bf16>() + i, grads, n);
        a.g = grads;
      }
      for (int k = 0; k < slots && blockwise; ++k) {
        dequantize(mapOf(k), slotsIn[2 * k].as<const std::uint8_t>() + i, slotsIn[2 * k + 1].as<const float>(), i, states[k], n);
        a.s[k] = a.sOut[k] = states[k];
      }
      f(a, i, n);
      if (phase == Phase::reduce) continue;
      bf16* to = out[0].as<bf16>() + i;
      if (storage == Storage::master) {
        std::uint8_t* low = out[1].as<std::uint8_t>() + i;
        packMaster(weights, to, low, low + part.size, n);
      } else if (storage == Storage::stochastic) {
        packStochastic(weights, to, n, i, step.rounding(part));
      } else if (storage == Storage::nearest) {
        packNearest(weights, to, n);
      }
      for (int k = 0; k < slots && blockwise; ++k) {
        quantize(mapOf(k), states[k], slotsOut[2 * k].as<std::uint8_t>() + i, slotsOut[2 * k + 1].as<float>() + i / kQuantBlock, n);
      }
    }
  }
}

// Calls f(part, row, segment of the row, begin, end).
template <class F>
void Update::segments(const Call& call, F&& f) const {
  each(segments_, call, [&](const Part& part, std::int64_t begin, std::int64_t end) {
    const std::int64_t cols = part.shape.cols;
    while (begin < end) {
      const std::int64_t row = begin / cols, next = std::min((row + 1) * cols, begin + kSegment);
      f(part, row, (begin - row * cols) / kSegment, begin, next);
      begin = next;
    }
  });
}

template <class T>
void Update::twoPhase(const Call& call, const Step<T>& step) const {
  const int sums = rule_->sums, factors = rule_->factors;
  double* numbers = reinterpret_cast<double*>(call.workspace + coefBytes_);
  const RuleFunctions<T>& rule = functions<T>();
  // Of a parameter: sums of segments [rows, segments, sums], sums of rows [rows, sums], factors of rows [rows, factors].
  const auto partial = [&](const Part& part) { return numbers + part.numbers; };
  const auto whole = [&](const Part& part) { return partial(part) + part.shape.rows * part.segments * sums; };
  const auto factor = [&](const Part& part) { return whole(part) + part.shape.rows * sums; };
  segments(call, [&](const Part& part, std::int64_t row, std::int64_t segment, std::int64_t begin, std::int64_t end) {
    double* out = partial(part) + (row * part.segments + segment) * sums;
    for (int k = 0; k < sums; ++k) out[k] = 0;
    walk<T>(call, part, step, begin, end, Phase::reduce,
            [&](const Arrays<T>& a, std::int64_t, std::int64_t n) { rule.reduce(a, n, step.scale, step.coef(part), out); });
  });
  call.pool.run(static_cast<std::int64_t>(operands_.parts.size()), [&](std::int64_t i, int) {
    const Part& part = operands_.parts[static_cast<std::size_t>(i)];
    if (part.size == 0) return;
    const double* from = partial(part);
    double* to = whole(part);
    for (std::int64_t row = 0; row < part.shape.rows; ++row) {
      for (int k = 0; k < sums; ++k) {
        double sum = 0;
        for (std::int64_t s = 0; s < part.segments; ++s) sum += from[(row * part.segments + s) * sums + k];
        to[row * sums + k] = sum;
      }
    }
    rule_->finish(attrs_.hyper.data(), part.shape, step.lr * part.lrScale, step.t, to, factor(part));
  });
  each(tiles_, call, [&](const Part& part, std::int64_t begin, std::int64_t end) {
    const void* coef = step.coef(part);
    walk<T>(call, part, step, begin, end, Phase::apply, [&](const Arrays<T>& a, std::int64_t at, std::int64_t n) {
      double ignored[kMaxSums] = {};
      if (operands_.blockwise) rule.reduce(a, n, step.scale, coef, ignored);
      const std::int64_t cols = part.shape.cols;
      for (std::int64_t i = 0; i < n;) {
        const std::int64_t row = (at + i) / cols, next = std::min(n, (row + 1) * cols - at);
        rule.apply(a.from(i), next - i, step.scale, coef, factor(part) + row * factors);
        i = next;
      }
    });
  });
}

template <class T>
void Update::runAs(const Call& call, double scale) const {
  const double* args = call.in[0].as<const double>();
  Step<T> step{static_cast<T>(scale), args[0], args[1], {}, 0, call.workspace};
  if (operands_.storage == Storage::stochastic) {
    const std::int32_t* key = call.in[static_cast<std::size_t>(operands_.keyAt)].as<const std::int32_t>();
    step.key = {static_cast<std::uint32_t>(key[0]), static_cast<std::uint32_t>(key[1])};
    step.count = static_cast<std::uint32_t>(static_cast<std::uint64_t>(step.t >= 0 && step.t < 0x1p53 ? step.t : 0));
  }
  std::byte* coef = step.coefs;
  for (const double lrScale : operands_.lrScales) {
    functions<T>().prepare(attrs_.hyper.data(), step.lr * lrScale, step.t, coef);
    coef += kCoefBytes;
  }
  if (rule_->finish) return twoPhase<T>(call, step);
  each(tiles_, call, [&](const Part& part, std::int64_t begin, std::int64_t end) {
    walk<T>(call, part, step, begin, end, Phase::step,
            [&](const Arrays<T>& a, std::int64_t, std::int64_t n) { functions<T>().step(a, n, step.scale, step.coef(part)); });
  });
}

bool Update::finite(const Call& call, double scale) const {
  if (!std::isfinite(scale)) return false;
  std::atomic<bool> good{true};
  each(tiles_, call, [&](const Part& part, std::int64_t begin, std::int64_t end) {
    const View& g = call.in[static_cast<std::size_t>(part.in) + 1];
    const std::int64_t n = end - begin;
    const bool ok = g.dtype == DType::float32   ? allFinite<vf>(g.as<const float>() + begin, n)
                    : g.dtype == DType::float64 ? allFinite<vd>(g.as<const double>() + begin, n)
                                                : allFinite<vf>(g.as<const bf16>() + begin, n);
    if (!ok) good.store(false, std::memory_order_relaxed);
  });
  return good.load(std::memory_order_relaxed);
}

void Update::run(const Call& call) const {
  if (call.fault.load(std::memory_order_relaxed)) return;
  double scale = 1;
  if (operands_.scaleAt >= 0) {
    const View& v = call.in[static_cast<std::size_t>(operands_.scaleAt)];
    scale = v.dtype == DType::float64 ? *v.as<const double>() : *v.as<const float>();
  }
  if (attrs_.check && !finite(call, scale)) {
    call.fault.store(1, std::memory_order_relaxed);
    return;
  }
  if (call.in[static_cast<std::size_t>(operands_.parts[0].in)].dtype == DType::float64) return runAs<double>(call, scale);
  runAs<float>(call, scale);
}

}  // namespace

std::unique_ptr<Kernel> makeUpdate(const Spec& spec) { return std::make_unique<Update>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
