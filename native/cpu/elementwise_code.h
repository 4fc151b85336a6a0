// A chain of elementwise steps, made ready to run.
#pragma once

#include "cpu/elementwise.h"
#include "cpu/elementwise_chain.h"

namespace steepest::STEEPEST_LEVEL::ew {

// How the steps of a chain are run: a loop, and one that rounds what it gave (may be null).
struct RunStep {
  Loop loop, narrow;
};
struct RunChain {
  Chain chain;
  std::vector<RunStep> loops;
  // One vector of each constant.
  struct alignas(64) Vector {
    std::byte at[64];
  };
  std::vector<Vector> constants;
};

// Throws Error("PROGRAM") unless the program is right.
RunChain compileChain(const Spec& spec);

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
