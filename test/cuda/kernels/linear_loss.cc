// The cross-entropy of a linear layer over several chunks of rows and columns, alone and with its gradients, against the CPU.
#include "both.h"

namespace {

using steepest::DType;
using steepest::Op;

constexpr std::int64_t kRows = 70, kWidth = 19, kClasses = 101;

struct Operands {
  Array x, weight, labels, bias, given;
};
Operands operandsOf(DType dtype) {
  const DType s = dtype == DType::float64 ? DType::float64 : DType::float32;
  Operands o{normalArray(dtype, {kRows, kWidth}, 1), normalArray(dtype, {kClasses, kWidth}, 2), Array::empty(DType::int32, {kRows}),
             normalArray(dtype, {kClasses}, 3), normalArray(s, {kRows}, 4)};
  for (std::int64_t i = 0; i < kRows; ++i) setNumber(o.labels, i, i % 9 == 4 ? -100 : static_cast<double>(i * 37 % kClasses));
  return o;
}

const std::vector<double> kLoss{-100, 0.1, 2, 0.01};

std::vector<double> with(std::initializer_list<double> more) {
  std::vector<double> all = kLoss;
  all.insert(all.end(), more);
  return all;
}

}  // namespace

TEST(cuda_linear_loss_in_chunks) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
    const Operands o = operandsOf(dtype);
    const Array rows = Array::empty(o.given.view.dtype, {kRows});
    const Array dx = Array::empty(dtype, {kRows, kWidth}), dw = Array::empty(dtype, {kClasses, kWidth}),
                db = Array::empty(dtype, {kClasses});
    const double bound = dtype == DType::bfloat16 ? 2e-2 : dtype == DType::float64 ? 1e-12 : 4e-6;
    const Both losses = runBoth(Op::linearCrossEntropy_, {o.x, o.weight, o.labels, o.bias}, {rows, rows}, with({1}));
    CHECK(apart(losses) <= bound);
    const std::vector<Array> back{o.x, o.weight, o.labels, losses.cpu[1], o.given, o.bias};
    CHECK(apart(runBoth(Op::linearCrossEntropyBackward_, back, {dx, dw, db}, with({1, 1, 1, 1}))) <= bound);
    CHECK(apart(runBoth(Op::linearCrossEntropyBackward_, back, {dw}, with({1, 0, 1, 0}))) <= bound);
    const std::vector<Array> whole{o.x, o.weight, o.labels, o.given, o.bias};
    CHECK(apart(runBoth(Op::linearCrossEntropyWithGradients_, whole, {rows, rows, dx, dw, db}, with({1, 1, 1, 1}))) <= bound);
    CHECK(apart(runBoth(Op::linearCrossEntropyWithGradients_, {o.x, o.weight, o.labels, o.given}, {rows, rows, dx}, with({0, 1, 0, 0}))) <=
          bound);
  }
}

TEST(cuda_linear_loss_of_a_wrong_label) {
  Operands o = operandsOf(DType::float32);
  setNumber(o.labels, 66, static_cast<double>(kClasses));
  const Array rows = Array::empty(DType::float32, {kRows});
  const Both losses = runBoth(Op::linearCrossEntropy_, {o.x, o.weight, o.labels}, {rows, rows}, with({0}));
  CHECK(losses.cudaFault == 2 && apart(losses) <= 4e-6);
}

TEST(cuda_linear_loss_of_nothing) {
  const Array x = Array::empty(DType::float32, {0, 3}), w = normalArray(DType::float32, {5, 3}, 1),
              labels = Array::empty(DType::int32, {0}), none = Array::empty(DType::float32, {0});
  const Both r = runBoth(Op::linearCrossEntropyWithGradients_, {x, w, labels, none}, {none, none, x, w}, with({0, 1, 1, 0}));
  CHECK(r.equal());
}
