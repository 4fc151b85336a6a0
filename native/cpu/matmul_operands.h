// The operands of the row `matmul`: their batch axes, and whether they fit each other.
#pragma once

#include <algorithm>
#include <string>

#include "attrs/matmul.gen.h"
#include "runtime/device.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

// The batch axes of one operand; the last two are the matrix.
struct Batched {
  int axes = 0;
  std::int64_t shape[kMaxRank] = {}, step[kMaxRank] = {};
  std::int64_t row = 0, col = 0;

  Batched() = default;
  explicit Batched(const View& view) : axes(view.rank - 2), row(view.stride(-2)), col(view.stride(-1)) {
    for (int i = 0; i < axes; ++i) {
      shape[i] = view.shape[i];
      step[i] = view.strides[i];
    }
  }
  // Where the matrix of one batch index begins, in elements.
  STEEPEST_HD std::int64_t at(std::int64_t batch) const {
    std::int64_t offset = 0;
    for (int i = axes - 1; i >= 0; --i) {
      offset += batch % shape[i] * step[i];
      batch /= shape[i];
    }
    return offset;
  }
  // A matrix of one row has no use for its row stride: the innermost batch axis may then serve as rows.
  void settle(std::int64_t rows) {
    if (rows != 1) return;
    for (int i = 0; i < axes; ++i) {
      if (shape[i] != 1) row = step[i];
    }
  }
  bool repeats() const {
    for (int i = 0; i < axes; ++i) {
      if (shape[i] != 1 && step[i] != 0) return false;
    }
    return true;
  }
  // The rows of all matrices lie one constant step apart, as if they were one matrix.
  bool stacks(std::int64_t rows) const {
    std::int64_t expect = row * rows;
    for (int i = axes - 1; i >= 0; --i) {
      if (shape[i] != 1 && step[i] != expect) return false;
      expect *= shape[i];
    }
    return true;
  }
};

inline void checkMatmul(const Spec& spec, const MatmulAttrs& attrs) {
  const auto wrong = [](const char* what) { throw Error("PROGRAM", std::string("matmul: ") + what); };
  const std::size_t inputs = 2u + attrs.bias + attrs.residual, outputs = 1u + attrs.preactivation;
  if (spec.in.size() != inputs || spec.out.size() != outputs) wrong("a wrong number of operands");
  const View &a = spec.in[0], &b = spec.in[1];
  if (a.rank < 2 || b.rank != a.rank || !isFloat(a.dtype) || b.dtype != a.dtype) wrong("operands must be matrices of one float dtype");
  const DType out = attrs.outDtype;
  if (out != a.dtype && !(a.dtype == DType::bfloat16 && out == DType::float32))
    wrong("the output's dtype does not follow from the operands'");
  const std::int64_t m = a.dim(-2), k = a.dim(-1), n = b.dim(-1);
  if (b.dim(-2) != k) wrong("the inner lengths differ");
  const auto isResult = [&](const View& v) {
    if (v.rank != a.rank || v.dtype != out || v.dim(-2) != m || v.dim(-1) != n) return false;
    return std::equal(v.shape, v.shape + v.rank - 2, a.shape);
  };
  if (!std::equal(a.shape, a.shape + a.rank - 2, b.shape)) wrong("the batch axes differ");
  for (const View& v : spec.out) {
    if (!isResult(v) || !v.contiguous()) wrong("an output has a wrong shape, dtype or layout");
  }
  if (attrs.residual && !isResult(spec.in.back())) wrong("the residual must be as the output");
  if (attrs.bias) {
    const View& bias = spec.in[2];
    if (bias.rank != 1 || bias.shape[0] != n || bias.dtype != a.dtype) wrong("the bias must have one number per column");
  }
}

}  // namespace steepest::STEEPEST_LEVEL
