// Sampled products on a GPU: norms of rows, and the rows that the CPU chooses.
#include "both.h"

#include <cmath>

using namespace steepest;

namespace {

constexpr double kWinners = 0, kCrs = 1, kTopK = 2;

}  // namespace

TEST(norms_of_rows_as_the_cpu) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
    for (const std::int64_t n : {0, 1, 7, 128, 1030, 1200}) {
      const std::vector<Array> in{normalArray(dtype, {3, 5, n}, static_cast<unsigned>(n + 1))};
      const std::vector<Array> out{Array::empty(dtype == DType::float64 ? DType::float64 : DType::float32, {3, 5})};
      for (const double squared : {0.0, 1.0}) CHECK(apart(runBoth(Op::rowNorms_, in, out, {squared})) < 1e-6);
    }
  }
  // Every second row, its elements backward; and columns.
  Array x = normalArray(DType::float32, {10, 64}, 9), backward = x, columns = x;
  backward.view.shape[0] = 5, backward.view.strides[0] = 128, backward.view.shape[1] = 20, backward.view.strides[1] = 3;
  columns.view.shape[0] = 64, columns.view.strides[0] = 1, columns.view.shape[1] = 10, columns.view.strides[1] = 64;
  CHECK(apart(runBoth(Op::rowNorms_, {backward}, {Array::empty(DType::float32, {5})}, {0})) < 1e-6);
  CHECK(apart(runBoth(Op::rowNorms_, {columns}, {Array::empty(DType::float32, {64})}, {0})) < 1e-6);
}

TEST(rows_that_the_cpu_chooses) {
  for (const DType dtype : {DType::float32, DType::float64}) {
    for (const std::int64_t n : dtype == DType::float64 ? std::vector<std::int64_t>{9} : std::vector<std::int64_t>{1, 2, 8, 9, 700, 1501}) {
      for (const double spread : {0.0, 0.7, 3.0}) {
        Array norms = normalArray(dtype, {2, 3, n}, static_cast<unsigned>(n), spread), gains = normalArray(dtype, {2, 3, n}, 77u, 1, 0.3);
        for (std::int64_t i = 0; i < norms.view.size(); ++i) {
          setNumber(norms, i, std::exp(numberAt(norms, i)));
          if (i % 7 == 3) setNumber(norms, i, 0);
          // The last set has no score at all.
          if (i >= 5 * n && spread > 1) setNumber(norms, i, 0);
        }
        const Array keys = Array::of<std::int32_t>(DType::int32, {2, 2}, {5, -7, 123456789, 1});
        const std::int64_t k = spread > 0 ? (n + 2) / 3 : n;
        const std::vector<Array> out{Array::empty(DType::int32, {2, 3, k}), Array::empty(dtype, {2, 3, k}), Array::empty(dtype, {2, 3, n})};
        for (const double method : {kWinners, kCrs, kTopK}) {
          // Systematic draws without gains, and draws with replacement with them; for some sizes the other way round.
          for (const double draw : {0.0, 1.0}) {
            const bool with = n % 2 ? draw != 0 : draw == 0;
            std::vector<Array> in{norms, keys};
            if (with) in.push_back(gains);
            const Both r = runBoth(Op::sampleRows_, in, out, {static_cast<double>(k), method, draw, 4, static_cast<double>(with), 0.25});
            CHECK(r.cpu[0].bytes == r.cuda[0].bytes);
            CHECK(apart(r) < 1e-6);
          }
        }
      }
    }
  }
}
