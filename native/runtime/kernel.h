// What a backend implements: one factory per structured op of the table.
#pragma once

#include <memory>
#include <span>

#include "pool.h"
#include "types.h"

namespace steepest {

// An instruction as it is known when a program is loaded: shapes, dtypes, strides and attributes, no data.
struct Spec {
  std::span<const View> in;
  std::span<const View> out;
  std::span<const double> attrs;  // decode with the struct of attrs/<op>.gen.h
  int threads;
};

// The same instruction while it runs: the same views with data, and scratch of `Kernel::workspace` bytes (64-byte aligned).
struct Call {
  std::span<const View> in;
  std::span<const View> out;
  std::byte* workspace;
  Pool& pool;
  // Set (to 1) by a kernel that met a non-finite number; updates that find it set write nothing, and the run ends after the instruction.
  std::atomic<int>& fault;
  // Set by who wants the run to end; an instruction that may take long (a loop) looks at it and ends with `fault` −1.
  const std::atomic<bool>* cancel = nullptr;
  // On a GPU: the CUDA stream to launch on, and what stands for `fault` there (device memory; kernels store 1, 2 or 3).
  // Then all data and the workspace are device memory, and `run` only launches.
  void* stream = nullptr;
  int* deviceFault = nullptr;
};

// A kernel is made once when its program is loaded (checks, library primitives) and run every step.
// run() keeps no state of its own between calls and may not allocate.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void run(const Call& call) const = 0;
  std::size_t workspace = 0;
};

using Factory = std::unique_ptr<Kernel> (*)(const Spec&);

// For kernels that need nothing but their decoded attributes.
template <class Attrs, void (*Run)(const Call&, const Attrs&)>
class SimpleKernel final : public Kernel {
 public:
  explicit SimpleKernel(const Spec& spec, std::size_t scratch = 0) : attrs_(Attrs::decode(spec.attrs)) { workspace = scratch; }
  void run(const Call& call) const override { Run(call, attrs_); }

 private:
  Attrs attrs_;
};

}  // namespace steepest
