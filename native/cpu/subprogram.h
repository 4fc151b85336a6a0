// A body of a loop or a branch: a program that runs within one instruction, on memory that the instruction gives it.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "runtime/attrs.h"
#include "runtime/program.h"

#if defined(STEEPEST_LEVEL_cuda)
#include "cuda/transfer.h"
#endif

namespace steepest::STEEPEST_LEVEL {

std::span<const Factory> kernels();

#if !defined(STEEPEST_LEVEL_cuda)
// What loops and branches do with memory; on a GPU: cuda/transfer.h.
inline void move(const Call&, std::byte* to, const std::byte* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
inline void fetch(const Call&, void* to, const std::byte* from, std::size_t bytes) { std::memcpy(to, from, bytes); }
struct BodyConstants {
  const std::byte* of(const Program& program) const { return program.constants().data(); }
};
#endif

class Body {
 public:
  Body(const ProgramWords& p, const Spec& spec, std::size_t inputs) : program_(load(p, spec)), outputs_(p.outputs) {
    const auto externals = program_.externals();
    if (externals.size() < inputs) throw Error("PROGRAM", "a body has too few inputs");
    for (std::size_t i = 0; i < inputs; ++i) {
      if (externals[i].written) throw Error("PROGRAM", "a body writes to an input");
    }
    std::vector<bool> seen(externals.size());
    for (const std::int64_t o : outputs_) {
      if (o < static_cast<std::int64_t>(inputs) || o >= static_cast<std::int64_t>(externals.size()) || seen[static_cast<std::size_t>(o)]) {
        throw Error("PROGRAM", "a body's output is not an external of its own");
      }
      seen[static_cast<std::size_t>(o)] = true;
    }
    if (outputs_.size() + inputs != externals.size()) throw Error("PROGRAM", "a body has externals that are nobody's");
  }

  // Of kernels of a GPU: whether one waits for numbers, and how many there are.
  bool waits() const { return program_.waits(); }
  std::size_t size() const { return program_.size(); }
  std::size_t arenaBytes() const { return aligned(program_.arenaBytes()); }
  std::size_t outputs() const { return outputs_.size(); }
  std::size_t inputBytes(std::size_t i) const { return program_.externals()[i].bytes; }
  std::size_t outputBytes(std::size_t i) const { return program_.externals()[static_cast<std::size_t>(outputs_[i])].bytes; }
  void requireInput(std::size_t i, std::size_t bytes) const {
    if (inputBytes(i) > bytes) throw Error("PROGRAM", "an operand is smaller than what a body reads");
  }
  void requireOutput(std::size_t i, std::size_t bytes) const {
    if (outputBytes(i) > bytes) throw Error("PROGRAM", "an operand is smaller than what a body writes");
  }

  static constexpr std::size_t aligned(std::size_t n) { return (n + 63) / 64 * 64; }

  // The memory of one run: externals by position, and room for resolved operands.
  class Frame {
   public:
    explicit Frame(const Body& body) : body_(body), externals_(body.program_.externals().size()) {}
    void input(std::size_t i, std::byte* data) { externals_[i] = data; }
    void output(std::size_t i, std::byte* data) { externals_[static_cast<std::size_t>(body_.outputs_[i])] = data; }
    // False where the run ended at a fault, or was cancelled: a loop may be long or endless, so that each round looks.
    bool run(std::byte* arena, const Call& call) {
      const std::byte* constants = body_.constants_.of(body_.program_);
      for (std::size_t i = 0; i < body_.program_.size(); ++i) {
        if (stopped(call)) return false;
        body_.program_.step(i, arena, externals_, constants, call, scratch_);
        if (call.fault.load() != 0) return false;
      }
      return !stopped(call);
    }

   private:
    static bool stopped(const Call& call) {
      if (!call.cancel || !call.cancel->load(std::memory_order_relaxed)) return false;
      int none = 0;
      call.fault.compare_exchange_strong(none, -1);
      return true;
    }

    const Body& body_;
    std::vector<std::byte*> externals_;
    std::vector<View> scratch_;
  };

 private:
  // Bodies may nest, but a wrong program must not exhaust the stack.
  struct Depth {
    Depth() {
      if (++now() > 16) {
        --now();
        throw Error("PROGRAM", "bodies nest too deeply");
      }
    }
    ~Depth() { --now(); }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;
    static int& now() {
      thread_local int depth = 0;
      return depth;
    }
  };
  static Program load(const ProgramWords& p, const Spec& spec) {
    const Depth depth;
    return Program(p.words, p.constants, kernels(), spec.threads);
  }

  Program program_;
  BodyConstants constants_;
  std::vector<std::int64_t> outputs_;
};

}  // namespace steepest::STEEPEST_LEVEL
