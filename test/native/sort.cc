// Orders against std::stable_sort: every dtype, with NaN, zeros of both signs and equal numbers, strided and reversed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

std::uint32_t next(std::uint64_t& state) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<std::uint32_t>(state >> 33);
}

template <class T>
std::vector<T> numbers(std::int64_t n, std::uint64_t seed, bool many) {
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& v : x) {
    const std::uint32_t r = next(seed);
    if constexpr (std::is_floating_point_v<T>) {
      const T special[] = {std::numeric_limits<T>::quiet_NaN(),
                           -std::numeric_limits<T>::quiet_NaN(),
                           std::numeric_limits<T>::infinity(),
                           -std::numeric_limits<T>::infinity(),
                           T(0),
                           -T(0),
                           std::numeric_limits<T>::denorm_min()};
      v = r % 11 < 7 ? special[r % 11] : many ? T(r) - T(1e9) : T(r % 5) - 2;
    } else {
      v = many ? static_cast<T>(r * 2654435761u) : static_cast<T>(r % 5);
    }
  }
  return x;
}

template <class T>
bool isNaN(T x) {
  if constexpr (std::is_floating_point_v<T>)
    return x != x;
  else
    return false;
}

template <class T>
std::vector<std::int32_t> order(const T* x, std::int64_t n, bool descending) {
  std::vector<std::int32_t> index(static_cast<std::size_t>(n));
  std::iota(index.begin(), index.end(), 0);
  std::stable_sort(index.begin(), index.end(), [&](std::int32_t i, std::int32_t j) {
    if (isNaN(x[i]) || isNaN(x[j])) return !isNaN(x[i]) && isNaN(x[j]);
    return descending ? x[i] > x[j] : x[i] < x[j];
  });
  return index;
}

template <class T>
void sortCase(DType dtype, std::int64_t rows, std::int64_t n, bool many) {
  const std::vector<T> x = numbers<T>(rows * n, static_cast<std::uint64_t>(rows * 1000 + n), many);
  for (const bool descending : {false, true}) {
    std::vector<std::int32_t> expect;
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto row = order(x.data() + r * n, n, descending);
      expect.insert(expect.end(), row.begin(), row.end());
    }
    atAllLevels([&](const Level& level, int threads) {
      if (n > 5000 && threads == 2) return;
      std::vector<Array> in{Array::of(dtype, {rows, n}, x)}, out{Array::empty(DType::int32, {rows, n})};
      runOp(level, Op::argsort_, in, out, {descending ? 1.0 : 0.0}, threads);
      CHECK(out[0].holds(expect));
      for (const std::int64_t k : {std::int64_t{0}, std::int64_t{1}, n / 7, n / 2, n}) {
        if (k > n) continue;
        std::vector<Array> best{Array::empty(DType::int32, {rows, k})};
        runOp(level, Op::topK_, in, best, {static_cast<double>(k), descending ? 1.0 : 0.0}, threads);
        bool fine = true;
        for (std::int64_t r = 0; r < rows; ++r)
          fine &= std::equal(best[0].as<std::int32_t>() + r * k, best[0].as<std::int32_t>() + (r + 1) * k, expect.data() + r * n);
        CHECK(fine);
      }
    });
  }
}

}  // namespace

TEST(sort_orders_and_top_k) {
  for (const std::int64_t n : {0, 1, 2, 31, 47, 48, 49, 300}) {
    for (const bool many : {false, true}) {
      sortCase<float>(DType::float32, 3, n, many);
      sortCase<double>(DType::float64, 3, n, many);
      sortCase<std::int32_t>(DType::int32, 3, n, many);
      sortCase<std::uint8_t>(DType::uint8, 3, n, many);
    }
  }
  sortCase<float>(DType::float32, 0, 5, true);
}

TEST(sort_long_rows_by_all_threads) {
  sortCase<float>(DType::float32, 1, 200001, true);
  sortCase<float>(DType::float32, 2, 70000, false);
  sortCase<double>(DType::float64, 1, 131073, true);
}

TEST(sort_reads_strides) {
  const std::vector<float> x = numbers<float>(60 * 4, 5, true);
  Array a = Array::of(DType::float32, {4, 60}, x);
  // Columns of [60, 4] as rows.
  a.view.strides[0] = 1;
  a.view.strides[1] = 4;
  std::vector<std::int32_t> expect;
  for (int c = 0; c < 4; ++c) {
    std::vector<float> column;
    for (int r = 0; r < 60; ++r) column.push_back(x[static_cast<std::size_t>(r * 4 + c)]);
    const auto o = order(column.data(), 60, false);
    expect.insert(expect.end(), o.begin(), o.end());
  }
  std::vector<Array> in{a}, out{Array::empty(DType::int32, {4, 60})};
  runOp(levels()[0], Op::argsort_, in, out, {0}, 2);
  CHECK(out[0].holds(expect));
}

TEST(sort_bfloat16_as_the_float_it_is) {
  std::vector<std::uint16_t> h(1000);
  std::vector<float> f(1000);
  std::uint64_t seed = 3;
  for (std::size_t i = 0; i < h.size(); ++i) {
    h[i] = static_cast<std::uint16_t>(next(seed));
    const std::uint32_t bits = std::uint32_t{h[i]} << 16;
    std::memcpy(&f[i], &bits, 4);
  }
  for (const bool descending : {false, true}) {
    const auto expect = order(f.data(), 1000, descending);
    atAllLevels([&](const Level& level, int threads) {
      std::vector<Array> in{Array::of(DType::bfloat16, {1000}, h)}, out{Array::empty(DType::int32, {1000})};
      runOp(level, Op::argsort_, in, out, {descending ? 1.0 : 0.0}, threads);
      CHECK(out[0].holds(expect));
    });
  }
}

TEST(searchsorted_is_lower_and_upper_bound) {
  std::vector<double> sorted{-INFINITY, -2, -0.0, 0.0, 0.0, 1, 1, 7, INFINITY, NAN, NAN},
      values{-INFINITY, -3, -2, -0.0, 0.0, 0.5, 1, 8, INFINITY, NAN};
  const std::vector<std::int32_t> left{0, 1, 1, 2, 2, 5, 5, 8, 8, 9}, right{1, 1, 2, 5, 5, 5, 7, 8, 9, 11};
  atAllLevels([&](const Level& level, int threads) {
    std::vector<Array> in{Array::of(DType::float64, {11}, sorted), Array::of(DType::float64, {10}, values)},
        out{Array::empty(DType::int32, {10})};
    runOp(level, Op::searchsorted_, in, out, {0}, threads);
    CHECK(out[0].holds(left));
    runOp(level, Op::searchsorted_, in, out, {1}, threads);
    CHECK(out[0].holds(right));
  });
}
