// Kernel of `segmentMax`.
#include "cpu/segment.h"
#include "attrs/segmentMax.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

// A NaN that came stays.
struct Greatest {
  template <class T>
  static auto none() {
    if constexpr (std::is_integral_v<T>)
      return static_cast<std::int64_t>(std::numeric_limits<T>::min());
    else
      return -std::numeric_limits<double>::infinity();
  }
  static float merge(float a, float b) { return b > a || b != b ? b : a; }
  static double merge(double a, double b) { return b > a || b != b ? b : a; }
  static std::int64_t merge(std::int64_t a, std::int64_t b) { return b > a ? b : a; }
};

}  // namespace

std::unique_ptr<Kernel> makeSegmentMax(const Spec& spec) {
  const SegmentMaxAttrs a = SegmentMaxAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 2 && spec.out.size() == 1, "segmentMax", "two inputs and one output");
  const segment::Slices s = indexing::slicesOf(spec.out[0], spec.in[1], spec.in[0], a.axis, a.batchDims, "segmentMax");
  layout::check(s.n == a.segments, "segmentMax", "number of segments");
  return segment::make<Greatest>(spec.in[0].dtype, s, "segmentMax");
}

}  // namespace steepest::STEEPEST_LEVEL
