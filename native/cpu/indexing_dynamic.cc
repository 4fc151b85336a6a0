// Kernels of `dynamicSlice` and `dynamicUpdateSlice`.
#include <cstring>

#include "cpu/indexing.h"
#include "attrs/dynamicSlice.gen.h"
#include "attrs/dynamicUpdateSlice.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using indexing::Window;
using indexing::windowOf;
using layout::ceilDiv;
using layout::check;

// Moves bytes in tiles; body(at, n) gets a range of [0, bytes) that lies within one row.
template <class F>
void rows(const Call& call, std::int64_t count, std::int64_t width, F&& body) {
  const std::int64_t bytes = count * width;
  call.pool.run(ceilDiv(bytes, indexing::kTile), [&](std::int64_t tile, int) {
    std::int64_t at = tile * indexing::kTile;
    const std::int64_t end = std::min(bytes, at + indexing::kTile);
    while (at < end) {
      const std::int64_t row = at / width, column = at % width, n = std::min(end - at, width - column);
      body(row, column, n);
      at += n;
    }
  });
}

class Dynamic : public Kernel {
 public:
  explicit Dynamic(const Window& s) : s_(s) {}

 protected:
  // Where the part begins in row `row` of the values, in bytes; -1 where it is not within them.
  std::int64_t startOf(const Call& call, const View& start, std::int64_t row) const {
    const std::int64_t at = start.as<std::int32_t>()[row / s_.outer];
    if (at >= 0 && at <= s_.n - s_.size) return (row * s_.n + at) * s_.inner;
    call.fault.store(indexing::kIndexFault);
    return -1;
  }
  Window s_;
};

class DynamicSlice final : public Dynamic {
 public:
  using Dynamic::Dynamic;
  void run(const Call& call) const override {
    const std::int64_t width = s_.size * s_.inner;
    if (width == 0) return;
    rows(call, s_.batch * s_.outer, width, [&](std::int64_t row, std::int64_t column, std::int64_t n) {
      const std::int64_t from = startOf(call, call.in[1], row);
      std::byte* to = call.out[0].data + row * width + column;
      if (from >= 0)
        std::memcpy(to, call.in[0].data + from + column, static_cast<std::size_t>(n));
      else
        std::memset(to, 0, static_cast<std::size_t>(n));
    });
  }
};

class DynamicUpdateSlice final : public Dynamic {
 public:
  using Dynamic::Dynamic;
  void run(const Call& call) const override {
    std::byte* y = call.out[0].data;
    const std::byte* x = call.in[0].data;
    const std::int64_t whole = s_.n * s_.inner, width = s_.size * s_.inner;
    if (whole == 0) return;
    if (y != x) {
      rows(call, s_.batch * s_.outer, whole, [&](std::int64_t row, std::int64_t column, std::int64_t n) {
        std::memcpy(y + row * whole + column, x + row * whole + column, static_cast<std::size_t>(n));
      });
    }
    if (width == 0) return;
    rows(call, s_.batch * s_.outer, width, [&](std::int64_t row, std::int64_t column, std::int64_t n) {
      const std::int64_t to = startOf(call, call.in[2], row);
      if (to >= 0) std::memcpy(y + to + column, call.in[1].data + row * width + column, static_cast<std::size_t>(n));
    });
  }
};

}  // namespace

std::unique_ptr<Kernel> makeDynamicSlice(const Spec& spec) {
  const DynamicSliceAttrs a = DynamicSliceAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "dynamicSlice", "two inputs and one output");
  const Window s = windowOf(spec.in[0], spec.out[0], spec.in[1], a.axis, a.batchDims, "dynamicSlice");
  check(s.size == a.size, "dynamicSlice", "length of the part");
  return std::make_unique<DynamicSlice>(s);
}

std::unique_ptr<Kernel> makeDynamicUpdateSlice(const Spec& spec) {
  const DynamicUpdateSliceAttrs a = DynamicUpdateSliceAttrs::decode(spec.attrs);
  check(spec.in.size() == 3 && spec.out.size() == 1, "dynamicUpdateSlice", "three inputs and one output");
  const View& y = spec.out[0];
  check(layout::sameShape(y, spec.in[0]) && y.dtype == spec.in[0].dtype && y.contiguous(), "dynamicUpdateSlice",
        "the output is like the values");
  return std::make_unique<DynamicUpdateSlice>(windowOf(spec.in[0], spec.in[1], spec.in[2], a.axis, a.batchDims, "dynamicUpdateSlice"));
}

}  // namespace steepest::STEEPEST_LEVEL
