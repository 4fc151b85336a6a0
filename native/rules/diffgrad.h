// diffGrad: Adam whose step is damped where the gradient hardly changes, in the authors' second version.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct DiffGrad {
  static constexpr About about{
      .name = "diffgrad",
      .title = "diffGrad",
      .lr = 1e-3,
      .paper = "Dubey et al., arXiv 1909.11015",
      .doc = "Adam times a friction between a half and one: the sigmoid of how much the gradient changed since the step before.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
      {"v", 0, Sign::positive, "mean of its square"},
      {"previous", 0, Sign::either, "gradient of the step before"},
  };
  enum { kM,
         kV,
         kPrevious };
  struct Hyper {
    double beta1 = 0.9;      // [0, 1) Share of the old mean of the gradient.
    double beta2 = 0.999;    // [0, 1) Share of the old mean of its square.
    double eps = 1e-8;       // [0, inf) Added to the root, before the bias correction.
    double weightDecay = 0;  // [0, inf) L2 penalty: this times the weight is added to the gradient.
  };

  template <class T>
  struct Coef {
    T decay, keep1, take1, keep2, take2, size, eps;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    const double size = lr * std::sqrt(1 - std::pow(h.beta2, t)) / (1 - std::pow(h.beta1, t));
    return {T(h.weightDecay), T(h.beta1), T(1 - h.beta1), T(h.beta2), T(1 - h.beta2), T(size), T(h.eps)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    g = fma(V(c.decay), p, g);
    s[kM] = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    s[kV] = fma(V(c.take2) * g, g, V(c.keep2) * s[kV]);
    const V friction = sigmoid(abs(s[kPrevious] - g));
    s[kPrevious] = g;
    p = fma(V(-c.size), friction * s[kM] / (sqrt(s[kV]) + V(c.eps)), p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
