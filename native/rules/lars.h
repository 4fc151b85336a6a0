// LARS: gradients of every tensor scaled to the norm of its weights, then momentum, as timm runs it.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Lars {
  static constexpr About about{
      .name = "lars",
      .title = "LARS",
      .lr = 1,
      .paper = "You, Gitman, Ginsburg, arXiv 1708.03888",
      .doc = "SGD for large batches: the gradient of a tensor is scaled to the norm of its weights before momentum.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "momentum buffer"},
  };
  enum { kM };
  struct Hyper {
    double momentum = 0.9;     // [0, 1) Share of the buffer that stays.
    double dampening = 0;      // [0, 1] The gradient enters the buffer times one minus this (not at the first step).
    double weightDecay = 0;    // [0, inf) L2 penalty: this times the weight is added to the gradient.
    double trustCoeff = 1e-3;  // (0, inf) Length of the scaled gradient, relative to the weights.
    double eps = 1e-8;         // [0, inf) Added to the norm of the gradient.
    Flag nesterov = false;     // Step along the gradient plus the momentum times the new buffer.
    Flag trustClip = false;    // Never scale up to more than the learning rate (LARC).
    Flag alwaysAdapt = false;  // Scale the gradients of tensors without decay too.
  };

  static constexpr Scope kScope = Scope::tensor;
  static constexpr int kSums = 2, kFactors = 1;

  template <class T>
  struct Coef {
    T lr, decay, keep, gain, ahead;
    bool nesterov;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    const bool first = t <= 1;
    return {T(lr), T(h.weightDecay), T(first ? 0 : h.momentum), T(first ? 1 : 1 - h.dampening), T(h.momentum), h.nesterov};
  }
  template <class V, class T>
  STEEPEST_RULE static void reduce(V p, V g, const V*, const Coef<T>&, V* sums) {
    sums[0] = fma(p, p, sums[0]);
    sums[1] = fma(g, g, sums[1]);
  }
  STEEPEST_RULE static void finish(const Hyper& h, const RuleShape&, double lr, double, const double* sums, double* factors) {
    factors[0] = 1;
    if (h.weightDecay == 0 && !h.alwaysAdapt) return;
    const double p = std::sqrt(sums[0]), g = std::sqrt(sums[1]);
    double trust = p > 0 && g > 0 ? h.trustCoeff * p / (g + h.weightDecay * p + h.eps) : 1;
    if (h.trustClip) trust = trust < lr ? trust / lr : 1;
    factors[0] = trust;
  }
  template <class V, class T>
  STEEPEST_RULE static void apply(V& p, V g, V* s, const Coef<T>& c, const V* factors) {
    g = fma(V(c.decay), p, g) * factors[0];
    s[kM] = fma(V(c.keep), s[kM], V(c.gain) * g);
    p = fma(V(-c.lr), pick(c.nesterov, fma(V(c.ahead), s[kM], g), s[kM]), p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
