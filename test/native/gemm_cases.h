// Gemm against a float64 loop: every layout and dtype, odd, empty and size-one shapes, on both sides of each engine's limits.
// Included once per dispatch level, with STEEPEST_LEVEL set.
#pragma once

#include "cpu/gemm.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "check.h"

namespace {

using namespace steepest;
using namespace steepest::STEEPEST_LEVEL;

bf16 round(double x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(static_cast<float>(x));
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

// Numbers of one dtype, kept as float64 too.
struct Data {
  DType dtype;
  std::vector<double> exact;
  std::vector<std::byte> bytes;
  Data(DType dtype, std::size_t count, unsigned seed) : dtype(dtype), exact(count), bytes(count * sizeOf(dtype)) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (std::size_t i = 0; i < count; ++i) set(i, uniform(random));
  }
  void set(std::size_t i, double x) {
    if (dtype == DType::float64)
      reinterpret_cast<double*>(bytes.data())[i] = x;
    else if (dtype == DType::float32)
      reinterpret_cast<float*>(bytes.data())[i] = static_cast<float>(x);
    else
      reinterpret_cast<bf16*>(bytes.data())[i] = round(x);
    exact[i] = at(i);
  }
  double at(std::size_t i) const {
    if (dtype == DType::float64) return reinterpret_cast<const double*>(bytes.data())[i];
    if (dtype == DType::float32) return reinterpret_cast<const float*>(bytes.data())[i];
    return std::bit_cast<float>(static_cast<std::uint32_t>(reinterpret_cast<const bf16*>(bytes.data())[i].bits) << 16);
  }
};

enum class Layout { rows, columns, wide, reversed, repeated };

struct Operand {
  std::int64_t row, col, offset;
  std::size_t count;
};
Operand lay(Layout layout, std::int64_t rows, std::int64_t cols) {
  const auto n = static_cast<std::size_t>(rows * cols);
  switch (layout) {
    case Layout::rows:
      return {cols, 1, 0, n};
    case Layout::columns:
      return {1, rows, 0, n};
    case Layout::wide:
      return {2 * cols + 3, 2, 0, static_cast<std::size_t>(rows * (2 * cols + 3))};
    case Layout::reversed:
      return {cols, -1, cols - 1, n};
    default:
      return {0, 1, 0, static_cast<std::size_t>(cols)};
  }
}

void compare(std::int64_t m, std::int64_t n, std::int64_t k, DType in, DType out, Layout la, Layout lb, bool accumulate) {
  const Operand a = lay(la, m, k), b = lay(lb, k, n);
  const std::int64_t cRow = n + 5;
  const Data x(in, a.count + 1, 1), y(in, b.count + 1, 2);
  Data z(out, static_cast<std::size_t>(m * cRow) + 1, 3);
  const std::vector<double> before = z.exact;
  const GemmShape shape{m, n, k, a.row, a.col, b.row, b.col, cRow, in, out, accumulate};
  const Gemm gemm(shape);
  std::vector<std::byte> scratch(gemm.scratch() + 64);
  std::byte* aligned = scratch.data() + (64 - reinterpret_cast<std::uintptr_t>(scratch.data()) % 64) % 64;
  gemm.run(x.bytes.data() + a.offset * sizeOf(in), y.bytes.data() + b.offset * sizeOf(in), z.bytes.data(), aligned);
  // Rounding of the sum (a random walk over k terms) and of the result; `worst` is in units of that bound.
  const double sumUnit = out == DType::float64 ? 0x1p-53 : 0x1p-24, outUnit = out == DType::bfloat16 ? 0x1p-8 : sumUnit;
  double worst = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < cRow; ++j) {
      const double held = before[i * cRow + j];
      double expect = accumulate ? held : 0, magnitude = std::fabs(expect);
      if (j < n) {
        for (std::int64_t p = 0; p < k; ++p) {
          const double term = x.exact[a.offset + i * a.row + p * a.col] * y.exact[b.offset + p * b.row + j * b.col];
          expect += term;
          magnitude += std::fabs(term);
        }
        const double bound = sumUnit * (4 + std::sqrt(static_cast<double>(k))) * magnitude + outUnit * (std::fabs(expect) + 1e-30);
        worst = std::max(worst, std::fabs(z.at(i * cRow + j) - expect) / bound);
      } else if (z.at(i * cRow + j) != held) {
        worst = 1e30;  // wrote between the rows
      }
    }
  }
  if (!(worst <= 1)) {
    std::printf("m %ld n %ld k %ld, %s to %s, layouts %d %d, accumulate %d: error %g of the bound\n", m, n, k, nameOf(in), nameOf(out),
                static_cast<int>(la), static_cast<int>(lb), accumulate, worst);
  }
  CHECK(worst <= 1);
}

void compareAll() {
  const std::int64_t sizes[][3] = {{0, 3, 4},     {3, 0, 4},     {3, 4, 0},      {1, 1, 1},     {1, 5, 7},    {1, 300, 211},
                                   {300, 1, 211}, {1, 1, 5000},  {5, 3, 2},      {7, 9, 1},     {16, 16, 16}, {17, 33, 19},
                                   {64, 64, 64},  {65, 130, 77}, {130, 48, 257}, {2, 200, 300}, {200, 3, 300}};
  const std::pair<DType, DType> dtypes[] = {{DType::float32, DType::float32},
                                            {DType::bfloat16, DType::bfloat16},
                                            {DType::bfloat16, DType::float32},
                                            {DType::float64, DType::float64}};
  for (const auto& [m, n, k] : sizes) {
    for (const auto& [in, out] : dtypes) {
      for (const bool accumulate : {false, true}) {
        for (const Layout la : {Layout::rows, Layout::columns, Layout::wide}) {
          for (const Layout lb : {Layout::rows, Layout::columns, Layout::wide}) compare(m, n, k, in, out, la, lb, accumulate);
        }
        compare(m, n, k, in, out, Layout::reversed, Layout::repeated, accumulate);
        compare(m, n, k, in, out, Layout::repeated, Layout::reversed, accumulate);
      }
    }
  }
}

}  // namespace
