// Stochastic gradient descent: the plain step.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Sgd {
  static constexpr About about{
      .name = "sgd",
      .title = "SGD",
      .lr = 1e-3,
      .paper = "Robbins, Monro 1951",
      .doc = "Gradient descent, with momentum, Nesterov's step and coupled weight decay where asked for.",
  };
  struct Hyper {
    double weightDecay = 0;  // [0, inf) L2 penalty: this times the weight is added to the gradient.
  };

  template <class T>
  struct Coef {
    T lr, decay;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double) {
    return {T(lr), T(h.weightDecay)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V*, const Coef<T>& c) {
    p = fma(V(-c.lr), fma(V(c.decay), p, g), p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
