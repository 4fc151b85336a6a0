// Geometry of convolutions and pooling: shapes that were checked against each other (conv_checks.h), and how the windows of one axis lie.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/types.h"

namespace steepest::STEEPEST_LEVEL {

// Windows along two axes: place t of window i stands at i·stride + t·dilation - before.
struct Windows {
  std::int64_t in[2] = {}, out[2] = {}, size[2] = {}, stride[2] = {}, before[2] = {}, after[2] = {}, dilation[2] = {};

  std::int64_t places() const { return size[0] * size[1]; }
  std::int64_t start(int axis, std::int64_t place) const { return place * dilation[axis] - before[axis]; }
};

// x [n, c, in], w [o, c/groups, size], y [n, o, out].
struct ConvShape {
  std::int64_t n = 0, c = 0, o = 0, groups = 1;
  Windows windows;

  std::int64_t inputs() const { return c / groups; }  // of a group
  std::int64_t outputs() const { return o / groups; }
};

// No axis, padding or reach of a window is longer than this, so that products of a few of them cannot overflow.
constexpr std::int64_t kLongest = std::int64_t{1} << 24;

// One axis of a correlation as the packed planes see it. A plane holds the input at `start`, `start + step`, …; position i of tap t reads
// element i + shift of the tap's plane. So all that a tap reads lies side by side, whatever stride and dilation are.
struct ConvAxis {
  struct Tap {
    std::int64_t index, plane, shift;
  };
  std::int64_t out = 0, step = 1, length = 0;
  std::int64_t reach = 0;            // the longest shift
  std::vector<std::int64_t> starts;  // of the planes
  std::vector<Tap> taps;

  // `taps` are [index, where its first position reads]. With `expand` each tap has a plane of its own, exactly `out` long.
  ConvAxis() = default;
  ConvAxis(std::int64_t out, std::int64_t step, const std::vector<std::pair<std::int64_t, std::int64_t>>& taps, bool expand);

  std::int64_t planes() const { return static_cast<std::int64_t>(starts.size()); }
  // Planes for bands of so many positions.
  void cut(std::int64_t positions) { length = positions + reach; }
};

}  // namespace steepest::STEEPEST_LEVEL
