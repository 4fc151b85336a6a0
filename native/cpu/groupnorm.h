// The operands of group norm.
#pragma once

#include "attrs/groupNorm.gen.h"
#include "attrs/groupNormBackward.gen.h"
#include "cpu/layernorm.h"

namespace steepest::STEEPEST_LEVEL {

struct GroupShape {
  std::int64_t examples = 0, channels = 0, area = 1, groups = 1;
  std::int64_t perGroup() const { return channels / groups; }
};

inline GroupShape groupShapeOf(const View& x, std::int64_t groups) {
  GroupShape s{x.shape[0], x.shape[1], 1, groups};
  for (int i = 2; i < x.rank; ++i) s.area *= x.shape[i];
  return s;
}

inline void checkGroupInput(const View& x, std::int64_t groups) {
  require(isFloat(x.dtype) && x.rank >= 2 && x.contiguous(), "groupNorm: wrong input");
  require(groups >= 1 && x.shape[1] % groups == 0, "groupNorm: groups must divide the channels");
}

inline void checkGroupChannels(const View& w, const View& x) {
  require(w.rank == 1 && w.shape[0] == x.shape[1] && w.contiguous() &&
              (w.dtype == x.dtype || (x.dtype == DType::bfloat16 && w.dtype == DType::float32)),
          "groupNorm: wrong weight or bias");
}

inline void checkGroupStatistics(const View& s, const View& x, std::int64_t groups) {
  require(s.rank == 2 && s.shape[0] == x.shape[0] && s.shape[1] == groups && s.contiguous() && s.dtype == statistics(x.dtype),
          "groupNorm: wrong statistics");
}

inline void checkGroupNorm(const Spec& spec, const GroupNormAttrs& attrs) {
  require(spec.in.size() == 1u + attrs.weight + attrs.bias && spec.out.size() == 3, "groupNorm: wrong number of operands");
  const View& x = spec.in[0];
  checkGroupInput(x, attrs.groups);
  for (std::size_t i = 1; i < spec.in.size(); ++i) {
    checkGroupChannels(spec.in[i], x);
    require(spec.in[i].dtype == spec.in[1].dtype, "groupNorm: weight and bias differ in dtype");
  }
  require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "groupNorm: wrong output");
  checkGroupStatistics(spec.out[1], x, attrs.groups);
  checkGroupStatistics(spec.out[2], x, attrs.groups);
}

inline void checkGroupNormBackward(const Spec& spec, const GroupNormBackwardAttrs& attrs) {
  const std::size_t outputs = std::size_t(attrs.dx) + attrs.dweight + attrs.dbias;
  require(spec.in.size() == 4u + attrs.weight && spec.out.size() == outputs, "groupNorm: wrong number of operands");
  const View& x = spec.in[0];
  checkGroupInput(x, attrs.groups);
  require(sameShape(spec.in[1], x) && spec.in[1].dtype == x.dtype && spec.in[1].contiguous(), "groupNorm: wrong gradient");
  checkGroupStatistics(spec.in[2], x, attrs.groups);
  checkGroupStatistics(spec.in[3], x, attrs.groups);
  if (attrs.weight) checkGroupChannels(spec.in[4], x);
  std::size_t at = 0;
  if (attrs.dx) require(sameShape(spec.out[at], x) && spec.out[at].dtype == x.dtype, "groupNorm: wrong output"), ++at;
  for (; at < outputs; ++at) {
    checkGroupChannels(spec.out[at], x);
    require(spec.out[at].dtype == (attrs.weight ? spec.in[4].dtype : spec.out.back().dtype), "groupNorm: wrong gradient of a weight");
  }
}

inline NormIo groupForward(const Call& call, const GroupNormAttrs& attrs) {
  NormIo io;
  io.type = call.in[0].dtype;
  io.weightType = call.in.size() > 1 ? call.in[1].dtype : io.type;
  io.x = call.in[0].data;
  if (attrs.weight) io.weight = call.in[1].data;
  if (attrs.bias) io.bias = call.in[1 + attrs.weight].data;
  io.y = call.out[0].data;
  io.mean = call.out[1].data;
  io.rstd = call.out[2].data;
  return io;
}

inline NormIo groupBackward(const Call& call, const GroupNormBackwardAttrs& attrs) {
  NormIo io;
  io.type = io.weightType = call.in[0].dtype;
  io.x = call.in[0].data;
  io.dy = call.in[1].data;
  io.rstd = call.in[2].data;
  io.mean = call.in[3].data;
  if (attrs.weight) io.weight = call.in[4].data, io.weightType = call.in[4].dtype;
  std::size_t at = 0;
  if (attrs.dx) io.dx = call.out[at++].data;
  if (attrs.dweight) io.weightType = call.out[at].dtype, io.dweight = call.out[at++].data;
  if (attrs.dbias) io.weightType = call.out[at].dtype, io.dbias = call.out[at++].data;
  return io;
}

}  // namespace steepest::STEEPEST_LEVEL
