// What AdamP and SGDP share: the part of a step along the weights is taken out where weights and gradient are nearly orthogonal, which
// says that a normalization follows and the norm of the weights has no meaning (Heo et al., arXiv 2006.08217).
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

// Sums of a row: gradient times weight, squares of both, weight times step.
enum { kDot,
       kGrad,
       kWeight,
       kStep };

// For each row what is to be taken out of the step, as a multiple of the weights, and the share of the weight that stays after decay.
STEEPEST_RULE void project(const RuleShape& shape, double delta, double ratio, double eps, double decay, const double* sums, double* factors) {
  const auto root = [](double x) { return std::sqrt(x); };
  const auto cosine = [&](const double* s) {
    const double g = root(s[kGrad]), w = root(s[kWeight]);
    return std::fabs(s[kDot]) / ((g > eps ? g : eps) * (w > eps ? w : eps));
  };
  const auto along = [&](const double* s) {
    const double w = root(s[kWeight]) + eps;
    return s[kStep] / (w * w);
  };
  double whole[4] = {}, most = 0;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const double* s = sums + 4 * row;
    for (int k = 0; k < 4; ++k) whole[k] += s[k];
    const double c = cosine(s);
    most = c <= most ? most : c;
  }
  const bool matrix = shape.rank > 1;
  const bool byRow = matrix && most < delta / root(static_cast<double>(shape.cols));
  const bool byTensor = matrix && !byRow && cosine(whole) < delta / root(static_cast<double>(shape.rows * shape.cols));
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    factors[2 * row] = byRow ? along(sums + 4 * row) : byTensor ? along(whole)
                                                                : 0;
    factors[2 * row + 1] = 1 - decay * (byRow || byTensor ? ratio : 1);
  }
}

}  // namespace steepest::STEEPEST_LEVEL::rules
