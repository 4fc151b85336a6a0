#include "cpu/matmul_epilogue.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using Activation = MatmulAttrs::Activation;

template <class In, class Sum, class Out, Activation kind>
void finish(const EpilogueRow& row) {
  using V = VecOf<Sum>;
  const Sum* sums = static_cast<const Sum*>(row.sums);
  const In* bias = static_cast<const In*>(row.bias);
  const Out* residual = static_cast<const Out*>(row.residual);
  Out* preactivation = static_cast<Out*>(row.preactivation);
  Out* out = static_cast<Out*>(row.out);
  const bool scaled = row.scale != 1;
  const V scale(static_cast<Sum>(row.scale));
  for (std::int64_t j = 0; j < row.length; j += V::kLanes) {
    const std::int64_t left = row.length - j;
    const bool whole = left >= V::kLanes;
    const int lanes = static_cast<int>(left);
    const auto load = [&](const auto* from) { return whole ? V::load(from + j) : V::load(from + j, lanes); };
    const auto keep = [&](Out* to, V v) { whole ? store(to + j, v) : store(to + j, v, lanes); };
    V z = load(sums);
    for (std::int64_t p = 1; p < row.pieces; ++p) z += load(sums + p * row.pieceStride);
    if (scaled) z = z * scale;
    if (bias) z += load(bias);
    if (preactivation) keep(preactivation, z);
    V y = activate<kind>(z);
    if (residual) y += load(residual);
    keep(out, y);
  }
}

template <class In, class Sum, class Out>
Epilogue withActivation(Activation activation) {
  switch (activation) {
    case Activation::kRelu:
      return finish<In, Sum, Out, Activation::kRelu>;
    case Activation::kGelu:
      return finish<In, Sum, Out, Activation::kGelu>;
    case Activation::kGeluTanh:
      return finish<In, Sum, Out, Activation::kGeluTanh>;
    case Activation::kSilu:
      return finish<In, Sum, Out, Activation::kSilu>;
    case Activation::kTanh:
      return finish<In, Sum, Out, Activation::kTanh>;
    default:
      return finish<In, Sum, Out, Activation::kNone>;
  }
}

}  // namespace

Epilogue epilogueFor(DType in, DType out, Activation activation) {
  if (in == DType::float64) return withActivation<double, double, double>(activation);
  if (in == DType::float32) return withActivation<float, float, float>(activation);
  if (out == DType::float32) return withActivation<bf16, float, float>(activation);
  return withActivation<bf16, float, bf16>(activation);
}

}  // namespace steepest::STEEPEST_LEVEL
