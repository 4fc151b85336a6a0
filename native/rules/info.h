// What a driver asks of a rule while a program is loaded: numbers of slots, hyper-parameters, sums and factors.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "rules/all.h"

namespace steepest::STEEPEST_LEVEL {

constexpr int kMaxSlots = 6;
constexpr int kMaxSums = 4;

struct RuleInfo {
  int slots, hypers, sums, factors;
  std::uint32_t positive;  // bit k: slot k is never negative
  rules::Scope scope;
};

template <class Rule>
concept TwoPhase = requires { Rule::kScope; };

template <class Rule>
constexpr int slotsOf() {
  if constexpr (requires { Rule::slots; }) {
    return static_cast<int>(std::extent_v<decltype(Rule::slots)>);
  } else {
    return 0;
  }
}

template <class Rule>
constexpr std::uint32_t positiveOf() {
  std::uint32_t bits = 0;
  if constexpr (requires { Rule::slots; }) {
    for (int k = 0; k < slotsOf<Rule>(); ++k) bits |= (Rule::slots[k].sign == rules::Sign::positive ? 1u : 0u) << k;
  }
  return bits;
}

template <class Rule>
constexpr int hypersOf() {
  if constexpr (std::is_empty_v<typename Rule::Hyper>) {
    return 0;
  } else {
    return static_cast<int>(sizeof(typename Rule::Hyper) / sizeof(double));
  }
}

template <class Rule>
constexpr RuleInfo infoOf() {
  if constexpr (TwoPhase<Rule>) {
    static_assert(Rule::kSums <= kMaxSums && Rule::kFactors <= kMaxSums);
    return {slotsOf<Rule>(), hypersOf<Rule>(), Rule::kSums, Rule::kFactors, positiveOf<Rule>(), Rule::kScope};
  } else {
    return {slotsOf<Rule>(), hypersOf<Rule>(), 0, 0, positiveOf<Rule>(), rules::Scope::tensor};
  }
}

// Hyper-parameters travel as numbers in the order of their declaration.
template <class Rule>
typename Rule::Hyper hyperOf(const double* words) {
  typename Rule::Hyper h;
  if constexpr (hypersOf<Rule>() > 0) std::memcpy(static_cast<void*>(&h), words, sizeof h);
  return h;
}

// What takes the slots as `const V*` leaves them: they are not written again.
template <class Rule, class V, class T>
constexpr bool reduceLeaves = requires(V x, const V* s, const typename Rule::template Coef<T>& c) { Rule::reduce(x, x, s, c, &x); };
template <class Rule, class V, class T>
constexpr bool applyLeaves = requires(V x, const V* s, const typename Rule::template Coef<T>& c) { Rule::apply(x, x, s, c, &x); };

// Whether the second phase looks at the gradient, which must be in memory then.
template <class Rule>
constexpr bool applyReads = !requires { Rule::kApplyWithoutGradient; };

}  // namespace steepest::STEEPEST_LEVEL
