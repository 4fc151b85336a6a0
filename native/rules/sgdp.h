// SGDP: momentum without the part of the step that only lengthens weights whose length has no meaning.
#pragma once

#include "projection.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Sgdp {
  static constexpr About about{
      .name = "sgdp",
      .title = "SGDP",
      .lr = 0.1,
      .paper = "Heo et al., arXiv 2006.08217",
      .doc = "Momentum that does not let the norm of scale-invariant weights (those before a normalization) grow.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "momentum buffer"},
  };
  enum { kM };
  struct Hyper {
    double momentum = 0;     // [0, 1) Share of the buffer that stays.
    double dampening = 0;    // [0, 1] The gradient enters the buffer times one minus this.
    double weightDecay = 0;  // [0, inf) Decoupled decay, by lr * this / (1 - momentum).
    double eps = 1e-8;       // [0, inf) Added to norms.
    double delta = 0.1;      // [0, inf) Projects where |cos| of gradient and weight is below this over the root of their length.
    double wdRatio = 0.1;    // [0, 1] Share of the decay that projected weights get.
    Flag nesterov = false;   // Step along the gradient plus the momentum times the buffer; else the buffer is projected too, as in the authors' code.
  };

  static constexpr Scope kScope = Scope::rows;
  static constexpr int kSums = 4, kFactors = 2;

  template <class T>
  struct Coef {
    T lr, keep, take;
    bool nesterov;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double) {
    return {T(lr), T(h.momentum), T(1 - h.dampening), h.nesterov};
  }
  template <class V, class T>
  STEEPEST_RULE static V direction(V g, const V* s, const Coef<T>& c) {
    return pick(c.nesterov, fma(V(c.keep), s[kM], g), s[kM]);
  }
  template <class V, class T>
  STEEPEST_RULE static void reduce(V p, V g, V* s, const Coef<T>& c, V* sums) {
    s[kM] = fma(V(c.take), g, V(c.keep) * s[kM]);
    sums[kDot] = fma(g, p, sums[kDot]);
    sums[kGrad] = fma(g, g, sums[kGrad]);
    sums[kWeight] = fma(p, p, sums[kWeight]);
    sums[kStep] = fma(p, direction(g, s, c), sums[kStep]);
  }
  STEEPEST_RULE static void finish(const Hyper& h, const RuleShape& shape, double lr, double, const double* sums, double* factors) {
    project(shape, h.delta, h.wdRatio, h.eps, lr * h.weightDecay / (1 - h.momentum), sums, factors);
  }
  template <class V, class T>
  STEEPEST_RULE static void apply(V& p, V g, V* s, const Coef<T>& c, const V* factors) {
    const V u = direction(g, s, c) - factors[0] * p;
    s[kM] = pick(c.nesterov, s[kM], u);
    p = fma(V(-c.lr), u, factors[1] * p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
