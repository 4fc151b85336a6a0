// Steps in int32, and what leads from dtype to dtype.
#include "cpu/elementwise.h"

namespace steepest::STEEPEST_LEVEL::ew {

namespace {

vf roundToBf16(vf x) {
  const vi u = toBits(x);
  return select(isNan(x), x, fromBits((u + vi(0x7fff) + (shr(u, 16) & vi(1))) & vi(static_cast<std::int32_t>(0xffff0000))));
}
vf lowByte(vi x) { return toFloat(x & vi(0xff)); }

// A whole number in float64 as two halves that float32 holds; out of range or NaN is INT_MIN, as truncToInt has it.
vi toWhole(vd lo, vd hi) {
  const auto cut = [](vd x, vd& high, vd& low) {
    const vd whole = trunc(x);
    const auto fits = (whole >= vd(-2147483648.0)) & (whole < vd(2147483648.0));
    const vd safe = select(fits, whole, vd(-2147483648.0));
    high = floor(safe * vd(0x1p-16));
    low = fnma(high, vd(65536), safe);
  };
  vd highLo, lowLo, highHi, lowHi;
  cut(lo, highLo, lowLo);
  cut(hi, highHi, lowHi);
  return (toInt(narrow(highLo, highHi)) << 16) + toInt(narrow(lowLo, lowHi));
}
void fromWhole(vi x, vd& lo, vd& hi) {
  vd highLo, lowLo, highHi, lowHi;
  widen(toFloat(x >> 16), highLo, highHi);
  widen(toFloat(x & vi(0xffff)), lowLo, lowHi);
  lo = fma(highLo, vd(65536), lowLo);
  hi = fma(highHi, vd(65536), lowHi);
}

template <DType from, DType to>
void cast(const Source* sources, std::byte* out, std::int64_t n) {
  const Source s = sources[0];
  for (std::int64_t i = 0; i < n; i += 16) {
    constexpr Kind a = kindOf(from), b = kindOf(to);
    vd lo, hi;
    vf x;
    vi w;
    if constexpr (a == Kind::twice) {
      lo = vd::load(lanes<double>(s, i));
      hi = vd::load(lanes<double>(s, i) + (s.step ? 8 : 0));
    } else if constexpr (a == Kind::whole) {
      w = vi::load(lanes<std::int32_t>(s, i));
    } else {
      x = vf::load(lanes<float>(s, i));
    }
    if constexpr (b == Kind::twice) {
      if constexpr (a == Kind::single) widen(x, lo, hi);
      if constexpr (a == Kind::whole) fromWhole(w, lo, hi);
      store(lanes<double>(out, i), lo);
      store(lanes<double>(out, i) + 8, hi);
    } else if constexpr (b == Kind::whole || to == DType::uint8) {
      if constexpr (a == Kind::twice) w = toWhole(lo, hi);
      if constexpr (a == Kind::single) w = truncToInt(x);
      if constexpr (to == DType::uint8)
        store(lanes<float>(out, i), lowByte(w));
      else
        store(lanes<std::int32_t>(out, i), w);
    } else {
      if constexpr (a == Kind::twice) x = narrow(lo, hi);
      if constexpr (a == Kind::whole) x = toFloat(w);
      store(lanes<float>(out, i), to == DType::bfloat16 && from != DType::bfloat16 ? roundToBf16(x) : x);
    }
  }
}

template <DType from>
Loop castFrom(DType to) {
  switch (to) {
    case DType::float32:
      return cast<from, DType::float32>;
    case DType::bfloat16:
      return cast<from, DType::bfloat16>;
    case DType::float64:
      return cast<from, DType::float64>;
    case DType::int32:
      return cast<from, DType::int32>;
    default:
      return cast<from, DType::uint8>;
  }
}

void wrapToByte(const Source* sources, std::byte* to, std::int64_t n) {
  const Source s = sources[0];
  for (std::int64_t i = 0; i < n; i += 16) {
    const vf x = vf::load(lanes<float>(s, i));
    store(lanes<float>(to, i), lowByte(toInt(select(isFinite(x), x, vf(0)))));
  }
}

}  // namespace

#define ROW(name) loopOf<name##_, vi>(),
const LoopTable intLoops = {STEEPEST_ELEMENTWISE(ROW)};
#undef ROW
Loop castLoop(DType from, DType to) {
  switch (from) {
    case DType::float32:
      return castFrom<DType::float32>(to);
    case DType::bfloat16:
      return castFrom<DType::bfloat16>(to);
    case DType::float64:
      return castFrom<DType::float64>(to);
    case DType::int32:
      return castFrom<DType::int32>(to);
    default:
      return castFrom<DType::uint8>(to);
  }
}

Loop narrowLoop(DType to) {
  if (to == DType::bfloat16) return cast<DType::float32, DType::bfloat16>;
  return to == DType::uint8 ? wrapToByte : nullptr;
}

}  // namespace steepest::STEEPEST_LEVEL::ew
