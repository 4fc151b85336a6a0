// Adam with an L2 penalty that goes through the moments; eps is added after the bias correction, as PyTorch does.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct Adam {
  static constexpr About about{
      .name = "adam",
      .title = "Adam",
      .lr = 1e-3,
      .paper = "Kingma, Ba, arXiv 1412.6980",
      .doc = "Adam: the mean gradient over the root of the mean square, both corrected for their start at zero.",
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
    double eps = 1e-8;       // [0, inf) Added to the root, after the bias correction.
    double weightDecay = 0;  // [0, inf) L2 penalty: this times the weight is added to the gradient.
  };

  template <class T>
  struct Coef {
    T decay, keep1, take1, keep2, take2, size, root, eps;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    return {T(h.weightDecay),
            T(h.beta1),
            T(1 - h.beta1),
            T(h.beta2),
            T(1 - h.beta2),
            T(lr / (1 - std::pow(h.beta1, t))),
            T(1 / std::sqrt(1 - std::pow(h.beta2, t))),
            T(h.eps)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    g = fma(V(c.decay), p, g);
    s[kM] = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    s[kV] = fma(V(c.take2) * g, g, V(c.keep2) * s[kV]);
    p = fma(V(-c.size), s[kM] / fma(sqrt(s[kV]), V(c.root), V(c.eps)), p);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
