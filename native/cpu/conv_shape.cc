#include "cpu/conv_shape.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

std::int64_t floorMod(std::int64_t a, std::int64_t b) { return (a % b + b) % b; }

}  // namespace

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
