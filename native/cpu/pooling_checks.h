// The operands of pooling, and the windows that follow from them.
#pragma once

#include "attrs/avgPool.gen.h"
#include "attrs/avgPoolBackward.gen.h"
#include "attrs/maxPool.gen.h"
#include "attrs/maxPoolBackward.gen.h"
#include "cpu/conv_checks.h"
#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

// By how many places along an axis the mean of window i is divided: those of the input and, with `pads`, of the padding.
STEEPEST_HD inline std::int64_t placesSeen(const Windows& v, int axis, std::int64_t i, bool pads) {
  const std::int64_t start = i * v.stride[axis] - v.before[axis];
  const std::int64_t end = std::min(start + v.size[axis], v.in[axis] + v.after[axis]);
  return pads ? end - start : std::min(end, v.in[axis]) - std::max<std::int64_t>(start, 0);
}

// Windows of x [N, C, in] that give y [N, C, out]. Each begins within the input or the padding before it, and sees the input.
inline Windows poolWindows(const char* who, const View& x, const View& y, const std::vector<std::int64_t>& size,
                           const std::vector<std::int64_t>& stride, const std::vector<std::int64_t>& padding,
                           const std::vector<std::int64_t>& dilation) {
  const auto hold = [&](bool holds, const char* rule) {
    if (!holds) throw Error("PROGRAM", std::string(who) + ": " + rule);
  };
  hold(size.size() == 2, "attributes for two axes are needed");
  const std::int64_t sizes[2] = {size[0], size[1]};
  const Windows w = windowsOf(who, x, y, sizes, stride, padding, dilation);
  hold(isFloat(x.dtype) && y.dtype == x.dtype && x.shape[0] == y.shape[0] && x.shape[1] == y.shape[1],
       "operands differ in dtype or channels");
  hold(x.shape[2] * x.shape[3] <= 0x7fffffff && sizes[0] * sizes[1] <= kLongest, "the planes or windows are too large");
  for (int i = 0; i < 2; ++i) {
    const std::int64_t last = (w.out[i] - 1) * w.stride[i] - w.before[i];
    hold(w.out[i] == 0 || (w.in[i] > 0 && last < w.in[i]), "a window begins behind the input");
    for (std::int64_t o = 0; o < w.out[i]; ++o) {
      const std::int64_t start = o * w.stride[i] - w.before[i];
      const std::int64_t skipped = start < 0 ? (-start + w.dilation[i] - 1) / w.dilation[i] : 0;
      hold(skipped < w.size[i] && start + skipped * w.dilation[i] < w.in[i], "a window sees only padding");
      if (start >= 0) break;
    }
  }
  return w;
}

inline Windows checkMaxPool(const Spec& spec, const MaxPoolAttrs& a) {
  require(spec.in.size() == 1 && spec.out.size() == 2, "maxPool: wrong number of operands");
  const Windows w = poolWindows("maxPool", spec.in[0], spec.out[0], a.size, a.stride, a.padding, a.dilation);
  const View& index = spec.out[1];
  require(sameShape(index, spec.out[0]) && index.dtype == DType::int32 && index.contiguous(),
          "maxPool: the indices must be int32 of the output's shape");
  return w;
}

inline Windows checkAvgPool(const Spec& spec, const AvgPoolAttrs& a) {
  require(spec.in.size() == 1 && spec.out.size() == 1, "avgPool: wrong number of operands");
  return poolWindows("avgPool", spec.in[0], spec.out[0], a.size, a.stride, a.padding, {1, 1});
}

inline void checkMaxPoolBackward(const Spec& spec) {
  MaxPoolBackwardAttrs::decode(spec.attrs);
  if (spec.in.size() != 2 || spec.out.size() != 1) throw Error("PROGRAM", "maxPoolBackward: wrong number of operands");
  const View &dy = spec.in[0], &index = spec.in[1], &dx = spec.out[0];
  require(dy.rank == 4 && dx.rank == 4 && isFloat(dy.dtype) && dx.dtype == dy.dtype && dx.contiguous(), "maxPoolBackward: wrong operands");
  require(dx.shape[0] == dy.shape[0] && dx.shape[1] == dy.shape[1] && dx.shape[2] * dx.shape[3] <= 0x7fffffff,
          "maxPoolBackward: wrong shapes");
  require(sameShape(index, dy) && index.dtype == DType::int32 && index.contiguous(), "maxPoolBackward: wrong indices");
}

inline Windows checkAvgPoolBackward(const Spec& spec, const AvgPoolBackwardAttrs& a) {
  require(spec.in.size() == 1 && spec.out.size() == 1, "avgPoolBackward: wrong number of operands");
  const View& dx = spec.out[0];
  require(dx.contiguous(), "avgPoolBackward: the output is not contiguous");
  return poolWindows("avgPoolBackward", dx, spec.in[0], a.size, a.stride, a.padding, {1, 1});
}

}  // namespace steepest::STEEPEST_LEVEL
