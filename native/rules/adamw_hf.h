// AdamW as Hugging Face's library had it, and GaLore and Fira took it over.
#pragma once

#include "rule.h"

namespace steepest::STEEPEST_LEVEL::rules {

struct AdamWHf {
  static constexpr About about{
      .name = "adamwHf",
      .title = "AdamW (Hugging Face)",
      .lr = 1e-3,
      .paper = "transformers.optimization.AdamW; used by GaLore, arXiv 2403.03507, and Fira, arXiv 2410.01623",
      .doc = "AdamW that adds eps to the root before the bias correction and decays after the step.",
  };
  static constexpr SlotInfo slots[] = {
      {"m", 0, Sign::either, "mean of the gradient"},
      {"v", 0, Sign::positive, "mean of its square"},
  };
  enum { kM,
         kV };
  struct Hyper {
    double beta1 = 0.9;       // [0, 1) Share of the old mean of the gradient.
    double beta2 = 0.999;     // [0, 1) Share of the old mean of its square.
    double eps = 1e-6;        // [0, inf) Added to the root, before the bias correction.
    double weightDecay = 0;   // [0, inf) Decoupled decay: the weight is multiplied by 1 - lr * this after the step.
    Flag correctBias = true;  // Make up for the moments that begin at 0.
  };

  template <class T>
  struct Coef {
    T shrink, keep1, take1, keep2, take2, size, eps;
  };
  template <class T>
  STEEPEST_RULE static Coef<T> prepare(const Hyper& h, double lr, double t) {
    const double bias = h.correctBias ? std::sqrt(1 - std::pow(h.beta2, t)) / (1 - std::pow(h.beta1, t)) : 1;
    return {T(1 - lr * h.weightDecay), T(h.beta1), T(1 - h.beta1), T(h.beta2), T(1 - h.beta2), T(lr * bias), T(h.eps)};
  }
  template <class V, class T>
  STEEPEST_RULE static void step(V& p, V g, V* s, const Coef<T>& c) {
    s[kM] = fma(V(c.take1), g, V(c.keep1) * s[kM]);
    s[kV] = fma(V(c.take2) * g, g, V(c.keep2) * s[kV]);
    p = fma(V(-c.size), s[kM] / (sqrt(s[kV]) + V(c.eps)), p) * V(c.shrink);
  }
};

}  // namespace steepest::STEEPEST_LEVEL::rules
