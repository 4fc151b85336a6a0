// What an instruction of the op `update` moves: any number of parameters by one rule.
// Operands: args, scale?, key?, then of every parameter its weight, gradient, hidden bits? and slots; outputs: weight, hidden bits?, slots.
// A slot of eight bits is two operands: codes, and the unit of each block (blockwise.h).
#pragma once

#include <cstdint>
#include <vector>

#include "attrs/update.gen.h"
#include "runtime/kernel.h"
#include "update.h"

namespace steepest::STEEPEST_LEVEL {

enum class Storage { plain, nearest, stochastic, master };

// One parameter.
struct Part {
  int in, out;  // where its operands begin
  std::int64_t size;
  rules::RuleShape shape;
  std::uint32_t site;
  double lrScale;
  int coef;  // which of the coefficients: parameters of one learning rate share them
  // Of a rule that sums: segments of a row, and where the parameter's numbers begin in the workspace.
  std::int64_t segments = 0, numbers = 0;
};

struct UpdateOperands {
  Storage storage;
  int scaleAt = -1, keyAt = -1;
  // Within a parameter's operands.
  int lowAt = -1, slotsAt = 2;
  int firstOut = 1;  // its first slot among the outputs
  bool blockwise = false;
  std::vector<Part> parts;
  std::vector<double> lrScales;  // those that differ
};

// Checks the operands against the rule and against each other, so that no program can reach outside of them.
UpdateOperands readOperands(const Spec& spec, const UpdateAttrs& attrs, const RuleRow& rule);

}  // namespace steepest::STEEPEST_LEVEL
