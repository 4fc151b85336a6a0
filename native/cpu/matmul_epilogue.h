// What follows a product, on its tile while that is hot in cache: scale, bias, activation, residual, and the value before the activation.
#pragma once

#include <cstdint>

#include "math/functions.h"
#include "attrs/matmul.gen.h"

namespace steepest::STEEPEST_LEVEL {

template <MatmulAttrs::Activation kind, class V>
STEEPEST_HD inline V activate(V z) {
  using Activation = MatmulAttrs::Activation;
  if constexpr (kind == Activation::kRelu)
    return relu(z);
  else if constexpr (kind == Activation::kGelu)
    return gelu(z);
  else if constexpr (kind == Activation::kGeluTanh)
    return geluTanh(z);
  else if constexpr (kind == Activation::kSilu)
    return silu(z);
  else if constexpr (kind == Activation::kTanh)
    return tanh(z);
  else
    return z;
}

// One row of a tile. Absent operands are null.
struct EpilogueRow {
  const void* sums;          // what the product gave, in float32 (float64 for float64)
  std::int64_t pieces;       // partial sums to be added up, in order …
  std::int64_t pieceStride;  // … this many elements apart
  double scale;
  const void* bias;      // in the dtype of the operands
  const void* residual;  // in the dtype of the output
  void* preactivation;
  void* out;
  std::int64_t length;
};
using Epilogue = void (*)(const EpilogueRow&);

// The function for operands of dtype `in` (float32, bfloat16, float64) and an output of dtype `out`.
Epilogue epilogueFor(DType in, DType out, MatmulAttrs::Activation activation);

}  // namespace steepest::STEEPEST_LEVEL
