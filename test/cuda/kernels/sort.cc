// Orders on a GPU are the CPU's, number for number: all dtypes, lengths around what one block sorts, ties, NaN, and rows with strides.
#include "both.h"

#include <cmath>
#include <limits>

using namespace steepest;

namespace {

// Many equal numbers, both zeros, infinities and NaN.
Array numbers(DType dtype, const std::vector<std::int64_t>& shape, unsigned seed) {
  Array a = Array::empty(dtype, shape);
  std::mt19937 random(seed);
  for (std::int64_t i = 0; i < a.view.size(); ++i) {
    const auto pick = random() % 16;
    double x = static_cast<double>(random() % 200) - 100;
    if (isFloat(dtype)) {
      if (pick == 0) x = std::numeric_limits<double>::quiet_NaN();
      if (pick == 1) x = -0.0;
      if (pick == 2) x = 0;
      if (pick == 3) x = (random() & 1 ? 1 : -1) * std::numeric_limits<double>::infinity();
      if (pick > 9) x = x * 1.37 + static_cast<double>(random() % 1000) / 1e3;
    } else if (dtype == DType::uint8) {
      x += 100;
    } else if (pick > 9) {
      x *= 1e7;
    }
    setNumber(a, i, x);
  }
  return a;
}

const std::vector<DType> kAll = {DType::float32, DType::bfloat16, DType::float64, DType::int32, DType::uint8};

}  // namespace

TEST(argsort_as_the_cpu) {
  for (const DType dtype : kAll) {
    for (const std::int64_t n : {0, 1, 2, 31, 100, 2048, 2049, 4700}) {
      const std::int64_t rows = n < 1000 ? 3 : 2;
      const std::vector<Array> in{numbers(dtype, {rows, n}, static_cast<unsigned>(n + 1))}, out{Array::empty(DType::int32, {rows, n})};
      for (const double descending : {0.0, 1.0}) CHECK(runBoth(Op::argsort_, in, out, {descending}).equal());
    }
  }
}

TEST(top_k_as_the_cpu) {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const auto& [n, k] :
         std::vector<std::pair<std::int64_t, std::int64_t>>{{17, 0}, {17, 3}, {17, 17}, {2000, 700}, {5000, 1}, {9001, 500}, {4500, 600}}) {
      const std::vector<Array> in{numbers(dtype, {2, n}, static_cast<unsigned>(n))}, out{Array::empty(DType::int32, {2, k})};
      for (const double largest : {0.0, 1.0}) CHECK(runBoth(Op::topK_, in, out, {static_cast<double>(k), largest}).equal());
    }
  }
}

TEST(orders_of_rows_with_strides) {
  // Columns of a matrix, from the last row up.
  Array x = numbers(DType::float32, {9, 5}, 3), turned = x;
  turned.view.shape[0] = 5, turned.view.shape[1] = 8;
  turned.view.strides[0] = 1, turned.view.strides[1] = 5;
  const std::vector<Array> out{Array::empty(DType::int32, {5, 8})};
  CHECK(runBoth(Op::argsort_, {turned}, out, {1}).equal());
}

TEST(places_among_sorted_numbers) {
  for (const DType dtype : kAll) {
    Array sorted = Array::empty(dtype, {2, 100});
    for (std::int64_t i = 0; i < 200; ++i) setNumber(sorted, i, std::floor(static_cast<double>(i % 100) / 3));
    const Array values = numbers(dtype, {2, 37}, 5);
    for (const double right : {0.0, 1.0})
      CHECK(runBoth(Op::searchsorted_, {sorted, values}, {Array::empty(DType::int32, {2, 37})}, {right}).equal());
  }
}
