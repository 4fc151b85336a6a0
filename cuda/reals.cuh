// Numbers of float32 or of float64, seen as float64: what is computed once and not hot is compiled once for both.
#pragma once

#include "cuda/device.cuh"

namespace steepest::cuda {

struct Reals {
  std::byte* at = nullptr;
  bool wide = false;

  Reals() = default;
  explicit Reals(const View& v) : at(v.data), wide(v.dtype == DType::float64) {}
  __device__ double operator[](std::int64_t i) const {
    return wide ? reinterpret_cast<const double*>(at)[i] : static_cast<double>(reinterpret_cast<const float*>(at)[i]);
  }
  __device__ void put(std::int64_t i, double x) const {
    if (wide)
      reinterpret_cast<double*>(at)[i] = x;
    else
      reinterpret_cast<float*>(at)[i] = static_cast<float>(x);
  }
};

}  // namespace steepest::cuda
