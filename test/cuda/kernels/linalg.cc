// Factorizations on a GPU against LAPACK's, and against what they promise: sizes around tiles and around what one block does, stacks,
// matrices without full rank, and faults.
#include "both.h"

#include <cmath>
#include <limits>

using namespace steepest;

namespace {

using Shape = std::vector<std::int64_t>;
const std::vector<DType> kFloats = {DType::float32, DType::float64};
double bound(DType dtype) { return dtype == DType::float32 ? 2e-5 : 1e-12; }

// Entries of matrix `which` of a stack.
double entry(const Array& a, std::int64_t which, std::int64_t r, std::int64_t c) {
  return numberAt(a, (which * a.view.dim(-2) + r) * a.view.dim(-1) + c);
}

// The largest entry of |aᵀ a − 1| (of |a aᵀ − 1| where rows are meant).
double offOrthogonal(const Array& a, bool rows) {
  const std::int64_t m = a.view.dim(rows ? -1 : -2), n = a.view.dim(rows ? -2 : -1), count = a.view.size() / (m * n);
  double worst = 0;
  for (std::int64_t w = 0; w < count; ++w) {
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j <= i; ++j) {
        double sum = i == j ? -1 : 0;
        for (std::int64_t k = 0; k < m; ++k) sum += rows ? entry(a, w, i, k) * entry(a, w, j, k) : entry(a, w, k, i) * entry(a, w, k, j);
        worst = std::max(worst, std::fabs(sum));
      }
    }
  }
  return worst;
}

Array definite(DType dtype, std::int64_t count, std::int64_t n, unsigned seed) {
  const Array x = normalArray(DType::float64, {count, n, n}, seed);
  Array a = Array::empty(dtype, {count, n, n});
  for (std::int64_t i = 0; i < count * n * n; ++i) {
    double sum = i / n % n == i % n ? 1 : 0;
    for (std::int64_t k = 0; k < n; ++k)
      sum += entry(x, i / (n * n), i / n % n, k) * entry(x, i / (n * n), i % n, k) / static_cast<double>(n);
    setNumber(a, i, sum);
  }
  return a;
}

}  // namespace

TEST(qr_with_the_signs_of_the_cpu) {
  for (const DType dtype : kFloats) {
    for (const auto& [m, n] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {3, 3}, {1, 4}, {4, 1}, {37, 20}, {20, 37}, {300, 5}}) {
      const std::int64_t k = std::min(m, n);
      const std::vector<Array> in{normalArray(dtype, {2, m, n}, static_cast<unsigned>(m * n))};
      const Both r = runBoth(Op::qr_, in, {Array::empty(dtype, {2, m, k}), Array::empty(dtype, {2, k, n})}, {0});
      CHECK(apart(r) < bound(dtype));
      if (m <= 70) CHECK(apart(runBoth(Op::qr_, in, {Array::empty(dtype, {2, m, m}), Array::empty(dtype, {2, m, n})}, {1})) < bound(dtype));
    }
    // A column of zeros, and one that is there twice: Q is orthogonal all the same, and Q R is the matrix.
    Array a = normalArray(dtype, {9, 5}, 4);
    for (std::int64_t i = 0; i < 9; ++i) {
      setNumber(a, 5 * i + 1, 0);
      setNumber(a, 5 * i + 3, entry(a, 0, i, 0));
    }
    const Both r = runBoth(Op::qr_, {a}, {Array::empty(dtype, {9, 5}), Array::empty(dtype, {5, 5})}, {0});
    CHECK(offOrthogonal(r.cuda[0], false) < bound(dtype));
    for (std::int64_t i = 0; i < 9; ++i) {
      for (std::int64_t j = 0; j < 5; ++j) {
        double sum = -entry(a, 0, i, j);
        for (std::int64_t k = 0; k < 5; ++k) sum += entry(r.cuda[0], 0, i, k) * entry(r.cuda[1], 0, k, j);
        CHECK(std::fabs(sum) < bound(dtype));
      }
    }
  }
}

TEST(cholesky_as_the_cpu) {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : {1, 5, 32, 33, 100}) {
      Array a = definite(dtype, 2, n, static_cast<unsigned>(n));
      const std::vector<Array> out{Array::empty(dtype, {2, n, n})};
      CHECK(apart(runBoth(Op::cholesky_, {a}, out, {})) < bound(dtype));
      // In place, and the second matrix is not positive definite.
      setNumber(a, 2 * n * n - 1, -1);
      const Both r = runBoth(Op::cholesky_, {a}, out, {}, {0});
      CHECK(r.cudaFault == 3 && r.cpuFault == 3);
      CHECK(std::isnan(entry(r.cuda[0], 1, n - 1, 0)) && !std::isnan(entry(r.cuda[0], 0, n - 1, n - 1)));
      setNumber(a, 0, std::numeric_limits<double>::infinity());
      CHECK(runBoth(Op::cholesky_, {a}, out, {}).cudaFault != 0);
    }
  }
}

TEST(triangular_systems_as_the_cpu) {
  for (const DType dtype : kFloats) {
    for (const auto& [n, m] : std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {5, 40}, {32, 3}, {70, 33}}) {
      Array a = normalArray(dtype, {2, n, n}, static_cast<unsigned>(n), 0.05);
      for (std::int64_t i = 0; i < 2 * n; ++i) setNumber(a, i / n * n * n + i % n * (n + 1), 1.5 + 0.01 * static_cast<double>(i % n));
      const Array b = normalArray(dtype, {2, n, m}, 2);
      const std::vector<Array> out{Array::empty(dtype, {2, n, m})};
      for (int flags = 0; flags < 8; ++flags) {
        const std::vector<double> attrs{static_cast<double>(flags & 1), static_cast<double>(flags >> 1 & 1),
                                        static_cast<double>(flags >> 2)};
        CHECK(apart(runBoth(Op::triangularSolve_, {a, b}, out, attrs)) < bound(dtype));
        CHECK(apart(runBoth(Op::triangularSolve_, {a, b}, out, attrs, {1})) < bound(dtype));
      }
      setNumber(a, n * n - 1, 0);
      const Both r = runBoth(Op::triangularSolve_, {a, b}, out, {1, 0, 0});
      CHECK(r.cudaFault == 3 && r.cpuFault == 3 && apart(r) < bound(dtype));
    }
  }
}

TEST(systems_and_determinants_as_the_cpu) {
  for (const DType dtype : kFloats) {
    for (const auto& [n, m] : std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {2, 5}, {37, 3}}) {
      Array a = normalArray(dtype, {3, n, n}, static_cast<unsigned>(n));
      for (std::int64_t i = 0; i < 3 * n; ++i) setNumber(a, i / n * n * n + i % n * (n + 1), 0);
      for (std::int64_t i = 0; i < 3 * n; ++i) setNumber(a, i / n * n * n + i % n * n + (i + 1) % n, 9);
      const Array b = normalArray(dtype, {3, n, m}, 2);
      const std::vector<Array> out{Array::empty(dtype, {3, n, m})}, logs{Array::empty(dtype, {3}), Array::empty(dtype, {3})};
      CHECK(apart(runBoth(Op::solve_, {a, b}, out, {})) < 20 * bound(dtype));
      CHECK(apart(runBoth(Op::slogdet_, {a}, logs, {})) < bound(dtype));
      // A column of zeros in the second.
      for (std::int64_t i = 0; i < n; ++i) setNumber(a, n * n + i * n, 0);
      const Both r = runBoth(Op::solve_, {a, b}, out, {});
      CHECK(r.cudaFault == 3 && r.cpuFault == 3 && std::isnan(entry(r.cuda[0], 1, 0, 0)) && !std::isnan(entry(r.cuda[0], 2, 0, 0)));
      const Both s = runBoth(Op::slogdet_, {a}, logs, {});
      CHECK(s.cudaFault == 0 && apart(s) < bound(dtype) && numberAt(s.cuda[0], 1) == 0 && std::isinf(numberAt(s.cuda[1], 1)));
    }
    // The determinant of nothing is 1.
    CHECK(runBoth(Op::slogdet_, {Array::empty(dtype, {2, 0, 0})}, {Array::empty(dtype, {2}), Array::empty(dtype, {2})}, {}).equal());
  }
}

TEST(eigenvalues_as_the_cpu) {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : {1, 2, 7, 66}) {
      // Beyond what one block does.
      if (n > 64 && dtype == DType::float64) continue;
      Array a = normalArray(dtype, {2, n, n}, static_cast<unsigned>(n));
      if (n == 7) {
        // Equal eigenvalues, and zeros.
        for (std::int64_t i = 0; i < n * n; ++i) setNumber(a, i, i / n == i % n && i % n > 2 ? -2 : 0);
      }
      const Both r = runBoth(Op::eigh_, {a}, {Array::empty(dtype, {2, n}), Array::empty(dtype, {2, n, n})}, {});
      double size = 0, worst = 0;
      for (std::int64_t i = 0; i < 2 * n; ++i) {
        size = std::max(size, std::fabs(numberAt(r.cpu[0], i)));
        worst = std::max(worst, std::fabs(numberAt(r.cpu[0], i) - numberAt(r.cuda[0], i)));
      }
      CHECK(r.cudaFault == 0 && worst <= bound(dtype) * size && offOrthogonal(r.cuda[1], false) < bound(dtype));
      for (std::int64_t w = 0; w < 2; ++w) {
        for (std::int64_t i = 0; i < n; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            double sum = -numberAt(r.cuda[0], w * n + j) * entry(r.cuda[1], w, i, j);
            for (std::int64_t k = 0; k < n; ++k) sum += entry(a, w, std::max(i, k), std::min(i, k)) * entry(r.cuda[1], w, k, j);
            CHECK(std::fabs(sum) <= bound(dtype) * size);
          }
        }
      }
      if (n > 64) continue;
      setNumber(a, n * n - 1, std::numeric_limits<double>::quiet_NaN());
      const Both bad = runBoth(Op::eigh_, {a}, {Array::empty(dtype, {2, n}), Array::empty(dtype, {2, n, n})}, {});
      CHECK(bad.cudaFault == 1 && std::isnan(numberAt(bad.cuda[0], 0)) && !std::isnan(numberAt(bad.cuda[0], n)));
    }
  }
}

TEST(singular_values_as_the_cpu) {
  for (const DType dtype : kFloats) {
    for (const auto& [m, n] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}, {6, 4}, {4, 6}, {9, 5}, {5, 9}, {20, 31}, {66, 65}}) {
      const std::int64_t k = std::min(m, n);
      if (k > 64 && dtype == DType::float64) continue;
      Array a = normalArray(dtype, {2, m, n}, static_cast<unsigned>(m + n));
      // Of rank two, and nothing but zeros.
      if (m == 9 || m == 5) {
        for (std::int64_t i = 0; i < m * n; ++i) {
          const double r = static_cast<double>(i / n), c = static_cast<double>(i % n);
          setNumber(a, i, r + 1 + (r * r - 3) * c);
        }
      }
      if (m == 6) {
        for (std::int64_t i = 0; i < m * n; ++i) setNumber(a, i, 0);
      }
      const Both r =
          runBoth(Op::svd_, {a}, {Array::empty(dtype, {2, m, k}), Array::empty(dtype, {2, k}), Array::empty(dtype, {2, k, n})}, {});
      double size = 0, worst = 0;
      for (std::int64_t i = 0; i < 2 * k; ++i) {
        size = std::max(size, numberAt(r.cpu[1], i));
        worst = std::max(worst, std::fabs(numberAt(r.cpu[1], i) - numberAt(r.cuda[1], i)));
      }
      CHECK(r.cudaFault == 0 && worst <= bound(dtype) * size);
      CHECK(offOrthogonal(r.cuda[0], false) < bound(dtype) && offOrthogonal(r.cuda[2], true) < bound(dtype));
      for (std::int64_t w = 0; w < 2; ++w) {
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            double sum = -entry(a, w, i, j);
            for (std::int64_t c = 0; c < k; ++c)
              sum += entry(r.cuda[0], w, i, c) * numberAt(r.cuda[1], w * k + c) * entry(r.cuda[2], w, c, j);
            CHECK(std::fabs(sum) <= bound(dtype) * size);
          }
        }
      }
      if (k > 9) continue;
      setNumber(a, 2 * m * n - 1, std::numeric_limits<double>::infinity());
      CHECK(runBoth(Op::svd_, {a}, {r.cpu[0], r.cpu[1], r.cpu[2]}, {}).cudaFault == 1);
    }
  }
}
