// Gradient descent with a momentum buffer, as PyTorch defines it: the buffer starts as the first gradient itself.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct SgdMomentum {
  static constexpr About about{
      .name = "sgdMomentum",
      .title = "SGD with momentum",
      .lr = 1e-3,
      .paper = "Polyak 1964; Nesterov 1983; Sutskever et al., ICML 2013",
      .doc = "Gradient descent with momentum.",
      .of = "sgd",
      .when = "momentum",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "momentum buffer"},
  };
  enum { kM };
  struct Hyper {
    double momentum = 0;     // [0, 1) Share of the buffer that stays; 0 keeps no buffer.
    double dampening = 0;    // [0, 1] The gradient enters the buffer times one minus this (not at the first step).
    Flag nesterov = false;   // Step along the gradient plus the momentum times the new buffer.
    double weightDecay = 0;  // [0, inf) L2 penalty: this times the weight is added to the gradient.
  };

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
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    g = fma(V(c.decay), p, g);
    s[kM] = fma(V(c.keep), s[kM], V(c.gain) * g);
    p = fma(V(-c.lr), pick(c.nesterov, fma(V(c.ahead), s[kM], g), s[kM]), p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
