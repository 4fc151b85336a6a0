// The operands of a linear layer with its cross-entropy.
#pragma once

#include "attrs/linearCrossEntropy.gen.h"
#include "attrs/linearCrossEntropyBackward.gen.h"
#include "attrs/linearCrossEntropyWithGradients.gen.h"
#include "cpu/crossentropy.h"

namespace steepest::STEEPEST_LEVEL::linear_loss {

struct Dims {
  std::int64_t rows, width, columns;
  DType type;
};

inline Dims checkOperands(const View& x, const View& weight, const View& labels) {
  require(isFloat(x.dtype) && x.rank >= 1 && x.contiguous(), "linearCrossEntropy: wrong input");
  require(weight.rank == 2 && weight.shape[1] == x.dim(-1) && weight.dtype == x.dtype && weight.contiguous(),
          "linearCrossEntropy: wrong weight");
  require(leads(labels, x, 1) && labels.dtype == DType::int32 && labels.contiguous(), "linearCrossEntropy: wrong labels");
  return {labels.size(), x.dim(-1), weight.shape[0], x.dtype};
}
inline void checkBias(const View& bias, const Dims& d) {
  require(bias.rank == 1 && bias.shape[0] == d.columns && bias.dtype == d.type && bias.contiguous(), "linearCrossEntropy: wrong bias");
}
inline void checkValues(const View& values, const View& labels, const Dims& d) {
  require(sameShape(values, labels) && values.dtype == statistics(d.type) && values.contiguous(),
          "linearCrossEntropy: wrong values of rows");
}
// dx?, dweight?, dbias?, from output `at` on.
template <class Attrs>
void checkGradients(const Spec& spec, std::size_t at, const Attrs& a, const Dims& d) {
  require(spec.out.size() == at + a.dx + a.dweight + a.dbias, "linearCrossEntropy: wrong number of operands");
  if (a.dx) require(sameShape(spec.out[at], spec.in[0]) && spec.out[at].dtype == d.type, "linearCrossEntropy: wrong dx"), ++at;
  if (a.dweight) require(sameShape(spec.out[at], spec.in[1]) && spec.out[at].dtype == d.type, "linearCrossEntropy: wrong dweight"), ++at;
  if (a.dbias) checkBias(spec.out[at], d);
}

// Inputs x, weight, labels, bias?; outputs losses, log-sum-exps.
inline Dims checkLosses(const Spec& spec, const LinearCrossEntropyAttrs& a) {
  require(spec.in.size() == 3u + a.bias && spec.out.size() == 2, "linearCrossEntropy: wrong number of operands");
  const Dims d = checkOperands(spec.in[0], spec.in[1], spec.in[2]);
  if (a.bias) checkBias(spec.in[3], d);
  for (const View& v : spec.out) checkValues(v, spec.in[2], d);
  return d;
}
// Inputs x, weight, labels, log-sum-exps, gradient of the losses, bias?.
inline Dims checkBackward(const Spec& spec, const LinearCrossEntropyBackwardAttrs& a) {
  require(spec.in.size() == 5u + a.bias, "linearCrossEntropy: wrong number of operands");
  const Dims d = checkOperands(spec.in[0], spec.in[1], spec.in[2]);
  checkValues(spec.in[3], spec.in[2], d);
  checkValues(spec.in[4], spec.in[2], d);
  if (a.bias) checkBias(spec.in[5], d);
  checkGradients(spec, 0, a, d);
  return d;
}
// Inputs x, weight, labels, gradient of the losses, bias?; outputs losses, log-sum-exps, dx?, dweight?, dbias?.
inline Dims checkWithGradients(const Spec& spec, const LinearCrossEntropyWithGradientsAttrs& a) {
  require(spec.in.size() == 4u + a.bias, "linearCrossEntropy: wrong number of operands");
  const Dims d = checkOperands(spec.in[0], spec.in[1], spec.in[2]);
  checkValues(spec.in[3], spec.in[2], d);
  if (a.bias) checkBias(spec.in[4], d);
  checkGradients(spec, 2, a, d);
  checkValues(spec.out[0], spec.in[2], d);
  checkValues(spec.out[1], spec.in[2], d);
  return d;
}

}  // namespace steepest::STEEPEST_LEVEL::linear_loss
