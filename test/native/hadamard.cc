// The Walsh-Hadamard transform against the matrix, whose element (i, j) is -1 to the number of ones in i & j.
#include <bit>
#include <cmath>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {
std::vector<double> naive(const std::vector<double>& x, std::int64_t n, bool normalized) {
  std::vector<double> y(x.size());
  const double scale = normalized ? 1 / std::sqrt(static_cast<double>(n)) : 1;
  for (std::int64_t row = 0; row < static_cast<std::int64_t>(x.size()) / n; ++row) {
    for (std::int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        const double v = x[static_cast<std::size_t>(row * n + j)];
        sum += std::popcount(static_cast<std::uint64_t>(i & j)) % 2 ? -v : v;
      }
      y[static_cast<std::size_t>(row * n + i)] = sum * scale;
    }
  }
  return y;
}
}  // namespace

TEST(hadamard_is_the_product_with_its_matrix) {
  for (const std::int64_t n : {1, 2, 4, 8, 16, 32, 64, 512, 8192}) {
    const std::int64_t rows = n > 4096 ? 2 : 5;
    std::vector<double> x(static_cast<std::size_t>(rows * n));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(i) * 0.7);
    const std::vector<float> f(x.begin(), x.end());
    for (const bool normalized : {false, true}) {
      const std::vector<double> expect = naive(x, n, normalized);
      std::vector<std::byte> first, firstWide;
      atAllLevels([&](const Level& level, int threads) {
        std::vector<Array> in{Array::of(DType::float64, {rows, n}, x)}, out{Array::empty(DType::float64, {rows, n})};
        runOp(level, Op::hadamard_, in, out, {normalized ? 1.0 : 0.0}, threads);
        if (firstWide.empty()) firstWide = out[0].bytes;
        CHECK(out[0].bytes == firstWide);
        std::vector<Array> in32{Array::of(DType::float32, {rows, n}, f)}, out32{Array::empty(DType::float32, {rows, n})};
        runOp(level, Op::hadamard_, in32, out32, {normalized ? 1.0 : 0.0}, threads);
        if (first.empty()) first = out32[0].bytes;
        CHECK(out32[0].bytes == first);
        double worst = 0, worst32 = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
          worst = std::max(worst, std::fabs(out[0].as<double>()[i] - expect[i]));
          worst32 = std::max(worst32, std::fabs(out32[0].as<float>()[i] - expect[i]));
        }
        const double size = std::sqrt(static_cast<double>(n)) * (normalized ? 1 : std::sqrt(static_cast<double>(n)));
        CHECK_NEAR(worst, 0, 1e-15 * 4 * size);
        CHECK_NEAR(worst32, 0, 6e-8 * 4 * size);
      });
    }
  }
}

TEST(hadamard_bfloat16_is_float32_rounded) {
  for (const std::int64_t n : {4, 64, 8192}) {
    std::vector<std::uint16_t> h(static_cast<std::size_t>(2 * n));
    std::vector<float> f(h.size());
    for (std::size_t i = 0; i < h.size(); ++i) {
      h[i] = static_cast<std::uint16_t>(0x3f00 + i % 113);
      const std::uint32_t bits = std::uint32_t{h[i]} << 16;
      std::memcpy(&f[i], &bits, 4);
    }
    atAllLevels([&](const Level& level, int threads) {
      std::vector<Array> in{Array::of(DType::bfloat16, {2, n}, h)}, out{Array::empty(DType::bfloat16, {2, n})};
      std::vector<Array> in32{Array::of(DType::float32, {2, n}, f)}, out32{Array::empty(DType::float32, {2, n})};
      runOp(level, Op::hadamard_, in, out, {1}, threads);
      runOp(level, Op::hadamard_, in32, out32, {1}, threads);
      bool fine = true;
      for (std::size_t i = 0; i < h.size(); ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, out32[0].as<float>() + i, 4);
        bits += 0x7fff + ((bits >> 16) & 1);
        fine &= out[0].as<std::uint16_t>()[i] == bits >> 16;
      }
      CHECK(fine);
    });
  }
}

TEST(hadamard_refuses_other_lengths) {
  std::vector<Array> in{Array::empty(DType::float32, {3})}, out{Array::empty(DType::float32, {3})};
  bool refused = false;
  try {
    runOp(levels()[0], Op::hadamard_, in, out, {1}, 1);
  } catch (const Error& error) {
    refused = error.code == "PROGRAM";
  }
  CHECK(refused);
}
