// The last step of methods that find a parameter's step elsewhere (in a small space): decay, and the step as it is.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Move {
  static constexpr About about{
      .name = "move",
      .title = "move",
      .lr = 1,
      .paper = "Zhao et al., arXiv 2403.03507, algorithm 2",
      .doc = "Adds what it is given in the place of a gradient to the weight, and decays the weight.",
      .part = true,
  };
  struct Hyper {
    double weightDecay = 0;   // [0, inf) Decoupled decay: the weight is multiplied by 1 - lr * this.
    Flag decayAfter = false;  // Decay after the step, not before it.
  };

  template <class T>
  struct Coef {
    T before, after;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double) {
    const T shrink = T(1 - lr * h.weightDecay);
    return h.decayAfter ? Coef<T>{T(1), shrink} : Coef<T>{shrink, T(1)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V*, const Coef<T>& c) {
    p = fma(V(c.before), p, g) * V(c.after);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
