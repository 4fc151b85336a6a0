// Brings elements of any dtype and stride into a contiguous buffer of the type that computes.
#pragma once

#include "math/vec.h"
#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL::reduction {

// n elements at data[offset + i * stride] into `to`.
template <class C>
using Pack = void (*)(const std::byte* data, std::int64_t offset, std::int64_t stride, int n, C* to);

inline float plain(bf16 x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, sizeof y);
  return y;
}
template <class T>
inline T plain(T x) {
  return x;
}

template <class T, class C, bool Truth>
void packFrom(const std::byte* data, std::int64_t offset, std::int64_t stride, int n, C* to) {
  const T* from = reinterpret_cast<const T*>(data) + offset;
  const auto convert = [](T x) {
    if constexpr (Truth)
      return static_cast<C>(plain(x) != 0);
    else
      return static_cast<C>(plain(x));
  };
  if (stride == 1) {
    for (int i = 0; i < n; ++i) to[i] = convert(from[i]);
  } else if (stride == 0) {
    std::fill_n(to, n, convert(from[0]));
  } else {
    for (int i = 0; i < n; ++i) to[i] = convert(from[i * stride]);
  }
}

// Truth: 1 where the element is not zero (NaN is not zero), else 0.
template <class C, bool Truth = false>
Pack<C> packOf(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return packFrom<float, C, Truth>;
    case DType::bfloat16:
      return packFrom<bf16, C, Truth>;
    case DType::float64:
      return packFrom<double, C, Truth>;
    case DType::int32:
      return packFrom<std::int32_t, C, Truth>;
    default:
      return packFrom<std::uint8_t, C, Truth>;
  }
}

template <class C>
constexpr DType kNative = std::is_same_v<C, float> ? DType::float32 : DType::float64;

// Whether the bytes in memory are already what computes.
template <class C>
bool isNative(DType dtype) {
  return !std::is_integral_v<C> && dtype == kNative<C>;
}

inline void put(const View& out, std::int64_t at, double x) {
  switch (out.dtype) {
    case DType::float32:
      out.as<float>()[at] = static_cast<float>(x);
      return;
    case DType::bfloat16: {
      bf16 half;
      store(&half, vf(static_cast<float>(x)), 1);
      out.as<bf16>()[at] = half;
      return;
    }
    case DType::float64:
      out.as<double>()[at] = x;
      return;
    case DType::int32:
      out.as<std::int32_t>()[at] = static_cast<std::int32_t>(x);
      return;
    default:
      out.as<std::uint8_t>()[at] = static_cast<std::uint8_t>(x);
      return;
  }
}
// Integers wrap, as in two's complement.
inline void put(const View& out, std::int64_t at, std::int64_t x) {
  if (out.dtype == DType::int32)
    out.as<std::int32_t>()[at] = static_cast<std::int32_t>(static_cast<std::uint32_t>(x));
  else
    out.as<std::uint8_t>()[at] = static_cast<std::uint8_t>(x);
}

}  // namespace steepest::STEEPEST_LEVEL::reduction
