// Gradients of convolutions that are summed over many places, in pieces or by a block for each output, against the CPU.
#include "both.h"

namespace {

using steepest::DType;
using steepest::Op;

// x [n, c, h, w] and w [o, c/groups, 3, 3], padded by one, with a stride of two along the rows.
void compare(DType dtype, std::int64_t n, std::int64_t c, std::int64_t o, std::int64_t groups, std::int64_t h, std::int64_t w) {
  const std::int64_t rows = (h - 1) / 2 + 1;
  std::vector<double> geometry{2, 2, 1, 4, 1, 1, 1, 1, 2, 1, 1, double(groups)};
  const auto with = [&](std::initializer_list<double> more) {
    std::vector<double> all = geometry;
    all.insert(all.end(), more);
    return all;
  };
  const Array x = normalArray(dtype, {n, c, h, w}, 1), weight = normalArray(dtype, {o, c / groups, 3, 3}, 2),
              dy = normalArray(dtype, {n, o, rows, w}, 3), bias = normalArray(dtype, {o}, 4);
  const double bound = dtype == DType::bfloat16 ? 2e-2 : dtype == DType::float64 ? 1e-12 : 4e-6;
  CHECK(apart(runBoth(Op::conv_, {x, weight, bias}, {dy}, with({1}))) <= bound);
  CHECK(apart(runBoth(Op::convInputBackward_, {dy, weight}, {x}, with({2, double(h), double(w)}))) <= bound);
  CHECK(apart(runBoth(Op::convWeightBackward_, {x, dy}, {weight, bias}, with({2, 3, 3, 1}))) <= bound);
}

}  // namespace

TEST(cuda_conv_pieces) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) compare(dtype, 3, 5, 10, 1, 37, 41);
}
TEST(cuda_conv_few_channels) {
  for (const DType dtype : {DType::float32, DType::bfloat16}) compare(dtype, 2, 6, 6, 6, 45, 31);
  compare(DType::float32, 1, 130, 2, 1, 5, 4);
}
