// The driver of the update rules: operands of the op `update`, storage of weights, checks, the cut into tiles. The formulas are in
// native/rules, the loops over them in update.h.
#include "update.h"

#include <atomic>
#include <cmath>

#include "attrs/update.gen.h"
#include "runtime/kernel.h"
#include "update_pack.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

constexpr RuleRow kRules[] = {
#define STEEPEST_ROW(Rule) rowOf<rules::Rule>(),
    STEEPEST_RULES(STEEPEST_ROW)
#undef STEEPEST_ROW
};

// Elements of a tile; a multiple of 64, the group of random bits. Fixed, so that the cut is by shape only.
constexpr std::int64_t kTile = 32768;
// Elements that are unpacked at a time, to stay in the first-level cache.
constexpr std::int64_t kBlock = 1024;

[[noreturn]] void wrong(const char* what) { throw Error("PROGRAM", std::string("update: ") + what); }

bool sameShape(const View& a, const View& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i) {
    if (a.shape[i] != b.shape[i]) return false;
  }
  return true;
}

class Update final : public Kernel {
 public:
  explicit Update(const Spec& spec);
  void run(const Call& call) const override;

 private:
  enum class Storage { plain, nearest, stochastic, master };

  // What is known once the arguments of the step are read.
  template <class T>
  struct Step {
    T scale;
    double lr, t;
    RoundingSource rounding;
    alignas(64) std::byte coef[kCoefBytes];
  };

  bool finite(const Call& call, double scale) const;
  template <class T>
  void runAs(const Call& call, double scale) const;
  template <class T, class F>
  void walk(const Call& call, const Step<T>& step, std::int64_t begin, std::int64_t end, bool moves, F&& f) const;
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
  Storage storage_;
  std::int64_t size_;
  rules::RuleShape shape_;
  std::int64_t segments_ = 0;  // of a row, in the two-phase rules
  int scaleAt_ = -1, keyAt_ = -1, lowAt_ = -1, slotsAt_;
};

Update::Update(const Spec& spec) : attrs_(UpdateAttrs::decode(spec.attrs)), rule_(&kRules[static_cast<int>(attrs_.rule)]) {
  const bool stochastic = attrs_.rounding == UpdateAttrs::Rounding::kStochastic;
  int at = 3;
  if (attrs_.scale) scaleAt_ = at++;
  if (stochastic) keyAt_ = at++;
  if (attrs_.master) lowAt_ = at++;
  slotsAt_ = at;
  const std::size_t slots = static_cast<std::size_t>(rule_->slots), outputs = 1 + slots + (attrs_.master ? 1 : 0);
  if (spec.in.size() != static_cast<std::size_t>(at) + slots || spec.out.size() != outputs)
    wrong("the number of operands is not that of the rule");
  if (attrs_.hyper.size() != static_cast<std::size_t>(rule_->hypers)) wrong("the number of hyper-parameters is not that of the rule");
  if (attrs_.site < 0 || attrs_.site > 0xffffffffll) wrong("the site must be in [0, 2^32)");

  const View &p = spec.in[0], &g = spec.in[1], &args = spec.in[2];
  if (!isFloat(p.dtype)) wrong("a parameter must be a float");
  const DType compute = p.dtype == DType::float64 ? DType::float64 : DType::float32;
  if (!sameShape(p, g) || !(g.dtype == compute || (p.dtype == DType::bfloat16 && g.dtype == DType::bfloat16)))
    wrong("the gradient does not fit the parameter");
  if (args.dtype != DType::float64 || args.rank != 1 || args.shape[0] < 2) wrong("the step arguments must be float64[k], k >= 2");
  if (scaleAt_ >= 0 &&
      ((spec.in[scaleAt_].dtype != DType::float32 && spec.in[scaleAt_].dtype != DType::float64) || spec.in[scaleAt_].rank != 0)) {
    wrong("the scale must be a float32 or float64 scalar");
  }
  if (keyAt_ >= 0) {
    const View& key = spec.in[keyAt_];
    if (p.dtype != DType::bfloat16 || attrs_.master) wrong("stochastic rounding is for bfloat16 weights without hidden bits");
    if (key.dtype != DType::int32 || key.rank != 1 || key.shape[0] != 2) wrong("the key must be int32[2]");
  }
  if (lowAt_ >= 0) {
    const View& low = spec.in[lowAt_];
    bool fits = p.dtype == DType::bfloat16 && low.dtype == DType::uint8 && low.rank == p.rank + 1 && low.shape[0] == 2;
    for (int i = 0; fits && i < p.rank; ++i) fits = low.shape[i + 1] == p.shape[i];
    if (!fits) wrong("the hidden bits must be uint8[2, ...] of a bfloat16 parameter");
  }
  for (std::size_t i = 0; i < slots; ++i) {
    const View& s = spec.in[slotsAt_ + i];
    if (s.dtype != compute || !sameShape(s, p)) wrong("a state does not fit the parameter");
  }
  for (std::size_t i = 0; i < outputs; ++i) {
    const View& in = i == 0 ? p : attrs_.master && i == 1 ? spec.in[lowAt_] : spec.in[slotsAt_ + i - (outputs - slots)];
    if (spec.out[i].dtype != in.dtype || !sameShape(spec.out[i], in)) wrong("an output is not of the shape of what it replaces");
  }
  for (const View& v : spec.in) {
    if (!v.contiguous()) wrong("operands must be contiguous");
  }
  for (const View& v : spec.out) {
    if (!v.contiguous()) wrong("outputs must be contiguous");
  }

  storage_ = p.dtype != DType::bfloat16 ? Storage::plain
             : attrs_.master            ? Storage::master
             : stochastic               ? Storage::stochastic
                                        : Storage::nearest;
  size_ = p.size();
  shape_ = {1, size_, p.rank};
  if (rule_->scope == rules::Scope::rows && p.rank > 0) shape_ = {p.shape[0], p.shape[0] ? size_ / p.shape[0] : 0, p.rank};
  if (rule_->finish) {
    segments_ = (shape_.cols + kTile - 1) / kTile;
    const std::int64_t numbers = shape_.rows * (segments_ * rule_->sums + rule_->sums + rule_->factors);
    workspace = static_cast<std::size_t>(numbers) * sizeof(double);
  }
}

// Gives f the arrays of [begin, end) in pieces: the whole where nothing is packed, else blocks on the stack.
// `moves` says whether f writes weights.
template <class T, class F>
void Update::walk(const Call& call, const Step<T>& step, std::int64_t begin, std::int64_t end, bool moves, F&& f) const {
  const int slots = rule_->slots, firstOut = storage_ == Storage::master ? 2 : 1;
  Arrays<T> a;
  const auto point = [&](std::int64_t i) {
    for (int k = 0; k < slots; ++k) {
      a.s[k] = call.in[slotsAt_ + k].as<const T>() + i;
      a.sOut[k] = call.out[firstOut + k].as<T>() + i;
    }
  };
  if (storage_ == Storage::plain) {
    point(begin);
    a.p = call.in[0].as<const T>() + begin;
    a.g = call.in[1].as<const T>() + begin;
    a.pOut = call.out[0].as<T>() + begin;
    f(a, end - begin);
    return;
  }
  if constexpr (std::is_same_v<T, float>) {
    alignas(64) float weights[kBlock], grads[kBlock];
    const bool narrow = call.in[1].dtype == DType::bfloat16;
    for (std::int64_t i = begin; i < end; i += kBlock) {
      const std::int64_t n = std::min(kBlock, end - i);
      point(i);
      const bf16* p = call.in[0].as<const bf16>() + i;
      if (storage_ == Storage::master) {
        const std::uint8_t* low = call.in[lowAt_].as<const std::uint8_t>() + i;
        unpackMaster(p, low, low + size_, weights, n);
      } else {
        unpack(p, weights, n);
      }
      if (narrow) unpack(call.in[1].as<const bf16>() + i, grads, n);
      a.p = a.pOut = weights;
      a.g = narrow ? grads : call.in[1].as<const float>() + i;
      f(a, n);
      if (!moves) continue;
      bf16* out = call.out[0].as<bf16>() + i;
      if (storage_ == Storage::master) {
        std::uint8_t* low = call.out[1].as<std::uint8_t>() + i;
        packMaster(weights, out, low, low + size_, n);
      } else if (storage_ == Storage::stochastic) {
        packStochastic(weights, out, n, i, step.rounding);
      } else {
        packNearest(weights, out, n);
      }
    }
  }
}

template <class T>
void Update::twoPhase(const Call& call, const Step<T>& step) const {
  const int sums = rule_->sums, factors = rule_->factors;
  const auto [rows, cols, rank] = shape_;
  double* partial = reinterpret_cast<double*>(call.workspace);  // [rows, segments, sums]
  double* whole = partial + rows * segments_ * sums;            // [rows, sums]
  double* factor = whole + rows * sums;                         // [rows, factors]
  const RuleFunctions<T>& rule = functions<T>();
  const auto pieces = [&](auto&& f) {
    call.pool.run(rows * segments_, [&](std::int64_t tile, int) {
      const std::int64_t row = tile / segments_, at = tile % segments_ * kTile;
      f(tile, row, row * cols + at, row * cols + std::min(cols, at + kTile));
    });
  };
  pieces([&](std::int64_t tile, std::int64_t, std::int64_t begin, std::int64_t end) {
    double* out = partial + tile * sums;
    for (int k = 0; k < sums; ++k) out[k] = 0;
    walk<T>(call, step, begin, end, false, [&](const Arrays<T>& a, std::int64_t n) { rule.reduce(a, n, step.scale, step.coef, out); });
  });
  for (std::int64_t row = 0; row < rows; ++row) {
    for (int k = 0; k < sums; ++k) {
      double sum = 0;
      for (std::int64_t i = 0; i < segments_; ++i) sum += partial[(row * segments_ + i) * sums + k];
      whole[row * sums + k] = sum;
    }
  }
  rule_->finish(attrs_.hyper.data(), shape_, step.lr, step.t, whole, factor);
  pieces([&](std::int64_t, std::int64_t row, std::int64_t begin, std::int64_t end) {
    walk<T>(call, step, begin, end, true,
            [&](const Arrays<T>& a, std::int64_t n) { rule.apply(a, n, step.scale, step.coef, factor + row * factors); });
  });
}

template <class T>
void Update::runAs(const Call& call, double scale) const {
  const double* args = call.in[2].as<const double>();
  Step<T> step;
  step.scale = static_cast<T>(scale);
  step.lr = args[0] * attrs_.lrScale;
  step.t = args[1];
  if (storage_ == Storage::stochastic) {
    const std::int32_t* key = call.in[keyAt_].as<const std::int32_t>();
    const auto count = static_cast<std::uint64_t>(step.t >= 0 && step.t < 0x1p53 ? step.t : 0);
    step.rounding = {{static_cast<std::uint32_t>(key[0]), static_cast<std::uint32_t>(key[1])},
                     static_cast<std::uint32_t>(count),
                     static_cast<std::uint32_t>(attrs_.site)};
  }
  functions<T>().prepare(attrs_.hyper.data(), step.lr, step.t, step.coef);
  if (rule_->finish) return twoPhase<T>(call, step);
  call.pool.run((size_ + kTile - 1) / kTile, [&](std::int64_t tile, int) {
    const std::int64_t begin = tile * kTile;
    walk<T>(call, step, begin, std::min(size_, begin + kTile), true,
            [&](const Arrays<T>& a, std::int64_t n) { functions<T>().step(a, n, step.scale, step.coef); });
  });
}

bool Update::finite(const Call& call, double scale) const {
  if (!std::isfinite(scale)) return false;
  const View& g = call.in[1];
  std::atomic<bool> good{true};
  call.pool.run((size_ + kTile - 1) / kTile, [&](std::int64_t tile, int) {
    const std::int64_t begin = tile * kTile, n = std::min(kTile, size_ - begin);
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
  if (scaleAt_ >= 0) {
    const View& v = call.in[scaleAt_];
    scale = v.dtype == DType::float64 ? *v.as<const double>() : *v.as<const float>();
  }
  if (attrs_.check && !finite(call, scale)) {
    call.fault.store(1, std::memory_order_relaxed);
    return;
  }
  if (size_ == 0) return;
  if (call.in[0].dtype == DType::float64) return runAs<double>(call, scale);
  runAs<float>(call, scale);
}

}  // namespace

std::unique_ptr<Kernel> makeUpdate(const Spec& spec) { return std::make_unique<Update>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
