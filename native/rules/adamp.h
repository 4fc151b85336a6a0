// AdamP: AdamW without the part of the step that only lengthens weights whose length has no meaning.
#pragma once

#include "projection.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct AdamP {
  static constexpr About about{
      .name = "adamp",
      .title = "AdamP",
      .lr = 1e-3,
      .paper = "Heo et al., arXiv 2006.08217",
      .doc = "AdamW that does not let the norm of scale-invariant weights (those before a normalization) grow.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
      {"v", 0, Sign::positive, "mean of its square"},
  };
  enum { kM,
         kV };
  struct Hyper {
    double beta1 = 0.9;      // [0, 1) Share of the old mean of the gradient.
    double beta2 = 0.999;    // [0, 1) Share of the old mean of its square.
    double eps = 1e-8;       // [0, inf) Added to the root, after the bias correction, and to norms.
    double weightDecay = 0;  // [0, inf) Decoupled decay: the weight is multiplied by 1 - lr * this before the step.
    double delta = 0.1;      // [0, inf) Projects where |cos| of gradient and weight is below this over the root of their length.
    double wdRatio = 0.1;    // [0, 1] Share of the decay that projected weights get.
    Flag nesterov = false;   // Step along the mean that is one step ahead.
  };

  static constexpr Scope kScope = Scope::rows;
  static constexpr int kSums = 4, kFactors = 2;

  template <class T>
  struct Coef {
    T keep1, take1, keep2, take2, size, root, eps;
    bool nesterov;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    return {T(h.beta1),
            T(1 - h.beta1),
            T(h.beta2),
            T(1 - h.beta2),
            T(lr / (1 - std::pow(h.beta1, t))),
            T(1 / std::sqrt(1 - std::pow(h.beta2, t))),
            T(h.eps),
            h.nesterov};
  }
  template <class V, class T>
  STEEPEST_RULE static V direction(V g, const V* s, const Coef<T>& c) {
    const V m = pick(c.nesterov, fma(V(c.take1), g, V(c.keep1) * s[kM]), s[kM]);
    return m / fma(sqrt(s[kV]), V(c.root), V(c.eps));
  }
  template <class V, class T>
  STEEPEST_RULE static void reduce(V p, V g, V* s, const Coef<T>& c, V* sums) {
    s[kM] = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    s[kV] = fma(V(c.take2) * g, g, V(c.keep2) * s[kV]);
    sums[kDot] = fma(g, p, sums[kDot]);
    sums[kGrad] = fma(g, g, sums[kGrad]);
    sums[kWeight] = fma(p, p, sums[kWeight]);
    sums[kStep] = fma(p, direction(g, s, c), sums[kStep]);
  }
  STEEPEST_RULE static void finish(const Hyper& h, const RuleShape& shape, double lr, double, const double* sums, double* factors) {
    project(shape, h.delta, h.wdRatio, h.eps, lr * h.weightDecay, sums, factors);
  }
  template <class V, class T>
  STEEPEST_RULE static void apply(V& p, V g, const V* s, const Coef<T>& c, const V* factors) {
    const V u = direction(g, s, c) - factors[0] * p;
    p = fma(V(-c.size), u, factors[1] * p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
