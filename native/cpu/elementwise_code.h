// A chain of elementwise steps, checked and made ready to run.
#pragma once

#include <vector>

#include "cpu/elementwise.h"
#include "cpu/layout.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL::ew {

struct Step {
  Loop loop;
  Loop narrow;  // may be null
  int arity;
  int sources[3];
  int target;  // register
  int slot;    // where the register lies, in blocks
  bool last;   // no later step reads an input
};

// How an operand of the chain lies: runs of equal stride.
struct Input {
  layout::Loops<1> loops;
  DType dtype;
  int slot;
  bool used;
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

// Registers are numbered as in the program: inputs, constants, one per step.
struct Chain {
  std::vector<Input> inputs;
  std::vector<Step> steps;
  std::vector<Output> outputs;
  // One vector of each constant in each kind that reads it.
  struct alignas(64) Vector {
    std::byte at[64];
  };
  std::vector<Vector> constants;
  std::vector<int> constantRegisters;  // register that constants[i] fills
  int registers = 0;
  int slots = 0;
  std::int64_t width = 4;  // bytes of a lane of a slot
  std::int64_t size = 0;   // lanes of the whole chain
  std::int64_t row = 0;    // blocks do not cross multiples of this, or 0
  Patches patches;
  std::int64_t cost = 0;  // of a lane, in about the cost of an addition
};

// Throws Error("PROGRAM") unless the program is right.
Chain compileChain(const Spec& spec);

// Lanes start .. start + n of an input into a register, padded with zeros to a multiple of 16.
void fetch(const Input& input, const std::byte* data, std::int64_t start, std::int64_t n, std::byte* to);
// A rectangle of an input, row after row, padded in the same way.
void fetchPatch(DType dtype, const std::byte* data, std::int64_t rowStep, std::int64_t colStep, std::int64_t rows, std::int64_t cols,
                std::byte* to);
// One vector of the element at `data`.
void spread(DType dtype, const std::byte* data, std::byte* to);
// A register into memory.
void put(DType dtype, Source from, std::byte* to, std::int64_t n);

}  // namespace steepest::STEEPEST_LEVEL::ew
