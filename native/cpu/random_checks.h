// The operands of the random ops.
#pragma once

#include <cmath>
#include <cstring>

#include "attrs/categorical.gen.h"
#include "attrs/dropout.gen.h"
#include "attrs/foldKey.gen.h"
#include "attrs/random.gen.h"
#include "attrs/splitKey.gen.h"
#include "cpu/random.h"

namespace steepest::STEEPEST_LEVEL {

inline void requireDraw(bool fine, const char* rule) {
  if (!fine) throw Error("PROGRAM", rule);
}

// The largest number of a dtype below `high`, so that rounding never gives `high` itself; `low` where they are one.
template <class T>
T belowHigh(double low, double high) {
  if constexpr (std::is_same_v<T, bf16>) {
    float f = std::nextafter(static_cast<float>(high), -INFINITY);
    std::uint32_t bits;
    std::memcpy(&bits, &f, 4);
    // Toward -infinity onto 16 bits.
    const bool cut = (bits & 0xffffu) != 0;
    bits &= 0xffff0000u;
    if (cut && f < 0) bits += 0x10000u;
    return bf16{static_cast<std::uint16_t>(bits >> 16)};
  } else {
    return high > low ? std::nextafter(static_cast<T>(high), -std::numeric_limits<T>::infinity()) : static_cast<T>(low);
  }
}

inline bool isKeys(const View& v) { return v.rank >= 1 && v.dim(-1) == 2 && v.dtype == DType::int32 && v.contiguous(); }

inline Draws checkRandom(const Spec& spec, const RandomAttrs& a) {
  using Kind = RandomAttrs::Kind;
  requireDraw(spec.in.size() == (a.ids ? 2u : 1u) && spec.out.size() == 1, "random takes a key and, where it says so, ids");
  const View &key = spec.in[0], &out = spec.out[0];
  const int lead = key.rank - 1;
  bool fits = lead >= 0 && out.contiguous() && out.dtype == a.dtype && out.rank == lead + static_cast<int>(a.shape.size());
  for (int i = 0; fits && i < out.rank; ++i) fits = out.shape[i] == (i < lead ? key.shape[i] : a.shape[static_cast<std::size_t>(i - lead)]);
  requireDraw(fits, "random gives the axes of the keys, then `shape`");
  const Draws draws = Draws::of("random", key, a.ids ? &spec.in[1] : nullptr, a.shape);
  if (a.kind != Kind::kBits && a.kind != Kind::kInteger) {
    requireDraw(isFloat(a.dtype), "random numbers are floats");
    return draws;
  }
  requireDraw(a.dtype == DType::int32, "random bits and integers are int32");
  const bool range = a.a == std::trunc(a.a) && a.b == std::trunc(a.b) && a.a >= -0x1p31 && a.b <= 0x1p31 && a.b > a.a;
  requireDraw(range || a.kind == Kind::kBits, "random integers need whole bounds that int32 holds");
  return draws;
}

inline void checkSplitKey(const Spec& spec, const SplitKeyAttrs& a) {
  bool fits = spec.in.size() == 1 && spec.out.size() == 1 && isKeys(spec.in[0]) && isKeys(spec.out[0]) && a.count >= 0 &&
              spec.out[0].rank == spec.in[0].rank + 1 && spec.out[0].dim(-2) == a.count;
  for (int i = 0; fits && i < spec.in[0].rank - 1; ++i) fits = spec.out[0].shape[i] == spec.in[0].shape[i];
  requireDraw(fits, "splitKey takes keys [..., 2] and gives [..., count, 2]");
}

inline void checkFoldKey(const Spec& spec) {
  bool fits = spec.in.size() == 2 && spec.out.size() == 1 && isKeys(spec.in[0]) && isKeys(spec.out[0]) &&
              spec.out[0].rank == spec.in[0].rank && spec.in[1].rank == spec.in[0].rank - 1 && spec.in[1].dtype == DType::int32 &&
              spec.in[1].contiguous();
  for (int i = 0; fits && i < spec.in[1].rank; ++i)
    fits = spec.in[1].shape[i] == spec.in[0].shape[i] && spec.out[0].shape[i] == spec.in[0].shape[i];
  requireDraw(fits, "foldKey takes keys [..., 2] and words [...], and gives keys");
}

inline Draws checkDropout(const Spec& spec, const DropoutAttrs& a) {
  const auto refuse = [] {
    throw Error("PROGRAM", "dropout takes x [keys..., ...], keys [keys..., 2] and perhaps ids, and gives the shape of x");
  };
  if (spec.in.size() != (a.ids ? 3u : 2u) || spec.out.size() != 1 || !(a.p >= 0 && a.p <= 1)) refuse();
  const View &x = spec.in[0], &key = spec.in[1], &y = spec.out[0];
  const int lead = key.rank - 1;
  bool fits = lead >= 0 && x.rank >= lead && y.rank == x.rank && y.dtype == x.dtype && x.contiguous() && y.contiguous() && isFloat(x.dtype);
  for (int i = 0; fits && i < x.rank; ++i) fits = y.shape[i] == x.shape[i] && (i >= lead || x.shape[i] == key.shape[i]);
  if (!fits) refuse();
  return Draws::of("dropout", key, a.ids ? &spec.in[2] : nullptr, {x.shape + lead, static_cast<std::size_t>(x.rank - lead)});
}

inline Draws checkCategorical(const Spec& spec, const CategoricalAttrs& a) {
  const auto refuse = [] {
    throw Error("PROGRAM", "categorical takes logits [keys..., ..., n], keys [keys..., 2] and perhaps ids, and gives int32 [keys..., ...]");
  };
  if (spec.in.size() != (a.ids ? 3u : 2u) || spec.out.size() != 1) refuse();
  const View &x = spec.in[0], &key = spec.in[1], &y = spec.out[0];
  const int lead = key.rank - 1;
  bool fits = lead >= 0 && x.rank > lead + (a.ids ? 1 : 0) && y.rank == x.rank - 1 && y.dtype == DType::int32 && x.contiguous() &&
              y.contiguous() && isFloat(x.dtype) && x.dim(-1) > 0 && x.dim(-1) <= std::numeric_limits<std::int32_t>::max() - 64;
  for (int i = 0; fits && i < y.rank; ++i) fits = y.shape[i] == x.shape[i] && (i >= lead || x.shape[i] == key.shape[i]);
  if (!fits) refuse();
  return Draws::of("categorical", key, a.ids ? &spec.in[2] : nullptr, {x.shape + lead, static_cast<std::size_t>(x.rank - lead)});
}

}  // namespace steepest::STEEPEST_LEVEL
