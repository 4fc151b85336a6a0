// AdaGrad: divides by the root of the sum of all squares so far.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Adagrad {
  static constexpr About about{
      .name = "adagrad",
      .title = "AdaGrad",
      .lr = 1e-2,
      .paper = "Duchi, Hazan, Singer, JMLR 12, 2011",
      .doc = "Steps that shrink for a weight with every gradient it has seen; made for sparse gradients.",
  };
  static constexpr SlotInfo slots[] = {
      {"accumulator", 0, Sign::positive, "sum of the squares of the gradients"},
  };
  enum { kSum };
  struct Hyper {
    double lrDecay = 0;             // [0, inf) The rate of step t is divided by 1 + (t - 1) * this.
    double eps = 1e-10;             // [0, inf) Added to the root.
    double initialAccumulator = 0;  // [0, inf) What the sum of squares starts from.
    double weightDecay = 0;         // [0, inf) L2 penalty: this times the weight is added to the gradient.
  };

  template <class T>
  struct Coef {
    T decay, size, eps;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    return {T(h.weightDecay), T(lr / (1 + (t - 1) * h.lrDecay)), T(h.eps)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    g = fma(V(c.decay), p, g);
    s[kSum] = fma(g, g, s[kSum]);
    p = fma(V(-c.size), g / (sqrt(s[kSum]) + V(c.eps)), p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
