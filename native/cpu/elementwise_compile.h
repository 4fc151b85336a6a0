// From the words of an instruction to a chain: dtypes, slots, rows. Every backend runs what comes out in its own way.
#pragma once

#include <algorithm>
#include <cmath>

#include "attrs/elementwise.gen.h"
#include "cpu/copy.h"
#include "cpu/elementwise_chain.h"
#include "cpu/elementwise_fold.h"
#include "cpu/elementwise_tables.h"

namespace steepest::STEEPEST_LEVEL::ew {

using layout::check;

constexpr int kWords = 6;

inline int word(double x, int low, int high) {
  check(x >= low && x <= high && x == std::trunc(x), "elementwise", "a word of the code is out of its range");
  return static_cast<int>(x);
}

class Compiler {
 public:
  Compiler(const Spec& spec, const ElementwiseAttrs& attrs) : spec_(spec), attrs_(attrs) {}

  Chain compile(bool trees) {
    operands();
    steps();
    outputs();
    if (trees) fold(chain_, makers_);
    place();
    cut();
    return std::move(chain_);
  }

 private:
  void operands() {
    check(attrs_.shape.size() <= kMaxRank, "elementwise", "the rank of the result");
    for (const View& v : spec_.in) {
      shape(v);
      Input input{layout::loopsOf(v), v.dtype, -1, false, -1};
      chain_.inputs.push_back(input);
      dtypes_.push_back(v.dtype);
      makers_.push_back(-1);
    }
    for (std::size_t i = 0; i < attrs_.constants.size(); ++i) {
      dtypes_.push_back(DType::float32);
      makers_.push_back(-2);
    }
  }

  void shape(const View& v) {
    bool same = v.rank == static_cast<int>(attrs_.shape.size());
    for (int i = 0; same && i < v.rank; ++i) same = v.shape[i] == attrs_.shape[static_cast<std::size_t>(i)];
    check(same, "elementwise", "an operand has not the shape of the result");
  }

  // The register that a step of the given dtype reads.
  int source(double x, DType dtype) {
    const int reg = word(x, 0, static_cast<int>(dtypes_.size()) - 1);
    const auto at = static_cast<std::size_t>(reg);
    if (makers_[at] != -2) {
      check(dtypes_[at] == dtype, "elementwise", "a step reads a register of another dtype");
      if (makers_[at] == -1) chain_.inputs[at].used = true;
      return reg;
    }
    // Constants are numbered behind the steps once their number is known: -1 - index.
    const auto key = std::pair(reg, dtype);
    const auto known = std::find(readings_.begin(), readings_.end(), key);
    const auto index = known - readings_.begin();
    if (known == readings_.end()) {
      readings_.push_back(key);
      chain_.constants.push_back({attrs_.constants[at - chain_.inputs.size()], dtype});
    }
    return -1 - static_cast<int>(index);
  }

  void steps() {
    check(attrs_.code.size() % kWords == 0, "elementwise", "the code is cut off");
    for (std::size_t at = 0; at < attrs_.code.size(); at += kWords) {
      const double* w = attrs_.code.data() + at;
      const int op = word(w[0], 0, kEws - 1);
      const auto from = static_cast<DType>(word(w[1], 0, kDTypes - 1)), to = static_cast<DType>(word(w[2], 0, kDTypes - 1));
      Step step{};
      step.op = static_cast<Ew>(op);
      step.from = from;
      step.to = to;
      step.arity = arities[op];
      if (step.op != Ew::cast_) {
        check(takes(op, kindOf(from)), "elementwise", "a step does not take this dtype");
        check(to == (truths[op] ? DType::uint8 : from), "elementwise", "the dtype of a step's result");
        const bool narrow = to == DType::uint8 || (to == DType::bfloat16 && !keeps(step.op));
        step.narrows = narrow && !truths[op];
      }
      for (int k = 0; k < 3; ++k) {
        if (k >= arities[op])
          check(w[3 + k] == -1, "elementwise", "a step has too many sources");
        else
          step.sources[k] = source(w[3 + k], k == 0 && conditions[op] ? DType::uint8 : from);
      }
      step.target = static_cast<int>(dtypes_.size());
      makers_.push_back(static_cast<int>(chain_.steps.size()));
      dtypes_.push_back(to);
      chain_.steps.push_back(step);
      chain_.cost += opCost(static_cast<Ew>(op)) * (from == DType::float64 ? 2 : 1);
    }
    chain_.registers = static_cast<int>(dtypes_.size() + chain_.constants.size());
    for (std::size_t i = 0; i < chain_.constants.size(); ++i) chain_.constantRegisters.push_back(static_cast<int>(dtypes_.size() + i));
    for (Step& step : chain_.steps) {
      for (int k = 0; k < step.arity; ++k) {
        if (step.sources[k] < 0) step.sources[k] = chain_.constantRegisters[static_cast<std::size_t>(-1 - step.sources[k])];
      }
    }
  }

  // Gives a value that bfloat16 holds where the operands are such.
  static bool keeps(Ew op) {
    switch (op) {
      case Ew::where_:
      case Ew::neg_:
      case Ew::abs_:
      case Ew::sign_:
      case Ew::relu_:
      case Ew::maximum_:
      case Ew::minimum_:
      case Ew::floor_:
      case Ew::ceil_:
      case Ew::round_:
        return true;
      default:
        return false;
    }
  }

  static int opCost(Ew op) {
    switch (op) {
      case Ew::exp_:
      case Ew::expm1_:
      case Ew::log_:
      case Ew::log1p_:
      case Ew::tanh_:
      case Ew::sigmoid_:
      case Ew::silu_:
      case Ew::sin_:
      case Ew::cos_:
      case Ew::geluTanh_:
        return 8;
      case Ew::erf_:
      case Ew::gelu_:
      case Ew::softplus_:
      case Ew::geluGrad_:
      case Ew::geluTanhGrad_:
      case Ew::siluGrad_:
        return 16;
      case Ew::pow_:
        return 50;
      case Ew::div_:
      case Ew::sqrt_:
      case Ew::rsqrt_:
      case Ew::reciprocal_:
      case Ew::floorDiv_:
      case Ew::remainder_:
        return 3;
      default:
        return 1;
    }
  }

  void outputs() {
    check(spec_.out.size() == attrs_.outputs.size() && !spec_.out.empty(), "elementwise", "outputs and their registers must be as many");
    for (std::size_t i = 0; i < spec_.out.size(); ++i) {
      const View& v = spec_.out[i];
      const auto reg = word(static_cast<double>(attrs_.outputs[i]), 0, static_cast<int>(dtypes_.size()) - 1);
      const int maker = makers_[static_cast<std::size_t>(reg)];
      check(maker != -2, "elementwise", "a constant is no output");
      check(dtypes_[static_cast<std::size_t>(reg)] == v.dtype, "elementwise", "the dtype of an output");
      check(v.contiguous(), "elementwise", "an output is not contiguous");
      shape(v);
      if (maker < 0) chain_.inputs[static_cast<std::size_t>(reg)].used = true;
      chain_.outputs.push_back({reg, v.dtype, maker});
    }
    chain_.size = spec_.out[0].size();
  }

  // Gives registers slots; a slot is free again after the last step that reads it.
  void place() {
    const auto steps = static_cast<int>(chain_.steps.size());
    std::vector<int> lastRead(static_cast<std::size_t>(chain_.registers), -1);
    std::vector<bool> readByStep(static_cast<std::size_t>(chain_.registers));
    for (int s = 0; s < steps; ++s) {
      const Step& step = chain_.steps[static_cast<std::size_t>(s)];
      for (int k = 0; k < step.arity; ++k) {
        lastRead[static_cast<std::size_t>(step.sources[k])] = s;
        readByStep[static_cast<std::size_t>(step.sources[k])] = true;
      }
    }
    // Loads come before all steps, stores after them.
    for (const Output& o : chain_.outputs) lastRead[static_cast<std::size_t>(o.reg)] = steps;
    std::vector<int> slotOf(static_cast<std::size_t>(chain_.registers), -1), free;
    const auto take = [&] {
      if (free.empty()) return chain_.slots++;
      const int slot = free.back();
      free.pop_back();
      return slot;
    };
    int lastInput = -1;
    for (std::size_t i = 0; i < chain_.inputs.size(); ++i) {
      if (kindOf(chain_.inputs[i].dtype) == Kind::twice) chain_.width = 8;
      if (!chain_.inputs[i].used) continue;
      slotOf[i] = chain_.inputs[i].slot = take();
      chain_.inputs[i].lastRead = lastRead[i];
      lastInput = std::max(lastInput, lastRead[i]);
    }
    for (int s = 0; s < steps; ++s) {
      Step& step = chain_.steps[static_cast<std::size_t>(s)];
      const Kind kind = kindOf(dtypes_[static_cast<std::size_t>(step.target)]);
      if (kind == Kind::twice) chain_.width = 8;
      const auto release = [&](bool same) {
        for (int k = 0; k < step.arity; ++k) {
          const int r = step.sources[k];
          int& slot = slotOf[static_cast<std::size_t>(r)];
          if (slot < 0 || lastRead[static_cast<std::size_t>(r)] != s) continue;
          // A step may write over what it reads lane by lane, but not over lanes of another width.
          if (same != (kindOf(dtypes_[static_cast<std::size_t>(r)]) == kind)) continue;
          free.push_back(slot);
          slot = -1;
        }
      };
      release(true);
      step.slot = take();
      slotOf[static_cast<std::size_t>(step.target)] = step.slot;
      release(false);
      const int last = lastRead[static_cast<std::size_t>(step.target)];
      if (last < 0) free.push_back(step.slot);
      // Storing rounds too.
      if (last == steps && !readByStep[static_cast<std::size_t>(step.target)]) step.narrows = false;
      step.last = s >= lastInput;
    }
  }

  // The shape with axes merged that all operands walk as one, and the axis along which a transposed operand is dense.
  void patch() {
    constexpr std::int64_t kLeast = 16;
    Patches p;
    p.strides.resize(chain_.inputs.size());
    for (std::size_t d = 0; d < attrs_.shape.size(); ++d) {
      const std::int64_t n = attrs_.shape[d];
      if (n == 1) continue;
      bool merges = p.rank > 0;
      for (std::size_t i = 0; merges && i < chain_.inputs.size(); ++i) {
        merges = !chain_.inputs[i].used || p.strides[i][static_cast<std::size_t>(p.rank - 1)] == spec_.in[i].strides[d] * n;
      }
      if (!merges) p.shape[p.rank++] = 1;
      p.shape[p.rank - 1] *= n;
      for (std::size_t i = 0; i < chain_.inputs.size(); ++i) p.strides[i][static_cast<std::size_t>(p.rank - 1)] = spec_.in[i].strides[d];
    }
    p.inner = p.rank - 1;
    if (p.rank < 2 || p.shape[p.inner] < kLeast) return;
    for (std::size_t i = 0; i < chain_.inputs.size(); ++i) {
      if (!chain_.inputs[i].used || std::llabs(p.strides[i][static_cast<std::size_t>(p.inner)]) < 2) continue;
      for (int d = 0; d < p.inner; ++d) {
        if (p.shape[d] >= kLeast && std::llabs(p.strides[i][static_cast<std::size_t>(d)]) == 1) p.row = d;
      }
    }
    if (p.row >= 0) chain_.patches = std::move(p);
  }

  // Rows: where some operand repeats in runs that are long enough, blocks within a run need no gathering.
  void cut() {
    chain_.cost += static_cast<std::int64_t>(chain_.inputs.size() + chain_.outputs.size());
    patch();
    if (chain_.patches.row >= 0) return;
    std::int64_t row = 0;
    for (const Input& input : chain_.inputs) {
      if (!input.used || input.loops.rank < 2) continue;
      const std::int64_t n = input.loops.at[input.loops.rank - 1].n;
      row = row == 0 ? n : std::min(row, n);
    }
    for (const Input& input : chain_.inputs) {
      if (row > 0 && input.used && input.loops.rank >= 2 && input.loops.at[input.loops.rank - 1].n % row) row = 0;
    }
    if (row >= 1024 || (row >= 128 && row % 16 == 0)) chain_.row = row;
  }

  const Spec& spec_;
  const ElementwiseAttrs& attrs_;
  Chain chain_;
  std::vector<DType> dtypes_;
  // Per register: the step that makes it, -1 for inputs, -2 for constants.
  std::vector<int> makers_;
  std::vector<std::pair<int, DType>> readings_;
};

// Throws Error("PROGRAM") unless the program is right. With `trees`, steps may be trees of two levels.
inline Chain makeChain(const Spec& spec, bool trees = false) {
  const ElementwiseAttrs attrs = ElementwiseAttrs::decode(spec.attrs);
  return Compiler(spec, attrs).compile(trees);
}

}  // namespace steepest::STEEPEST_LEVEL::ew
