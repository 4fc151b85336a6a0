// The operands of convolutions, and the windows that follow from them.
#pragma once

#include "attrs/conv.gen.h"
#include "attrs/convInputBackward.gen.h"
#include "attrs/convWeightBackward.gen.h"
#include "cpu/conv_shape.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

inline void holdWindows(bool holds, const char* who, const char* rule) {
  if (!holds) throw Error("PROGRAM", std::string(who) + ": " + rule);
}

inline Windows windowsOf(const char* who, const View& x, const View& y, const std::int64_t (&size)[2],
                         const std::vector<std::int64_t>& stride, const std::vector<std::int64_t>& padding,
                         const std::vector<std::int64_t>& dilation) {
  holdWindows(stride.size() == 2 && padding.size() == 4 && dilation.size() == 2, who, "attributes for two axes are needed");
  holdWindows(x.rank == 4 && y.rank == 4, who, "operands must have the axes N, C, H, W");
  Windows w;
  for (int i = 0; i < 2; ++i) {
    w.in[i] = x.shape[2 + i];
    w.out[i] = y.shape[2 + i];
    w.size[i] = size[i];
    w.stride[i] = stride[i];
    w.dilation[i] = dilation[i];
    w.before[i] = padding[2 * i];
    w.after[i] = padding[2 * i + 1];
    const auto within = [](std::int64_t v, std::int64_t least) { return v >= least && v <= kLongest; };
    holdWindows(within(w.in[i], 0) && within(w.out[i], 0) && within(size[i], 1) && within(stride[i], 1) && within(dilation[i], 1) &&
                    within(w.before[i], 0) && within(w.after[i], 0) && within((size[i] - 1) * dilation[i] + 1, 1),
                who, "an axis, stride, dilation or padding is out of its range");
  }
  return w;
}

inline ConvShape convShapeOf(const char* who, const View& x, const View& w, const View& y, std::int64_t groups,
                             const std::vector<std::int64_t>& stride, const std::vector<std::int64_t>& padding,
                             const std::vector<std::int64_t>& dilation) {
  holdWindows(x.rank == 4 && w.rank == 4 && y.rank == 4, who, "operands must have four axes");
  holdWindows(isFloat(x.dtype) && w.dtype == x.dtype && y.dtype == x.dtype, who, "operands must be of one float dtype");
  ConvShape s;
  s.n = x.shape[0];
  s.c = x.shape[1];
  s.o = w.shape[0];
  s.groups = groups;
  holdWindows(groups >= 1 && s.c % groups == 0 && s.o % groups == 0 && w.shape[1] == s.c / groups, who, "groups must divide both channels");
  holdWindows(y.shape[0] == s.n && y.shape[1] == s.o, who, "batch or channels differ");
  const std::int64_t size[2] = {w.shape[2], w.shape[3]};
  s.windows = windowsOf(who, x, y, size, stride, padding, dilation);
  for (int i = 0; i < 2; ++i) {
    const Windows& v = s.windows;
    const std::int64_t room = v.in[i] + v.before[i] + v.after[i] - v.dilation[i] * (size[i] - 1) - 1;
    holdWindows(room >= 0 && v.out[i] == room / v.stride[i] + 1, who, "the output's lengths do not follow from the input's");
  }
  return s;
}

inline ConvShape checkConv(const Spec& spec, const ConvAttrs& a) {
  holdWindows(spec.in.size() == 2u + a.bias && spec.out.size() == 1, "conv", "wrong number of operands");
  const View &x = spec.in[0], &w = spec.in[1], &y = spec.out[0];
  const ConvShape shape = convShapeOf("conv", x, w, y, a.groups, a.stride, a.padding, a.dilation);
  if (a.bias) {
    holdWindows(spec.in[2].rank == 1 && spec.in[2].shape[0] == shape.o && spec.in[2].dtype == x.dtype, "conv",
                "the bias must have one number per channel");
  }
  holdWindows(y.contiguous(), "conv", "the output is not contiguous");
  return shape;
}

inline ConvShape checkConvInputBackward(const Spec& spec, const ConvInputBackwardAttrs& a) {
  holdWindows(spec.in.size() == 2 && spec.out.size() == 1, "convInputBackward", "wrong number of operands");
  const View &dy = spec.in[0], &w = spec.in[1], &dx = spec.out[0];
  const ConvShape shape = convShapeOf("convInputBackward", dx, w, dy, a.groups, a.stride, a.padding, a.dilation);
  holdWindows(dx.contiguous(), "convInputBackward", "the output is not contiguous");
  return shape;
}

inline ConvShape checkConvWeightBackward(const Spec& spec, const ConvWeightBackwardAttrs& a) {
  const char* const who = "convWeightBackward";
  holdWindows(spec.in.size() == 2 && spec.out.size() == 1u + a.bias, who, "wrong number of operands");
  const View &x = spec.in[0], &dy = spec.in[1], &dw = spec.out[0];
  const ConvShape shape = convShapeOf(who, x, dw, dy, a.groups, a.stride, a.padding, a.dilation);
  if (a.bias) {
    holdWindows(spec.out[1].rank == 1 && spec.out[1].shape[0] == shape.o && spec.out[1].dtype == x.dtype, who,
                "the bias must have one number per channel");
  }
  for (const View& v : spec.out) holdWindows(v.contiguous(), who, "an output is not contiguous");
  return shape;
}

}  // namespace steepest::STEEPEST_LEVEL
