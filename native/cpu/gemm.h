// One matrix product on one thread, for kernels that cut their own work: C = A·B, or C += A·B.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/dnnl.h"
#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL {

// A [m, k], B [k, n], C [m, n]. Strides are in elements and may be anything (a transposed matrix has the row stride 1; 0 and
// negative ones too): an operand that no library takes as it lies is copied into scratch first.
struct GemmShape {
  std::int64_t m, n, k;
  std::int64_t aRow, aCol;
  std::int64_t bRow, bCol;
  std::int64_t cRow;  // the elements of a row of C lie side by side
  // float32, bfloat16 or float64 for A and B; C has the same dtype, or float32 where A and B are bfloat16.
  DType in = DType::float32;
  DType out = DType::float32;
  bool accumulate = false;

  // A [m, k] and B [k, n], each contiguous as it is or as its transpose is.
  static GemmShape dense(std::int64_t m, std::int64_t n, std::int64_t k, DType in, DType out, bool transA = false, bool transB = false,
                         bool accumulate = false) {
    return {m, n, k, transA ? 1 : k, transA ? m : 1, transB ? 1 : n, transB ? k : 1, n, in, out, accumulate};
  }
};

// Made where a program is loaded (library code is generated here), run any number of times, by any number of threads at once.
// Sums are in float32 (float64 for float64); the bits depend on the shape, the level and the machine type, not on the thread.
// k = 0 gives zeros (or leaves C as it is when accumulating); m = 0 or n = 0 does nothing.
class Gemm {
 public:
  Gemm() = default;
  explicit Gemm(const GemmShape& shape);

  const GemmShape& shape() const { return shape_; }
  // Bytes that run() wants, 64-byte aligned.
  std::size_t scratch() const { return scratch_; }
  void run(const void* a, const void* b, void* c, std::byte* scratch) const;

 private:
  // `row` is a row times a matrix of contiguous rows, `dots` one of contiguous columns; all but `dnnl` are steepest's own.
  enum class Engine { nothing, own, row, dots, dnnl };

  template <class In, class Acc>
  void runOwn(const In* a, const In* b, Acc* c, Acc* panel) const;
  void moveC(void* c, void* staged, bool in) const;

  GemmShape shape_{};  // as asked for
  GemmShape inner_{};  // as the engine sees it, after operands were packed and C was staged
  Engine engine_ = Engine::nothing;
  bool transposed_ = false, widened_ = false, packA_ = false, packB_ = false, stageC_ = false;
  std::size_t bAt_ = 0, cAt_ = 0, libraryAt_ = 0;
  std::size_t scratch_ = 0;
  Primitive primitive_;
};

}  // namespace steepest::STEEPEST_LEVEL
