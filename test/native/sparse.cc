// Sparse products against loops: unsorted and repeated entries, entries that count for nothing, empty rows.
#include <cmath>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

struct Case {
  std::int64_t rows, columns, n;
  std::vector<std::int32_t> row, column;
};

Case make(std::int64_t rows, std::int64_t columns, std::int64_t n, std::int64_t entries, bool sorted) {
  Case c{rows, columns, n, {}, {}};
  std::uint64_t seed = 17;
  for (std::int64_t e = 0; e < entries; ++e) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    const auto r = static_cast<std::int64_t>(seed >> 40);
    c.row.push_back(static_cast<std::int32_t>(sorted ? e * rows / entries : r % (rows + 2) - 1));
    c.column.push_back(static_cast<std::int32_t>(sorted ? r % columns : r / 64 % (columns + 2) - 1));
  }
  return c;
}

template <class T>
void spmmCase(DType dtype, const Case& c, double bound) {
  const auto entries = static_cast<std::int64_t>(c.row.size());
  std::vector<T> values, dense, other;
  for (std::int64_t e = 0; e < entries; ++e) values.push_back(static_cast<T>(std::sin(static_cast<double>(e) + 1)));
  for (std::int64_t i = 0; i < c.columns * c.n; ++i) dense.push_back(static_cast<T>(std::cos(static_cast<double>(i))));
  for (std::int64_t i = 0; i < c.rows * c.n; ++i) other.push_back(static_cast<T>(std::cos(static_cast<double>(i) * 1.3)));
  std::vector<double> expect(static_cast<std::size_t>(c.rows * c.n)), dots(static_cast<std::size_t>(entries));
  for (std::size_t e = 0; e < c.row.size(); ++e) {
    if (c.row[e] < 0 || c.row[e] >= c.rows || c.column[e] < 0 || c.column[e] >= c.columns) continue;
    for (std::int64_t j = 0; j < c.n; ++j) {
      const auto at = static_cast<std::size_t>(c.row[e] * c.n + j), from = static_cast<std::size_t>(c.column[e] * c.n + j);
      expect[at] += static_cast<double>(values[e]) * static_cast<double>(dense[from]);
      dots[e] += static_cast<double>(other[at]) * static_cast<double>(dense[from]);
    }
  }
  std::vector<std::byte> first, firstDots;
  atAllLevels([&](const Level& level, int threads) {
    std::vector<Array> in{Array::of(DType::int32, {entries}, c.row), Array::of(DType::int32, {entries}, c.column),
                          Array::of(dtype, {entries}, values), Array::of(dtype, {c.columns, c.n}, dense)};
    std::vector<Array> out{Array::empty(dtype, {c.rows, c.n})};
    runOp(level, Op::spmm_, in, out, {static_cast<double>(c.rows)}, threads);
    if (first.empty()) first = out[0].bytes;
    CHECK(out[0].bytes == first);
    double worst = 0;
    for (std::size_t i = 0; i < expect.size(); ++i) worst = std::max(worst, std::fabs(static_cast<double>(out[0].as<T>()[i]) - expect[i]));
    CHECK_NEAR(worst, 0, bound);
    std::vector<Array> dotIn{in[0], in[1], Array::of(dtype, {c.rows, c.n}, other), in[3]}, dotOut{Array::empty(dtype, {entries})};
    runOp(level, Op::sddmm_, dotIn, dotOut, {}, threads);
    if (firstDots.empty()) firstDots = dotOut[0].bytes;
    CHECK(dotOut[0].bytes == firstDots);
    worst = 0;
    for (std::size_t i = 0; i < dots.size(); ++i) worst = std::max(worst, std::fabs(static_cast<double>(dotOut[0].as<T>()[i]) - dots[i]));
    CHECK_NEAR(worst, 0, bound);
  });
}

}  // namespace

TEST(sparse_products) {
  for (const std::int64_t n : {0, 1, 7, 64, 100}) {
    for (const bool sorted : {false, true}) {
      const Case c = make(37, 23, n, 300, sorted);
      spmmCase<float>(DType::float32, c, 3e-5);
      spmmCase<double>(DType::float64, c, 1e-13);
    }
  }
  spmmCase<float>(DType::float32, make(5, 4, 3, 0, true), 0);
  spmmCase<float>(DType::float32, Case{0, 4, 3, {}, {}}, 0);
  spmmCase<double>(DType::float64, make(3000, 1000, 33, 20000, false), 1e-12);
}
