// Sign descent: steps of one size along the sign of the gradient, or of its mean.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct SignSgd {
  static constexpr About about{
      .name = "signSgd",
      .title = "sign SGD",
      .lr = 1e-4,
      .paper = "Bernstein et al., arXiv 1802.04434",
      .doc = "Steps of one size along the sign of the gradient; with momentum (Signum) along that of its mean.",
  };
  struct Hyper {
    double weightDecay = 0;  // [0, inf) Decoupled decay: the weight is multiplied by 1 - lr * this before the step.
  };

  template <class T>
  struct Coef {
    T lr, shrink;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double) {
    return {T(lr), T(1 - lr * h.weightDecay)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V*, const Coef<T>& c) {
    p = fma(V(-c.lr), sign(g), V(c.shrink) * p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
