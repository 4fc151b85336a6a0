// Sign descent along the sign of the mean gradient.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Signum {
  static constexpr About about{
      .name = "signum",
      .title = "Signum",
      .lr = 1e-4,
      .paper = "Bernstein et al., arXiv 1802.04434",
      .doc = "Steps of one size along the sign of the mean gradient.",
      .of = "signSgd",
      .when = "momentum",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
  };
  enum { kM };
  struct Hyper {
    double momentum = 0;     // [0, 1) Share of the old mean; 0 keeps no mean.
    double weightDecay = 0;  // [0, inf) Decoupled decay: the weight is multiplied by 1 - lr * this before the step.
  };

  template <class T>
  struct Coef {
    T lr, shrink, keep, take;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double) {
    return {T(lr), T(1 - lr * h.weightDecay), T(h.momentum), T(1 - h.momentum)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    s[kM] = fma(V(c.take), g, V(c.keep) * s[kM]);
    p = fma(V(-c.lr), sign(s[kM]), V(c.shrink) * p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
