// The operands of batch norm.
#pragma once

#include "attrs/batchNorm.gen.h"
#include "attrs/batchNormBackward.gen.h"
#include "cpu/layernorm.h"

namespace steepest::STEEPEST_LEVEL {

inline void checkBatchInput(const View& x) { require(isFloat(x.dtype) && x.rank >= 2 && x.contiguous(), "batchNorm: wrong input"); }
inline void checkBatchChannels(const View& w, const View& x) {
  require(w.rank == 1 && w.shape[0] == x.shape[1] && w.contiguous() &&
              (w.dtype == x.dtype || (x.dtype == DType::bfloat16 && w.dtype == DType::float32)),
          "batchNorm: wrong weight or bias");
}
inline void checkBatchStatistic(const View& s, const View& x) {
  require(s.rank == 1 && s.shape[0] == x.shape[1] && s.contiguous() && s.dtype == statistics(x.dtype), "batchNorm: wrong statistics");
}

inline void checkBatchNorm(const Spec& spec) {
  require(spec.in.size() == 3 && spec.out.size() == 3, "batchNorm: wrong number of operands");
  const View& x = spec.in[0];
  checkBatchInput(x);
  checkBatchChannels(spec.in[1], x);
  checkBatchChannels(spec.in[2], x);
  require(spec.in[1].dtype == spec.in[2].dtype, "batchNorm: weight and bias differ in dtype");
  require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "batchNorm: wrong output");
  checkBatchStatistic(spec.out[1], x);
  checkBatchStatistic(spec.out[2], x);
}

inline void checkBatchNormBackward(const Spec& spec) {
  require(spec.in.size() == 5 && spec.out.size() == 3, "batchNorm: wrong number of operands");
  const View& x = spec.in[0];
  checkBatchInput(x);
  require(sameShape(spec.in[1], x) && spec.in[1].dtype == x.dtype && spec.in[1].contiguous(), "batchNorm: wrong gradient");
  checkBatchStatistic(spec.in[2], x);
  checkBatchStatistic(spec.in[3], x);
  checkBatchChannels(spec.in[4], x);
  require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "batchNorm: wrong output");
  for (int i = 1; i < 3; ++i) {
    checkBatchChannels(spec.out[i], x);
    require(spec.out[i].dtype == spec.in[4].dtype, "batchNorm: wrong gradient of a weight");
  }
}

}  // namespace steepest::STEEPEST_LEVEL
