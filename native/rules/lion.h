// Lion: the sign of a gradient that is blended with its mean.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Lion {
  static constexpr About about{
      .name = "lion",
      .title = "Lion",
      .lr = 1e-4,
      .paper = "Chen et al., arXiv 2302.06675",
      .doc =
          "Steps of one size along the sign of a blend of gradient and momentum; half the state of AdamW. "
          "Wants a learning rate three to ten times smaller than AdamW's and a decay as much larger.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
  };
  enum { kM };
  struct Hyper {
    double beta1 = 0.9;      // [0, 1) Share of the old mean in the direction.
    double beta2 = 0.99;     // [0, 1) Share of the old mean in the new one.
    double weightDecay = 0;  // [0, inf) Decoupled decay: the weight is multiplied by 1 - lr * this before the step.
  };

  template <class T>
  struct Coef {
    T lr, shrink, keep1, take1, keep2, take2;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double) {
    return {T(lr), T(1 - lr * h.weightDecay), T(h.beta1), T(1 - h.beta1), T(h.beta2), T(1 - h.beta2)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    const V u = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    p = fma(V(-c.lr), sign(u), V(c.shrink) * p);
    s[kM] = fma(V(c.take2), g, V(c.keep2) * s[kM]);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
