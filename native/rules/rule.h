// The vocabulary of update rules: what a rule header says about itself, and the functions that its formula may use.
//
// A rule is one struct in one header:
//
//   about            identity: name, title, default learning rate, paper, a line of doc
//   slots, enum      state per element: name, initial value, sign, doc; the enum gives their positions
//   Hyper            hyper-parameters, one a line: `double name = default;  // range doc` or `Flag name = false;  // doc`
//   Coef<T>          what the formula uses, the same for all elements of a tensor
//   prepare<T>       (Hyper, lr, t) -> Coef<T>, once a step, in double; t counts from 1
//   step             (p, g, slots, Coef): the formula, branch-free, over a value type V: a vector on the CPU, one number in its
//                    tails and on a GPU
//
// scripts/gen-rules.mjs reads `about`, `slots` and `Hyper` as text, so they keep to the form of the headers here.
//
// A hyper-parameter `initialX` is the initial value of the slot `x`; `maxGradNorm` divides all gradients by max(1, norm / this) first.
//
// A rule that needs sums over the tensor or over its rows has, in place of `step`:
//
//   kScope           Scope::tensor, or Scope::rows (a row is what belongs to one index of the first axis)
//   kSums, kFactors  how many sums and factors a row has
//   reduce           (p, g, slots, Coef, sums): adds the terms of an element to the sums; may change slots, not the weight
//   finish           (Hyper, RuleShape, lr, t, sums, factors): factors of every row from the sums of all rows, in double
//   apply            (p, g, slots, Coef, factors): moves the weight; may change slots
//
// `kApplyWithoutGradient` says that `apply` does not look at its gradient, so that nobody asks memory for it.
// One of these that takes the slots as `const V*` leaves them as they are, and they are not written back to memory.
//
// Contraction is off everywhere: a formula says `fma` where it means it, and gives the same bits at every width and level.
#pragma once

#include <cmath>
#include <cstdint>

#include "math/functions.h"
#include "math/vec.h"

#if defined(__CUDACC__)
#define STEEPEST_RULE __host__ __device__ __forceinline__
#else
#define STEEPEST_RULE inline __attribute__((always_inline))
#endif

namespace steepest::STEEPEST_LEVEL::rules {

struct About {
  const char* name;   // in `optim`, on the command line and in configurations
  const char* title;  // as people write it
  double lr;          // default learning rate
  const char* paper;
  const char* doc;
  // A variant serves the optimizer `of` where the option `when` is true or not zero ("option"), or has a value ("option=value").
  const char* of = "";
  const char* when = "";
  // A part of other methods: nothing in `optim` has its name.
  bool part = false;
};

// Tells which map an 8-bit state uses.
enum class Sign { either,
                  positive };

struct SlotInfo {
  const char* name;
  double initial;
  Sign sign;
  const char* doc;
};

// A hyper-parameter that is true or false; it travels as a number like the others.
struct Flag {
  double value;
  STEEPEST_HD constexpr Flag(bool on) : value(on ? 1 : 0) {}
  STEEPEST_HD constexpr operator bool() const { return value != 0; }
};

enum class Scope { tensor,
                   rows };

// A tensor as its rows: one with fewer than two axes is one row.
struct RuleShape {
  std::int64_t rows, cols;
  int rank;
};

// One number is a vector of width one; these agree with the functions of math/vec.h on every input.
STEEPEST_RULE float fma(float a, float b, float c) { return std::fma(a, b, c); }
STEEPEST_RULE double fma(double a, double b, double c) { return std::fma(a, b, c); }
STEEPEST_RULE float sqrt(float x) { return std::sqrt(x); }
STEEPEST_RULE double sqrt(double x) { return std::sqrt(x); }
STEEPEST_RULE float abs(float x) { return std::fabs(x); }
STEEPEST_RULE double abs(double x) { return std::fabs(x); }
STEEPEST_RULE float min(float a, float b) { return a < b ? a : b; }
STEEPEST_RULE double min(double a, double b) { return a < b ? a : b; }
STEEPEST_RULE float max(float a, float b) { return a > b ? a : b; }
STEEPEST_RULE double max(double a, double b) { return a > b ? a : b; }
STEEPEST_RULE float select(bool m, float a, float b) { return m ? a : b; }
STEEPEST_RULE double select(bool m, double a, double b) { return m ? a : b; }
STEEPEST_RULE float sign(float x) { return x > 0 || x < 0 ? std::copysign(1.0f, x) : x; }
STEEPEST_RULE double sign(double x) { return x > 0 || x < 0 ? std::copysign(1.0, x) : x; }

// Single numbers go through a vector, so that they get its bits.
STEEPEST_RULE float sigmoid(float x) {
  float lanes[vf::kLanes];
  store(lanes, sigmoid(vf(x)));
  return lanes[0];
}
STEEPEST_RULE double sigmoid(double x) {
  double lanes[vd::kLanes];
  store(lanes, sigmoid(vd(x)));
  return lanes[0];
}

// Chooses by a coefficient, which is the same for all elements.
template <class V>
STEEPEST_RULE V pick(bool first, V a, V b) {
  return first ? a : b;
}

}  // namespace steepest::STEEPEST_LEVEL::rules
