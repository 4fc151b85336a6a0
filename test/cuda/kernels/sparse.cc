// Sparse products on a GPU: rows out of order, rows without entries, entries that lie outside.
#include "both.h"

using namespace steepest;

TEST(sparse_products_as_the_cpu) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
    const double bound = dtype == DType::bfloat16 ? 1e-2 : 1e-6;
    for (const auto& [entries, size, width, n] :
         std::vector<std::array<std::int64_t, 4>>{{0, 3, 4, 5}, {1, 1, 1, 1}, {6, 300, 4, 5}, {700, 13, 9, 130}, {1300, 700, 3, 33}}) {
      std::mt19937 random(static_cast<unsigned>(entries));
      std::vector<std::int32_t> rows, columns;
      for (std::int64_t e = 0; e < entries; ++e) {
        rows.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(size + 2)) - 1);
        columns.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(width + 1)));
      }
      const Array r = Array::of(DType::int32, {entries}, rows), c = Array::of(DType::int32, {entries}, columns);
      const Array values = normalArray(dtype, {entries}, 1), dense = normalArray(dtype, {width, n}, 2),
                  a = normalArray(dtype, {size, n}, 3);
      CHECK(apart(runBoth(Op::spmm_, {r, c, values, dense}, {Array::empty(dtype, {size, n})}, {static_cast<double>(size)})) < bound);
      CHECK(apart(runBoth(Op::sddmm_, {r, c, a, dense}, {Array::empty(dtype, {entries})}, {})) < bound);
    }
  }
}
