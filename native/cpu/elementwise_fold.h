// Joins steps of a chain to trees of two levels, root(left(a, b), right(c, d)), that run as one loop: steps of float32 whose results
// nothing but a third reads pass through no register. A branch may be a product with a square, a root or a sign (`kTimes`), as the moments
// of optimizers and their signs are. No number changes: the same operations are done in the same order on every lane.
#pragma once

#include <algorithm>
#include <iterator>

#include "cpu/elementwise_chain.h"

namespace steepest::STEEPEST_LEVEL::ew {

// The rows that may stand below and above, in the order of the loops in elementwise_tree.cc; `kStraight` is an operand itself.
inline constexpr Ew kBranches[] = {Ew::add_, Ew::sub_, Ew::mul_, Ew::div_, Ew::square_, Ew::sqrt_, Ew::sign_};
// Those whose result may still be multiplied by a number below; they are numbered behind kBranches.
inline constexpr Ew kTimes[] = {Ew::square_, Ew::sqrt_, Ew::sign_};
inline constexpr Ew kRoots[] = {Ew::add_, Ew::sub_, Ew::mul_, Ew::div_};
constexpr int kStraight = 0;

// −1 for rows that may not stand there.
inline int branchOf(Ew op) {
  const auto found = std::find(std::begin(kBranches), std::end(kBranches), op);
  return found == std::end(kBranches) ? -1 : 1 + static_cast<int>(found - std::begin(kBranches));
}
// The number of a product of another operand and such a result; −1 for others.
inline int timesOf(Ew op) {
  const auto found = std::find(std::begin(kTimes), std::end(kTimes), op);
  if (found == std::end(kTimes)) return -1;
  return 1 + static_cast<int>(std::size(kBranches)) + static_cast<int>(found - std::begin(kTimes));
}
inline int rootOf(Ew op) {
  const auto found = std::find(std::begin(kRoots), std::end(kRoots), op);
  return found == std::end(kRoots) ? -1 : static_cast<int>(found - std::begin(kRoots));
}

// `makers`: by register, the step that makes it, or less than 0.
inline void fold(Chain& chain, const std::vector<int>& makers) {
  const auto at = [](int i) { return static_cast<std::size_t>(i); };
  const auto single = [](const Step& s) { return s.from == DType::float32 && s.to == DType::float32; };
  const auto count = static_cast<int>(chain.steps.size());
  std::vector<int> uses(at(chain.registers));
  for (const Step& step : chain.steps) {
    for (int k = 0; k < step.arity; ++k) ++uses[at(step.sources[k])];
  }
  for (const Output& o : chain.outputs) ++uses[at(o.reg)];
  std::vector<bool> gone(at(count));
  // What a step is as a branch, or −1.
  const auto numberOf = [&](const Step& s) {
    if (!single(s)) return -1;
    if (!s.tree) return branchOf(s.op);
    if (s.op != Ew::mul_ || (s.left != kStraight && s.right != kStraight)) return -1;
    for (const Ew op : kTimes) {
      if (branchOf(op) == s.left + s.right) return timesOf(op);
    }
    return -1;
  };
  for (Step& step : chain.steps) {
    if (!single(step) || rootOf(step.op) < 0) continue;
    int branches[2] = {kStraight, kStraight}, below[2] = {-1, -1};
    for (int k = 0; k < 2; ++k) {
      const int r = step.sources[k], maker = r < static_cast<int>(makers.size()) ? makers[at(r)] : -1;
      if (maker < 0 || uses[at(r)] != 1) continue;
      const int number = numberOf(chain.steps[at(maker)]);
      if (number < 0) continue;
      branches[k] = number;
      below[k] = maker;
    }
    if (below[0] < 0 && below[1] < 0) continue;
    int sources[kMostSources];
    for (int k = 0; k < 2; ++k) {
      const Step* from = below[k] < 0 ? nullptr : &chain.steps[at(below[k])];
      // Of a product that is a tree: what its factors are made of.
      const bool swapped = from && from->tree && from->left == kStraight;
      sources[2 * k] = from ? from->sources[swapped ? 2 : 0] : step.sources[k];
      sources[2 * k + 1] = from && from->arity > 1 ? from->sources[from->tree ? (swapped ? 0 : 2) : 1] : sources[2 * k];
      if (from) gone[at(below[k])] = true;
    }
    std::copy(sources, sources + kMostSources, step.sources);
    step.arity = kMostSources;
    step.tree = true;
    step.left = branches[0];
    step.right = branches[1];
  }
  std::vector<int> moved(at(count), -1);
  int kept = 0;
  for (int s = 0; s < count; ++s) {
    if (gone[at(s)]) continue;
    moved[at(s)] = kept;
    chain.steps[at(kept++)] = chain.steps[at(s)];
  }
  chain.steps.resize(at(kept));
  for (Output& o : chain.outputs) {
    if (o.step >= 0) o.step = moved[at(o.step)];
  }
}

}  // namespace steepest::STEEPEST_LEVEL::ew
