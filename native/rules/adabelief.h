// AdaBelief: Adam that divides by how far gradients are from their mean, as the authors' package 0.2.1 runs it.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct AdaBelief {
  static constexpr About about{
      .name = "adabelief",
      .title = "AdaBelief",
      .lr = 1e-3,
      .paper = "Zhuang et al., arXiv 2010.07468; rectification: Liu et al., arXiv 1908.03265",
      .doc = "Adam with the spread of the gradient around its mean in place of its square: long steps where gradients are as expected.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
      {"v", 0, Sign::positive, "mean of the square of its distance from its mean"},
  };
  enum { kM,
         kV };
  struct Hyper {
    double beta1 = 0.9;            // [0, 1) Share of the old mean of the gradient.
    double beta2 = 0.999;          // [0, 1) Share of the old spread.
    double eps = 1e-16;            // [0, inf) Added to the root, and to the stored spread at every step.
    double weightDecay = 0;        // [0, inf) Decay of the weight.
    Flag weightDecouple = true;    // Decay the weight itself before the step, not through the gradient.
    Flag fixedDecay = false;       // Decoupled decay is not multiplied by the learning rate.
    Flag rectify = true;           // Correct for the spread's variance in the first steps, as RAdam does.
    Flag degeneratedToSgd = true;  // With rectification, steps along the mean while the spread is not known; else none.
  };

  template <class T>
  struct Coef {
    T decay, shrink, keep1, take1, keep2, take2, stored, root, eps, size;
    bool adaptive;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    const double bias1 = 1 - std::pow(h.beta1, t), left = std::pow(h.beta2, t), bias2 = 1 - left;
    const double shrink = h.weightDecouple ? 1 - h.weightDecay * (h.fixedDecay ? 1 : lr) : 1;
    double size = lr / bias1;
    bool adaptive = true;
    if (h.rectify) {
      const double most = 2 / (1 - h.beta2) - 1, n = most - 2 * t * left / bias2;
      adaptive = n >= 5;
      if (adaptive)
        size *= std::sqrt(bias2 * (n - 4) / (most - 4) * (n - 2) / n * most / (most - 2));
      else if (!h.degeneratedToSgd)
        size = 0;
    }
    return {T(h.weightDecouple ? 0 : h.weightDecay),
            T(shrink),
            T(h.beta1),
            T(1 - h.beta1),
            T(h.beta2),
            T(1 - h.beta2),
            T(h.eps),
            T(h.rectify ? 1 : 1 / std::sqrt(bias2)),
            T(h.eps),
            T(size),
            adaptive};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    g = fma(V(c.decay), p, g);
    p = V(c.shrink) * p;
    s[kM] = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    const V away = g - s[kM];
    s[kV] = fma(V(c.take2) * away, away, V(c.keep2) * s[kV]) + V(c.stored);
    const V u = pick(c.adaptive, s[kM] / fma(sqrt(s[kV]), V(c.root), V(c.eps)), s[kM]);
    p = fma(V(-c.size), u, p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
