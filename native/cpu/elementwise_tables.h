// What the rows of the elementwise interpreter take and give.
#pragma once

#include "elementwise.gen.h"
#include "math/elementwise.h"

namespace steepest::STEEPEST_LEVEL::ew {

// A register holds one of three kinds: float (float32, bfloat16 and uint8 dtypes), double (float64), int32.
enum class Kind : std::uint8_t { single, whole, twice };
constexpr Kind kindOf(DType t) { return t == DType::float64 ? Kind::twice : t == DType::int32 ? Kind::whole : Kind::single; }

template <class F, class V>
constexpr bool takesVector() {
  if constexpr (F::kArity == 1)
    return requires(V v) { F::apply(v); };
  else if constexpr (F::kArity == 2)
    return requires(V v) { F::apply(v, v); };
  else
    return requires(V v, typename V::Mask m) { F::apply(m, v, v); };
}

template <class F>
constexpr bool givesTruth() {
  if constexpr (F::kArity == 1 && takesVector<F, vf>())
    return !std::is_same_v<decltype(F::apply(vf())), vf>;
  else if constexpr (F::kArity == 2)
    return !std::is_same_v<decltype(F::apply(vf(), vf())), vf>;
  else
    return false;
}

template <class F>
constexpr bool takesCondition() {
  return requires { F::kCondition; };
}

#define ROW(name) name##_::kArity,
inline constexpr int arities[kEws] = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW
#define ROW(name) takesCondition<name##_>(),
inline constexpr bool conditions[kEws] = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW
// True where the row gives truth values.
#define ROW(name) givesTruth<name##_>(),
inline constexpr bool truths[kEws] = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW
#define ROW(name) {takesVector<name##_, vf>(), takesVector<name##_, vi>(), takesVector<name##_, vd>()},
inline constexpr bool taken[kEws][3] = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW
inline bool takes(int op, Kind kind) { return taken[op][static_cast<int>(kind)]; }

}  // namespace steepest::STEEPEST_LEVEL::ew
