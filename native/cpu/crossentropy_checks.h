// The operands of the cross-entropy of logits.
#pragma once

#include "attrs/crossEntropy.gen.h"
#include "attrs/crossEntropyBackward.gen.h"
#include "cpu/crossentropy.h"

namespace steepest::STEEPEST_LEVEL {

// logits [..., V], labels [...], and values of the rows.
inline void checkLossLogits(const View& logits, const View& labels) {
  require(isFloat(logits.dtype) && logits.rank >= 1 && logits.contiguous(), "crossEntropy: wrong logits");
  require(leads(labels, logits, 1) && labels.dtype == DType::int32 && labels.contiguous(), "crossEntropy: wrong labels");
}
inline void checkLossValues(const View& values, const View& logits) {
  require(leads(values, logits, 1) && values.dtype == statistics(logits.dtype) && values.contiguous(),
          "crossEntropy: wrong values of rows");
}

inline CrossEntropyOptions checkCrossEntropy(const Spec& spec, const CrossEntropyAttrs& attrs) {
  require(spec.in.size() == 2 && spec.out.size() == 2, "crossEntropy: wrong number of operands");
  checkLossLogits(spec.in[0], spec.in[1]);
  checkLossValues(spec.out[0], spec.in[0]);
  checkLossValues(spec.out[1], spec.in[0]);
  return CrossEntropyOptions::of(attrs);
}

inline CrossEntropyOptions checkCrossEntropyBackward(const Spec& spec, const CrossEntropyBackwardAttrs& attrs) {
  require(spec.in.size() == 4 && spec.out.size() == 1, "crossEntropy: wrong number of operands");
  checkLossLogits(spec.in[0], spec.in[1]);
  checkLossValues(spec.in[2], spec.in[0]);
  checkLossValues(spec.in[3], spec.in[0]);
  require(sameShape(spec.out[0], spec.in[0]) && spec.out[0].dtype == spec.in[0].dtype, "crossEntropy: wrong output");
  return CrossEntropyOptions::of(attrs);
}

}  // namespace steepest::STEEPEST_LEVEL
