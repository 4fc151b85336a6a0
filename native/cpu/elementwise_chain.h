// A chain of elementwise steps, checked.
#pragma once

#include <array>
#include <vector>

#include "cpu/elementwise_tables.h"
#include "cpu/layout.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL::ew {

constexpr int kMostSources = 4;

struct Step {
  Ew op;
  DType from, to;  // what it computes in, and what it gives
  bool narrows;    // its result is still to be rounded to `to`
  int arity;
  int sources[kMostSources];
  int target;  // register
  int slot;    // where the register lies, in blocks
  bool last;   // no later step reads an input
  // Of a tree of two levels, op(left(s0, s1), right(s2, s3)): what stands below, as branchOf numbers it.
  bool tree;
  int left, right;
};

// How an operand of the chain lies: runs of equal stride.
struct Input {
  layout::Loops<1> loops;
  DType dtype;
  int slot;
  bool used;
  int lastRead;  // step that reads it last, or the number of steps where it is an output too
  bool uniform() const { return loops.rank == 0 || (loops.rank == 1 && loops.at[0].step[0] == 0); }
  bool contiguous() const { return loops.rank == 1 && loops.at[0].step[0] == 1; }
};

// Patches: where an operand is transposed, blocks are rectangles, so that a line of its memory is read once.
struct Patches {
  int inner = -1, row = -1;  // axes of the merged shape; none where row < 0
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::vector<std::array<std::int64_t, kMaxRank>> strides;  // of each input
};

struct Output {
  int reg;
  DType dtype;
  int step;  // that makes it, or -1 where it is an input or a constant
};

struct Constant {
  double value;
  DType dtype;  // of the step that reads it
  std::int32_t whole() const { return static_cast<std::int32_t>(wrapped()); }
  float single() const { return dtype == DType::uint8 ? static_cast<float>(wrapped() & 0xff) : static_cast<float>(value); }

 private:
  std::int64_t wrapped() const { return static_cast<std::int64_t>(value >= -9e15 && value <= 9e15 ? value : 0); }
};

// Registers are numbered as in the program: inputs, constants, one per step.
struct Chain {
  std::vector<Input> inputs;
  std::vector<Step> steps;
  std::vector<Output> outputs;
  std::vector<Constant> constants;
  std::vector<int> constantRegisters;  // register that constants[i] fills
  int registers = 0;
  int slots = 0;
  std::int64_t width = 4;  // bytes of a lane of a slot
  std::int64_t size = 0;   // lanes of the whole chain
  std::int64_t row = 0;    // blocks do not cross multiples of this, or 0
  Patches patches;
  std::int64_t cost = 0;  // of a lane, in about the cost of an addition
};

}  // namespace steepest::STEEPEST_LEVEL::ew
