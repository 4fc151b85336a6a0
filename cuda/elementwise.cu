// The elementwise instruction: a chain of steps in one launch.
#include "cuda/elementwise.cuh"

#include <vector>

#include "cpu/elementwise_compile.h"

namespace steepest::cuda {

namespace ew {
namespace {

using Compiled = Chain;

float rounded(float x) {
  bf16 half;
  store(&half, vf(x));
  return vf::load(&half).v;
}

double constantOf(const Constant& c) {
  if (c.dtype == DType::float64) return c.value;
  if (c.dtype == DType::int32) return c.whole();
  return c.dtype == DType::bfloat16 ? rounded(c.single()) : c.single();
}

// Orders loads and steps, an input being loaded right before it is first read, and gives registers slots anew.
class Layout {
 public:
  explicit Layout(const Compiled& chain) : chain_(chain), slotOf_(static_cast<std::size_t>(chain.registers), kNone) {
    for (std::size_t i = 0; i < chain.constants.size(); ++i) slotOf_[index(chain.constantRegisters[i])] = -1 - static_cast<int>(i);
    lastRead_.assign(static_cast<std::size_t>(chain.registers), -1);
    const int end = static_cast<int>(chain.steps.size());
    for (int s = 0; s < end; ++s) {
      const Step& step = chain.steps[index(s)];
      for (int k = 0; k < step.arity; ++k) lastRead_[index(step.sources[k])] = s;
    }
    for (const Output& o : chain.outputs) lastRead_[index(o.reg)] = end;
  }

  void fill(Bytecode& to) {
    for (std::size_t s = 0; s < chain_.steps.size(); ++s) {
      const Step& step = chain_.steps[s];
      for (int k = 0; k < step.arity; ++k) need(step.sources[k], to);
      Code code{static_cast<std::int16_t>(step.op), 0, 0, 0, 0, step.from, step.to, step.narrows};
      std::int16_t* sources[] = {&code.a, &code.b, &code.c};
      for (int k = 0; k < step.arity; ++k) *sources[k] = static_cast<std::int16_t>(slotOf_[index(step.sources[k])]);
      // A step reads all sources of a lane before it writes; all slots are of one width.
      for (int k = 0; k < step.arity; ++k) release(step.sources[k], static_cast<int>(s));
      code.to = static_cast<std::int16_t>(take());
      slotOf_[index(step.target)] = code.to;
      if (lastRead_[index(step.target)] < 0) free_.push_back(code.to);
      to.code[to.steps++] = code;
    }
    for (const Output& o : chain_.outputs) {
      need(o.reg, to);
      to.outputs[to.results++] = {nullptr, static_cast<std::int16_t>(slotOf_[index(o.reg)]), o.dtype, false};
    }
  }
  int slots() const { return slots_; }

 private:
  static constexpr int kNone = -1000;
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  int take() {
    if (free_.empty()) return slots_++;
    const int slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void need(int reg, Bytecode& to) {
    if (slotOf_[index(reg)] != kNone) return;
    const int slot = take();
    slotOf_[index(reg)] = slot;
    to.code[to.steps++] = {kEws, static_cast<std::int16_t>(reg), 0, 0, static_cast<std::int16_t>(slot), {}, {}, false};
  }
  void release(int reg, int step) {
    if (slotOf_[index(reg)] < 0 || lastRead_[index(reg)] != step) return;
    free_.push_back(slotOf_[index(reg)]);
    lastRead_[index(reg)] = -1;
  }

  const Compiled& chain_;
  std::vector<int> slotOf_, lastRead_, free_;
  int slots_ = 0;
};

class Elementwise final : public Kernel {
 public:
  explicit Elementwise(const Spec& spec) {
    const Compiled compiled = makeChain(spec);
    check(compiled.inputs.size() <= kMostInputs && compiled.outputs.size() <= kMostOutputs && compiled.steps.size() <= kMostSteps &&
              compiled.constants.size() <= kMostConstants,
          "elementwise", "a chain too long for a GPU");
    chain_.size = compiled.size;
    Layout layout(compiled);
    layout.fill(chain_);
    bool twice = false;
    for (std::size_t i = 0; i < compiled.inputs.size(); ++i) {
      const Input& in = compiled.inputs[i];
      Operand& to = chain_.inputs[i];
      to.dtype = in.dtype;
      to.rank = static_cast<std::int8_t>(in.uniform() ? 0 : in.loops.rank);
      to.wide = in.contiguous();
      for (int d = 0; d < to.rank; ++d) {
        to.n[d] = in.loops.at[d].n;
        to.step[d] = in.loops.at[d].step[0];
      }
      twice = twice || (in.used && in.dtype == DType::float64);
    }
    for (const Step& s : compiled.steps) twice = twice || s.from == DType::float64 || s.to == DType::float64;
    for (std::size_t i = 0; i < compiled.constants.size(); ++i) chain_.constants[i] = constantOf(compiled.constants[i]);
    width_ = twice ? 8 : 4;
    // As many threads as their registers allow.
    const int slots = std::max(1, layout.slots());
    perThread_ = static_cast<std::size_t>(slots * kLanes * width_);
    while (block_ > 32 && perThread_ * static_cast<std::size_t>(block_) > kSharedByDefault) block_ /= 2;
  }

  void run(const Call& call) const override {
    if (chain_.size == 0) return;
    Bytecode chain = chain_;
    for (std::size_t i = 0; i < call.in.size(); ++i) {
      chain.inputs[i].data = call.in[i].data;
      chain.inputs[i].wide = chain.inputs[i].wide && aligned16(call.in[i].data);
    }
    for (std::size_t i = 0; i < call.out.size(); ++i) {
      chain.outputs[i].data = call.out[i].data;
      chain.outputs[i].wide = aligned16(call.out[i].data);
    }
    const unsigned grid = gridFor(ceilDiv<std::int64_t>(chain.size, kLanes), block_);
    const std::size_t bytes = perThread_ * static_cast<std::size_t>(block_);
    if (width_ == 8)
      STEEPEST_LAUNCH(ew::run<8>, grid, static_cast<unsigned>(block_), bytes, call, chain, call.deviceFault);
    else
      STEEPEST_LAUNCH(ew::run<4>, grid, static_cast<unsigned>(block_), bytes, call, chain, call.deviceFault);
  }

 private:
  Bytecode chain_{};
  int width_ = 4, block_ = 128;
  std::size_t perThread_ = 0;
};

}  // namespace
}  // namespace ew

std::unique_ptr<Kernel> makeElementwise(const Spec& spec) { return std::make_unique<ew::Elementwise>(spec); }

}  // namespace steepest::cuda
