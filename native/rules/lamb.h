// LAMB: an Adam step of every tensor, as long as the tensor times the learning rate, as timm runs it.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Lamb {
  static constexpr About about{
      .name = "lamb",
      .title = "LAMB",
      .lr = 1e-3,
      .paper = "You et al., arXiv 1904.00962",
      .doc = "Adam for large batches: the step of a tensor is scaled to the norm of its weights.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
      {"v", 0, Sign::positive, "mean of its square"},
  };
  enum { kM,
         kV };
  struct Hyper {
    double beta1 = 0.9;          // [0, 1) Share of the old mean of the gradient.
    double beta2 = 0.999;        // [0, 1) Share of the old mean of its square.
    double eps = 1e-6;           // [0, inf) Added to the root, after the bias correction.
    double weightDecay = 0.01;   // [0, inf) This times the weight is added to the step before it is scaled.
    double maxGradNorm = 1;      // [0, inf) All gradients are divided by max(1, their norm / this) first; 0: they are not.
    Flag biasCorrection = true;  // Correct the means for their start at zero.
    Flag gradAveraging = true;   // The mean takes the gradient times 1 - beta1, not times 1.
    Flag alwaysAdapt = false;    // Scale the step of tensors without decay too.
    Flag trustClip = false;      // Never lengthen a step.
  };

  static constexpr Scope kScope = Scope::tensor;
  static constexpr int kSums = 2, kFactors = 1;
  static constexpr bool kApplyWithoutGradient = true;

  template <class T>
  struct Coef {
    T decay, keep1, take1, keep2, take2, mean, root, eps;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double, double t) {
    const double bias1 = h.biasCorrection ? 1 - std::pow(h.beta1, t) : 1, bias2 = h.biasCorrection ? 1 - std::pow(h.beta2, t) : 1;
    return {T(h.weightDecay),
            T(h.beta1),
            T(h.gradAveraging ? 1 - h.beta1 : 1),
            T(h.beta2),
            T(1 - h.beta2),
            T(1 / bias1),
            T(1 / std::sqrt(bias2)),
            T(h.eps)};
  }
  template <class V, class T>
  STEEPEST_RULE static V direction(V p, const V* s, const Coef<T>& c) {
    return fma(V(c.decay), p, V(c.mean) * s[kM] / fma(sqrt(s[kV]), V(c.root), V(c.eps)));
  }
  template <class V, class T>
  STEEPEST_RULE static void reduce(V p, V g, V* s, const Coef<T>& c, V* sums) {
    s[kM] = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    s[kV] = fma(V(c.take2) * g, g, V(c.keep2) * s[kV]);
    const V u = direction(p, s, c);
    sums[0] = fma(p, p, sums[0]);
    sums[1] = fma(u, u, sums[1]);
  }
  STEEPEST_RULE static void finish(const Hyper& h, const RuleShape&, double lr, double, const double* sums, double* factors) {
    double trust = 1;
    if ((h.weightDecay != 0 || h.alwaysAdapt) && sums[0] > 0 && sums[1] > 0) trust = std::sqrt(sums[0]) / std::sqrt(sums[1]);
    if (h.trustClip && trust > 1) trust = 1;
    factors[0] = lr * trust;
  }
  template <class V, class T>
  STEEPEST_RULE static void apply(V& p, V, const V* s, const Coef<T>& c, const V* factors) {
    p = p - factors[0] * direction(p, s, c);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
