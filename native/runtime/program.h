// A program: a flat list of instructions over one arena and the buffers that are bound to it.
// The words come from lib/graph/program.ts and may be wrong: everything is checked here, once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernel.h"
#include "memory.h"

namespace steepest {

// Where an operand lies.
enum class Space : std::uint8_t { arena, external, constant };

struct Operand {
  Space space;
  std::int32_t index;  // of the external
  std::size_t offset;  // bytes from the start of the space
};

// What a kernel of a GPU is besides, where its run() may wait for numbers from the device (the condition of a branch): it cannot be part of
// a captured graph.
struct Waiting {
  virtual ~Waiting() = default;
  bool waits = true;
};
bool waits(const Kernel& kernel);

struct Instruction {
  int op = 0;
  std::vector<View> views;        // inputs, then outputs; data null
  std::vector<Operand> operands;  // beside them
  int inputs = 0;
  std::size_t workspace = 0;  // offset in the arena
  std::unique_ptr<Kernel> kernel;
};

class Program {
 public:
  // The words and the constants that they refer to. `kernels` has one factory per op; `threads` sizes the scratch of threads.
  Program(std::span<const double> words, std::span<const std::byte> constants, std::span<const Factory> kernels, int threads);

  struct External {
    std::size_t bytes;
    bool written;
  };
  std::span<const External> externals() const { return externals_; }
  std::size_t arenaBytes() const { return arenaBytes_; }
  int threads() const { return threads_; }
  std::size_t size() const { return instructions_.size(); }

  const Instruction& at(std::size_t i) const { return instructions_[i]; }
  std::span<const std::byte> constants() const { return constants_; }
  // Whether a kernel of it waits for numbers from a device.
  bool waits() const;

  // Runs instruction i with the given memory, and with all else as `like` has it. Views are resolved into `views`, which is reused from
  // call to call. `constants` is where they lie on the device that runs it.
  void step(std::size_t i, std::byte* arena, std::span<std::byte* const> externals, const std::byte* constants, const Call& like,
            std::vector<View>& views) const;
  // Whether an output of instruction i (as just run) holds a non-finite number.
  bool nonFinite(std::size_t i, std::span<const View> resolved) const;

 private:
  std::vector<External> externals_;
  std::vector<std::byte> constants_;
  std::vector<Instruction> instructions_;
  std::size_t arenaBytes_ = 0;
  int threads_;
};

// Scratch bytes that an instruction asks for: words are those of one instruction.
std::size_t workspaceOf(std::span<const double> instruction, std::span<const Factory> kernels, int threads);

}  // namespace steepest
