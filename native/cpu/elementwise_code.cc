// A chain with the loops that run its steps.
#include "cpu/elementwise_code.h"
#include "cpu/elementwise_compile.h"

namespace steepest::STEEPEST_LEVEL::ew {

namespace {

// A constant is read in the dtype of the step, so that it needs a vector for each.
void fill(std::byte* at, const Constant& c) {
  if (c.dtype == DType::float64)
    store(reinterpret_cast<double*>(at), vd(c.value));
  else if (c.dtype == DType::int32)
    store(reinterpret_cast<std::int32_t*>(at), vi(c.whole()));
  else
    store(reinterpret_cast<float*>(at), vf(c.single()));
  if (c.dtype == DType::bfloat16) {
    const Source self{at, 0};
    narrowLoop(c.dtype)(&self, at, 16);
  }
}

}  // namespace

RunChain compileChain(const Spec& spec) {
  RunChain run{makeChain(spec, true), {}, {}};
  for (const Step& step : run.chain.steps) {
    const auto op = static_cast<int>(step.op);
    const Kind kind = kindOf(step.from);
    const Loop loop = step.tree              ? treeLoop(rootOf(step.op), step.left, step.right)
                      : step.op == Ew::cast_ ? castLoop(step.from, step.to)
                                             : (kind == Kind::twice   ? doubleLoops
                                                : kind == Kind::whole ? intLoops
                                                                      : singleLoops)[op];
    run.loops.push_back({loop, step.narrows ? narrowLoop(step.to) : nullptr});
  }
  run.constants.resize(run.chain.constants.size());
  for (std::size_t i = 0; i < run.constants.size(); ++i) fill(run.constants[i].at, run.chain.constants[i]);
  return run;
}

}  // namespace steepest::STEEPEST_LEVEL::ew
