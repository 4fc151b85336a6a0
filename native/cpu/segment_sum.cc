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
  layout::check(spec.in.size() == 2u + a.base && spec.out.size() == 1, "segmentSum", "two inputs, or three with a base, and one output");
  const segment::Slices s = indexing::slicesOf(spec.out[0], spec.in[1], spec.in[0], a.axis, a.batchDims, "segmentSum");
  layout::check(s.n == a.segments, "segmentSum", "number of segments");
  if (a.base) {
    const View &base = spec.in[2], &out = spec.out[0];
    layout::check(layout::sameShape(base, out) && base.dtype == out.dtype && base.contiguous(), "segmentSum", "a base like the output");
  }
  return segment::make<Add>(spec.in[0].dtype, s, "segmentSum", a.base);
}

}  // namespace steepest::STEEPEST_LEVEL
