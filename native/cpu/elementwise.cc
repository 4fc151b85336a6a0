// Placeholder until the vectorized interpreter lands: every step in double, one element at a time.
#include <cmath>
#include <cstring>

#include "ops.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

double load1(const View& v, std::int64_t off) {
  switch (v.dtype) {
    case DType::float32: return v.as<float>()[off];
    case DType::float64: return v.as<double>()[off];
    case DType::int32: return v.as<std::int32_t>()[off];
    case DType::uint8: return v.as<std::uint8_t>()[off];
    default: {
      const std::uint32_t bits = static_cast<std::uint32_t>(v.as<bf16>()[off].bits) << 16;
      float f;
      std::memcpy(&f, &bits, 4);
      return f;
    }
  }
}

void store1(const View& v, std::int64_t off, double x) {
  switch (v.dtype) {
    case DType::float32: v.as<float>()[off] = static_cast<float>(x); break;
    case DType::float64: v.as<double>()[off] = x; break;
    case DType::int32: v.as<std::int32_t>()[off] = static_cast<std::int32_t>(x); break;
    case DType::uint8: v.as<std::uint8_t>()[off] = static_cast<std::uint8_t>(x); break;
    default: {
      const float f = static_cast<float>(x);
      std::uint32_t bits;
      std::memcpy(&bits, &f, 4);
      v.as<bf16>()[off].bits = static_cast<std::uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }
  }
}

double sig(double x) { return 1 / (1 + std::exp(-x)); }
double tanhSlope(double x) {
  const double a = std::sqrt(2 / M_PI), t = std::tanh(a * (x + 0.044715 * x * x * x));
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * 0.044715 * x * x);
}

double apply(Ew op, DType result, double a, double b, double c) {
  switch (op) {
    case Ew::add_: return a + b;
    case Ew::sub_: return a - b;
    case Ew::mul_: return a * b;
    case Ew::div_: return a / b;
    case Ew::floorDiv_: return std::floor(a / b);
    case Ew::remainder_: return a - b * std::floor(a / b);
    case Ew::neg_: return -a;
    case Ew::abs_: return std::fabs(a);
    case Ew::sign_: return a > 0 ? 1 : a < 0 ? -1 : a;
    case Ew::pow_: return std::pow(a, b);
    case Ew::maximum_: return std::isnan(a) || a > b ? a : b;
    case Ew::minimum_: return std::isnan(a) || a < b ? a : b;
    case Ew::equal_: return a == b;
    case Ew::notEqual_: return a != b;
    case Ew::less_: return a < b;
    case Ew::lessEqual_: return a <= b;
    case Ew::greater_: return a > b;
    case Ew::greaterEqual_: return a >= b;
    case Ew::logicalAnd_: return a != 0 && b != 0;
    case Ew::logicalOr_: return a != 0 || b != 0;
    case Ew::logicalNot_: return a == 0;
    case Ew::isFinite_: return std::isfinite(a);
    case Ew::isNaN_: return std::isnan(a);
    case Ew::where_: return a != 0 ? b : c;
    case Ew::exp_: return std::exp(a);
    case Ew::expm1_: return std::expm1(a);
    case Ew::log_: return std::log(a);
    case Ew::log1p_: return std::log1p(a);
    case Ew::sqrt_: return std::sqrt(a);
    case Ew::rsqrt_: return 1 / std::sqrt(a);
    case Ew::square_: return a * a;
    case Ew::reciprocal_: return 1 / a;
    case Ew::tanh_: return std::tanh(a);
    case Ew::erf_: return std::erf(a);
    case Ew::sigmoid_: return sig(a);
    case Ew::softplus_: return a > 0 ? a + std::log1p(std::exp(-a)) : std::log1p(std::exp(a));
    case Ew::sin_: return std::sin(a);
    case Ew::cos_: return std::cos(a);
    case Ew::floor_: return std::floor(a);
    case Ew::ceil_: return std::ceil(a);
    case Ew::round_: return std::nearbyint(a);
    case Ew::relu_: return a > 0 ? a : 0;
    case Ew::gelu_: return 0.5 * a * (1 + std::erf(a * M_SQRT1_2));
    case Ew::geluGrad_: return b * (0.5 * (1 + std::erf(a * M_SQRT1_2)) + a * std::exp(-0.5 * a * a) / std::sqrt(2 * M_PI));
    case Ew::geluTanh_: return 0.5 * a * (1 + std::tanh(std::sqrt(2 / M_PI) * (a + 0.044715 * a * a * a)));
    case Ew::geluTanhGrad_: return b * tanhSlope(a);
    case Ew::silu_: return a * sig(a);
    case Ew::siluGrad_: return b * sig(a) * (1 + a * (1 - sig(a)));
    case Ew::cast_: return isFloat(result) ? a : std::trunc(a);
  }
  return 0;
}

void elementwise(const Call& call, const ElementwiseAttrs& attrs) {
  const std::int64_t n = call.out.empty() ? 0 : call.out[0].size();
  std::vector<double> r;
  for (std::int64_t i = 0; i < n; ++i) {
    r.clear();
    for (const View& v : call.in) {
      std::int64_t rest = i, off = 0;
      for (int d = v.rank - 1; d >= 0; --d) {
        off += rest % v.shape[d] * v.strides[d];
        rest /= v.shape[d];
      }
      r.push_back(load1(v, off));
    }
    for (const double c : attrs.constants) r.push_back(c);
    for (std::size_t s = 0; s + 6 <= attrs.code.size(); s += 6) {
      const auto reg = [&](std::size_t k) { return attrs.code[s + k] < 0 ? 0.0 : r[static_cast<std::size_t>(attrs.code[s + k])]; };
      double y = apply(static_cast<Ew>(static_cast<int>(attrs.code[s])), static_cast<DType>(static_cast<int>(attrs.code[s + 2])), reg(3), reg(4), reg(5));
      if (attrs.code[s + 2] == 0) y = static_cast<float>(y);
      r.push_back(y);
    }
    for (std::size_t k = 0; k < call.out.size(); ++k) store1(call.out[k], i, r[static_cast<std::size_t>(attrs.outputs[k])]);
  }
}

}  // namespace

std::unique_ptr<Kernel> makeElementwise(const Spec& spec) { return std::make_unique<SimpleKernel<ElementwiseAttrs, elementwise>>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
