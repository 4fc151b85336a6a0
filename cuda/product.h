// Products of matrices for every kernel that needs one.
#pragma once

#include "cpu/matmul_operands.h"
#include "cuda/launch.h"

namespace steepest::cuda {

// out = activation(scale * a b + bias) + residual for a stack of matrices [m, k] and [k, n]; out and preactivation are contiguous.
struct Product {
  std::int64_t batch = 1, m = 0, n = 0, k = 0;
  DType in = DType::float32, outDtype = DType::float32;  // bfloat16 operands may give float32
  const void* a = nullptr;
  const void* b = nullptr;
  Batched aAt, bAt;
  double scale = 1;
  const void* bias = nullptr;  // of the operands' dtype
  std::int64_t biasStep = 1;
  const void* residual = nullptr;  // of the output's dtype
  Batched residualAt;
  MatmulAttrs::Activation activation = MatmulAttrs::Activation::kNone;
  void* preactivation = nullptr;
  void* out = nullptr;
};

// Needs no workspace. Sums are taken in the order of k, in float32 (float64 for float64).
void product(const Call& call, const Product& p);

}  // namespace steepest::cuda
