// Factorizations by what they must satisfy, for stacks, at every level and for any threads with the same bits.
#include <cmath>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

using Matrix = std::vector<double>;

std::vector<double> noise(std::int64_t n, double phase) {
  std::vector<double> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = std::sin(static_cast<double>(i * i) * 0.37 + phase) + 0.3 * std::cos(static_cast<double>(i) * 1.9);
  return x;
}

// Largest |A B - C| over a stack, with A [m, k], B [k, n], or their transposes.
double residual(const double* a, bool ta, const double* b, bool tb, const double* c, std::int64_t m, std::int64_t k, std::int64_t n) {
  double worst = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t p = 0; p < k; ++p) sum += (ta ? a[p * m + i] : a[i * k + p]) * (tb ? b[j * k + p] : b[p * n + j]);
      worst = std::max(worst, std::fabs(sum - (c ? c[i * n + j] : i == j)));
    }
  }
  return worst;
}

struct Result {
  std::vector<Array> out;
  int fault;
};

Array stack(DType dtype, const std::vector<std::int64_t>& shape, const std::vector<double>& x) {
  if (dtype == DType::float64) return Array::of(dtype, shape, x);
  return Array::of(dtype, shape, std::vector<float>(x.begin(), x.end()));
}

std::vector<double> wide(const Array& a) {
  if (a.view.dtype == DType::float64) return {a.as<double>(), a.as<double>() + a.view.size()};
  return {a.as<float>(), a.as<float>() + a.view.size()};
}

// Runs everywhere, checks that all bits are equal, gives the last.
Result everywhere(Op op, std::vector<Array> in, const std::vector<Array>& out, const std::vector<double>& attrs) {
  Result result;
  bool first = true, same = true;
  atAllLevels([&](const Level& level, int threads) {
    std::vector<Array> mine = out;
    const int fault = runOp(level, op, in, mine, attrs, threads);
    for (std::size_t i = 0; i < mine.size() && !first; ++i) same &= mine[i].bytes == result.out[i].bytes && fault == result.fault;
    result = {mine, fault};
    first = false;
  });
  CHECK(same);
  return result;
}

constexpr std::int64_t kStack = 5;

void squareCases(DType dtype, std::int64_t n, double eps) {
  const std::int64_t m = 3, size = n * n;
  const auto a = noise(kStack * size, 1), b = noise(kStack * n * m, 2);
  Matrix positive(a.size());
  for (std::int64_t s = 0; s < kStack; ++s) {
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = i == j ? 0.5 : 0;
        for (std::int64_t p = 0; p < n; ++p)
          sum += a[static_cast<std::size_t>(s * size + i * n + p)] * a[static_cast<std::size_t>(s * size + j * n + p)];
        positive[static_cast<std::size_t>(s * size + i * n + j)] = sum;
      }
    }
  }
  const Array in = stack(dtype, {kStack, n, n}, a), spd = stack(dtype, {kStack, n, n}, positive), right = stack(dtype, {kStack, n, m}, b);
  const Array like = Array::empty(dtype, {kStack, n, n}), column = Array::empty(dtype, {kStack, n, m}),
              values = Array::empty(dtype, {kStack, n});
  const double bound = eps * static_cast<double>(n + 1) * 40;

  const Result l = everywhere(Op::cholesky_, {spd}, {like}, {});
  const Result x = everywhere(Op::solve_, {spd, right}, {column}, {});
  const Result e = everywhere(Op::eigh_, {spd}, {values, like}, {});
  const Result d = everywhere(Op::slogdet_, {in}, {Array::empty(dtype, {kStack}), Array::empty(dtype, {kStack})}, {});
  CHECK(l.fault == 0 && x.fault == 0 && e.fault == 0 && d.fault == 0);
  const auto lw = wide(l.out[0]), xw = wide(x.out[0]), ew = wide(e.out[0]), vw = wide(e.out[1]), pw = wide(spd), bw = wide(right);
  for (std::int64_t s = 0; s < kStack; ++s) {
    const double* p = pw.data() + s * size;
    CHECK_NEAR(residual(lw.data() + s * size, false, lw.data() + s * size, true, p, n, n, n), 0, bound * static_cast<double>(n + 1));
    CHECK_NEAR(residual(p, false, xw.data() + s * n * m, false, bw.data() + s * n * m, n, n, m), 0,
               bound * static_cast<double>(n + 1) * 20);
    CHECK_NEAR(residual(vw.data() + s * size, true, vw.data() + s * size, false, nullptr, n, n, n), 0, bound);
    std::vector<double> scaled(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i)
      scaled[static_cast<std::size_t>(i)] = vw[static_cast<std::size_t>(s * size + i)] * ew[static_cast<std::size_t>(s * n + i % n)];
    CHECK_NEAR(residual(scaled.data(), false, vw.data() + s * size, true, p, n, n, n), 0, bound * static_cast<double>(n + 1));
    for (std::int64_t i = 1; i < n; ++i) CHECK(ew[static_cast<std::size_t>(s * n + i - 1)] <= ew[static_cast<std::size_t>(s * n + i)]);
    if (n == 2) {
      const auto aw = wide(in);
      const double* q = aw.data() + s * 4;
      const double det = q[0] * q[3] - q[1] * q[2];
      CHECK(wide(d.out[0])[static_cast<std::size_t>(s)] == (det > 0 ? 1 : -1));
      CHECK_NEAR(wide(d.out[1])[static_cast<std::size_t>(s)], std::log(std::fabs(det)), bound);
    }
  }
  for (const bool lower : {false, true}) {
    for (const bool transpose : {false, true}) {
      for (const bool unit : {false, true}) {
        const Result t =
            everywhere(Op::triangularSolve_, {spd, right}, {column}, {lower ? 1.0 : 0.0, transpose ? 1.0 : 0.0, unit ? 1.0 : 0.0});
        CHECK(t.fault == 0);
        const auto tw = wide(t.out[0]);
        for (std::int64_t s = 0; s < kStack && n <= 9; ++s) {
          Matrix triangle(static_cast<std::size_t>(size));
          for (std::int64_t i = 0; i < n; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
              const auto at = static_cast<std::size_t>(i * n + j);
              triangle[at] = i == j             ? (unit ? 1 : pw[static_cast<std::size_t>(s * size) + at])
                             : (i > j) == lower ? pw[static_cast<std::size_t>(s * size) + at]
                                                : 0;
            }
          }
          double size1 = 1;
          for (std::int64_t i = 0; i < n * m; ++i) size1 = std::max(size1, std::fabs(tw[static_cast<std::size_t>(s * n * m + i)]));
          CHECK_NEAR(residual(triangle.data(), transpose, tw.data() + s * n * m, false, bw.data() + s * n * m, n, n, m), 0,
                     bound * size1 * static_cast<double>(n + 1));
        }
      }
    }
  }
}

void tallCases(DType dtype, std::int64_t m, std::int64_t n, double eps) {
  const std::int64_t k = std::min(m, n);
  const auto a = noise(kStack * m * n, 4);
  const Array in = stack(dtype, {kStack, m, n}, a);
  const double bound = eps * static_cast<double>(m + n + 2) * 20;
  for (const bool complete : {false, true}) {
    const std::int64_t width = complete ? m : k;
    const Result f = everywhere(Op::qr_, {in}, {Array::empty(dtype, {kStack, m, width}), Array::empty(dtype, {kStack, width, n})},
                                {complete ? 1.0 : 0.0});
    const auto q = wide(f.out[0]), r = wide(f.out[1]), aw = wide(in);
    for (std::int64_t s = 0; s < kStack; ++s) {
      CHECK_NEAR(residual(q.data() + s * m * width, true, q.data() + s * m * width, false, nullptr, width, m, width), 0, bound);
      CHECK_NEAR(residual(q.data() + s * m * width, false, r.data() + s * width * n, false, aw.data() + s * m * n, m, width, n), 0, bound);
      for (std::int64_t i = 0; i < width; ++i) {
        for (std::int64_t j = 0; j < std::min(i, n); ++j) CHECK(r[static_cast<std::size_t>((s * width + i) * n + j)] == 0);
      }
    }
  }
  const Result f = everywhere(
      Op::svd_, {in}, {Array::empty(dtype, {kStack, m, k}), Array::empty(dtype, {kStack, k}), Array::empty(dtype, {kStack, k, n})}, {});
  CHECK(f.fault == 0);
  auto u = wide(f.out[0]);
  const auto s = wide(f.out[1]), vh = wide(f.out[2]), aw = wide(in);
  for (std::int64_t t = 0; t < kStack; ++t) {
    CHECK_NEAR(residual(u.data() + t * m * k, true, u.data() + t * m * k, false, nullptr, k, m, k), 0, bound);
    CHECK_NEAR(residual(vh.data() + t * k * n, false, vh.data() + t * k * n, true, nullptr, k, n, k), 0, bound);
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < k; ++j) u[static_cast<std::size_t>((t * m + i) * k + j)] *= s[static_cast<std::size_t>(t * k + j)];
    }
    CHECK_NEAR(residual(u.data() + t * m * k, false, vh.data() + t * k * n, false, aw.data() + t * m * n, m, k, n), 0, bound);
    for (std::int64_t j = 0; j < k; ++j)
      CHECK(s[static_cast<std::size_t>(t * k + j)] >= 0 &&
            (j == 0 || s[static_cast<std::size_t>(t * k + j - 1)] >= s[static_cast<std::size_t>(t * k + j)]));
  }
}

}  // namespace

TEST(linalg_square) {
  for (const std::int64_t n : {0, 1, 2, 3, 9, 40}) {
    squareCases(DType::float64, n, 2.3e-16);
    squareCases(DType::float32, n, 1.2e-7);
  }
}

TEST(linalg_rectangular) {
  const std::int64_t shapes[][2] = {{0, 3}, {3, 0}, {1, 1}, {5, 1}, {1, 5}, {4, 4}, {9, 4}, {4, 9}, {33, 20}};
  for (const auto& [m, n] : shapes) {
    tallCases(DType::float64, m, n, 2.3e-16);
    tallCases(DType::float32, m, n, 1.2e-7);
  }
}

TEST(linalg_faults) {
  const Array singular = Array::of<double>(DType::float64, {2, 2}, {1, 2, 2, 4}),
              column = Array::of<double>(DType::float64, {2, 1}, {1, 1});
  const Array zero = Array::of<double>(DType::float64, {2, 2}, {1, 0, 3, 0}),
              nan = Array::of<double>(DType::float64, {2, 2}, {1, NAN, NAN, 1});
  const Array like = Array::empty(DType::float64, {2, 2}), x = Array::empty(DType::float64, {2, 1}), w = Array::empty(DType::float64, {2}),
              s = Array::empty(DType::float64, {});
  const auto failed = [&](Op op, const std::vector<Array>& in, const std::vector<Array>& out, const std::vector<double>& attrs, int fault) {
    const Result r = everywhere(op, in, out, attrs);
    bool nan = true;
    for (const Array& a : r.out) {
      for (const double v : wide(a)) nan &= v != v;
    }
    return r.fault == fault && nan;
  };
  CHECK(failed(Op::cholesky_, {Array::of<double>(DType::float64, {2, 2}, {1, 2, 2, 1})}, {like}, {}, 3));
  CHECK(failed(Op::solve_, {singular, column}, {x}, {}, 3));
  CHECK(failed(Op::triangularSolve_, {zero, column}, {x}, {1, 0, 0}, 3));
  CHECK(failed(Op::cholesky_, {nan}, {like}, {}, 1));
  CHECK(failed(Op::eigh_, {nan}, {w, like}, {}, 1));
  CHECK(failed(Op::svd_, {nan}, {like, w, like}, {}, 1));
  const Result d = everywhere(Op::slogdet_, {singular}, {s, s}, {});
  CHECK(d.fault == 0 && wide(d.out[0])[0] == 0 && wide(d.out[1])[0] == -INFINITY);
}
