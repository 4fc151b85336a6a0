// Kernel of `segmentSum`.
#include "cpu/segment.h"
#include "attrs/segmentSum.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

struct Add {
  template <class T>
  static int none() {
    return 0;
  }
  static float merge(float a, float b) { return a + b; }
  static double merge(double a, double b) { return a + b; }
  static std::int64_t merge(std::int64_t a, std::int64_t b) {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  }
};

}  // namespace

std::unique_ptr<Kernel> makeSegmentSum(const Spec& spec) {
  const SegmentSumAttrs a = SegmentSumAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 2 && spec.out.size() == 1, "segmentSum", "two inputs and one output");
  const segment::Slices s = indexing::slicesOf(spec.out[0], spec.in[1], spec.in[0], a.axis, a.batchDims, "segmentSum");
  layout::check(s.n == a.segments, "segmentSum", "number of segments");
  return segment::make<Add>(spec.in[0].dtype, s, "segmentSum");
}

}  // namespace steepest::STEEPEST_LEVEL
