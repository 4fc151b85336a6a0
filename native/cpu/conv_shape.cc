#include "cpu/conv_shape.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

void hold(bool holds, const char* who, const char* rule) {
  if (!holds) throw Error("PROGRAM", std::string(who) + ": " + rule);
}

std::int64_t floorMod(std::int64_t a, std::int64_t b) { return (a % b + b) % b; }

}  // namespace

Windows windowsOf(const char* who, const View& x, const View& y, const std::int64_t (&size)[2], const std::vector<std::int64_t>& stride,
                  const std::vector<std::int64_t>& padding, const std::vector<std::int64_t>& dilation) {
  hold(stride.size() == 2 && padding.size() == 4 && dilation.size() == 2, who, "attributes for two axes are needed");
  hold(x.rank == 4 && y.rank == 4, who, "operands must have the axes N, C, H, W");
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
    hold(within(w.in[i], 0) && within(w.out[i], 0) && within(size[i], 1) && within(stride[i], 1) && within(dilation[i], 1) &&
             within(w.before[i], 0) && within(w.after[i], 0) && within((size[i] - 1) * dilation[i] + 1, 1),
         who, "an axis, stride, dilation or padding is out of its range");
  }
  return w;
}

ConvShape convShapeOf(const char* who, const View& x, const View& w, const View& y, std::int64_t groups,
                      const std::vector<std::int64_t>& stride, const std::vector<std::int64_t>& padding,
                      const std::vector<std::int64_t>& dilation) {
  hold(x.rank == 4 && w.rank == 4 && y.rank == 4, who, "operands must have four axes");
  hold(isFloat(x.dtype) && w.dtype == x.dtype && y.dtype == x.dtype, who, "operands must be of one float dtype");
  ConvShape s;
  s.n = x.shape[0];
  s.c = x.shape[1];
  s.o = w.shape[0];
  s.groups = groups;
  hold(groups >= 1 && s.c % groups == 0 && s.o % groups == 0 && w.shape[1] == s.c / groups, who, "groups must divide both channels");
  hold(y.shape[0] == s.n && y.shape[1] == s.o, who, "batch or channels differ");
  const std::int64_t size[2] = {w.shape[2], w.shape[3]};
  s.windows = windowsOf(who, x, y, size, stride, padding, dilation);
  for (int i = 0; i < 2; ++i) {
    const Windows& v = s.windows;
    const std::int64_t room = v.in[i] + v.before[i] + v.after[i] - v.dilation[i] * (size[i] - 1) - 1;
    hold(room >= 0 && v.out[i] == room / v.stride[i] + 1, who, "the output's lengths do not follow from the input's");
  }
  return s;
}

ConvAxis::ConvAxis(std::int64_t out, std::int64_t step, const std::vector<std::pair<std::int64_t, std::int64_t>>& list, bool expand)
    : out(out), step(step) {
  if (expand) {
    for (const auto& [index, start] : list) {
      taps.push_back({index, planes(), 0});
      starts.push_back(start);
    }
  } else {
    // Taps whose starts are a whole number of steps apart share a plane.
    for (const auto& [index, start] : list) {
      const auto same = [&](std::int64_t other) { return floorMod(other, step) == floorMod(start, step); };
      const auto at = std::find_if(starts.begin(), starts.end(), same);
      taps.push_back({index, at - starts.begin(), start});
      if (at == starts.end())
        starts.push_back(start);
      else
        *at = std::min(*at, start);
    }
    for (Tap& tap : taps) {
      tap.shift = (tap.shift - starts[static_cast<std::size_t>(tap.plane)]) / step;
      reach = std::max(reach, tap.shift);
    }
  }
  cut(out);
}

}  // namespace steepest::STEEPEST_LEVEL
