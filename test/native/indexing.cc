// Kernels that move numbers by index, and those that put them together: no index reaches out of bounds, no shape is too small.
#include <limits>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

constexpr int kIndexFault = 2;

Array f32(std::vector<std::int64_t> shape, const std::vector<float>& values) { return Array::of(DType::float32, std::move(shape), values); }
Array i32(std::vector<std::int64_t> shape, const std::vector<std::int32_t>& values) {
  return Array::of(DType::int32, std::move(shape), values);
}
Array blank(std::vector<std::int64_t> shape) { return Array::empty(DType::float32, std::move(shape)); }

// Runs an op with one output everywhere; the numbers and the fault have to be these.
void expectAll(Op op, std::vector<Array> in, const std::vector<double>& attrs, const std::vector<std::int64_t>& shape,
               const std::vector<float>& wanted, int fault = 0) {
  atAllLevels([&](const Level& level, int threads) {
    std::vector<Array> inputs = in, out{blank(shape)};
    CHECK(runOp(level, op, inputs, out, attrs, threads) == fault);
    CHECK(out[0].holds(wanted));
  });
}

}  // namespace

TEST(take_and_its_bounds) {
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  expectAll(Op::take_, {f32({3, 2}, x), i32({2}, {2, 0})}, {0, 0}, {2, 2}, {5, 6, 1, 2});
  expectAll(Op::take_, {f32({2, 3}, x), i32({2}, {2, 0})}, {1, 0}, {2, 2}, {3, 1, 6, 4});
  expectAll(Op::take_, {f32({2, 3}, x), i32({2, 1}, {2, 0})}, {1, 1}, {2, 1}, {3, 4});
  expectAll(Op::take_, {f32({3, 2}, x), i32({3}, {3, -1, 1})}, {0, 0}, {3, 2}, {0, 0, 0, 0, 3, 4}, kIndexFault);
  expectAll(Op::take_, {f32({0, 2}, {}), i32({1}, {0})}, {0, 0}, {1, 2}, {0, 0}, kIndexFault);
  expectAll(Op::take_, {f32({3, 2}, x), i32({0}, {})}, {0, 0}, {0, 2}, {});
}

TEST(gather_and_scatter_and_their_bounds) {
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  expectAll(Op::gather_, {f32({2, 3}, x), i32({2, 2}, {2, 2, 0, 1})}, {1}, {2, 2}, {3, 3, 4, 5});
  expectAll(Op::gather_, {f32({2, 3}, x), i32({1, 3}, {1, 0, 2})}, {0}, {1, 3}, {4, 2, 0}, kIndexFault);
  expectAll(Op::scatterAdd_, {f32({2, 3}, x), i32({2, 2}, {2, 2, 0, 1}), f32({2, 2}, {10, 20, 30, 40})}, {1}, {2, 3},
            {1, 2, 33, 34, 45, 6});
  expectAll(Op::scatterAdd_, {f32({1, 3}, {1, 2, 3}), i32({2, 3}, {0, 5, 0, 0, 0, -7}), f32({2, 3}, {1, 1, 1, 1, 1, 1})}, {0}, {1, 3},
            {3, 3, 4}, kIndexFault);
  expectAll(Op::scatterAdd_, {f32({0}, {}), i32({1}, {0}), f32({1}, {1})}, {0}, {0}, {}, kIndexFault);
}

TEST(segments_and_their_bounds) {
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  const float none = -std::numeric_limits<float>::infinity();
  expectAll(Op::segmentSum_, {f32({3, 2}, x), i32({3}, {2, 0, 2})}, {0, 0, 4, 0}, {4, 2}, {3, 4, 0, 0, 6, 8, 0, 0});
  const std::vector<float> base{1, 1, 2, 2, 3, 3, 4, 4};
  expectAll(Op::segmentSum_, {f32({3, 2}, x), i32({3}, {2, 0, 2}), f32({4, 2}, base)}, {0, 0, 4, 1}, {4, 2}, {4, 5, 2, 2, 9, 11, 4, 4});
  expectAll(Op::segmentMax_, {f32({3, 2}, x), i32({3}, {2, 0, 2})}, {0, 0, 4}, {4, 2}, {3, 4, none, none, 5, 6, none, none});
  expectAll(Op::segmentSum_, {f32({3, 2}, x), i32({3}, {1, 7, -1})}, {0, 0, 2, 0}, {2, 2}, {0, 0, 1, 2}, kIndexFault);
  expectAll(Op::segmentSum_, {f32({0, 2}, {}), i32({0}, {})}, {0, 0, 1, 0}, {1, 2}, {0, 0});
  // One segment, a whole number in each row, over many tiles, with borders at odd places.
  const std::int64_t m = 9001, inner = 37;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(m));
  std::vector<float> rows(static_cast<std::size_t>(m * inner)), wanted(static_cast<std::size_t>(3 * inner));
  for (std::int64_t i = 0; i < m; ++i) {
    ids[static_cast<std::size_t>(i)] = i % 7 == 0 ? 2 : 0;
    for (std::int64_t c = 0; c < inner; ++c) {
      const float v = static_cast<float>((i + c) % 5);
      rows[static_cast<std::size_t>(i * inner + c)] = v;
      wanted[static_cast<std::size_t>((i % 7 == 0 ? 2 : 0) * inner + c)] += v;
    }
  }
  expectAll(Op::segmentSum_, {f32({m, inner}, rows), i32({m}, ids)}, {0, 0, 3, 0}, {3, inner}, wanted);
}

TEST(dynamic_slices_and_their_bounds) {
  const std::vector<float> x{1, 2, 3, 4, 5, 6};
  expectAll(Op::dynamicSlice_, {f32({2, 3}, x), i32({}, {1})}, {1, 0, 2}, {2, 2}, {2, 3, 5, 6});
  expectAll(Op::dynamicSlice_, {f32({2, 3}, x), i32({2}, {0, 1})}, {1, 1, 2}, {2, 2}, {1, 2, 5, 6});
  expectAll(Op::dynamicSlice_, {f32({2, 3}, x), i32({}, {2})}, {1, 0, 2}, {2, 2}, {0, 0, 0, 0}, kIndexFault);
  expectAll(Op::dynamicSlice_, {f32({2, 3}, x), i32({}, {-1})}, {0, 0, 1}, {1, 3}, {0, 0, 0}, kIndexFault);
  expectAll(Op::dynamicUpdateSlice_, {f32({2, 3}, x), f32({2, 1}, {7, 8}), i32({}, {2})}, {1, 0}, {2, 3}, {1, 2, 7, 4, 5, 8});
  expectAll(Op::dynamicUpdateSlice_, {f32({2, 3}, x), f32({2, 1}, {7, 8}), i32({}, {3})}, {1, 0}, {2, 3}, x, kIndexFault);
}

TEST(pad_concat_and_cumsum_of_little) {
  expectAll(Op::pad_, {f32({2}, {1, 2})}, {1, 1, 1, 2, 9}, {5}, {9, 1, 2, 9, 9});
  expectAll(Op::pad_, {f32({0, 2}, {})}, {2, 1, 0, 2, 0, 1, 4}, {1, 3}, {4, 4, 4});
  expectAll(Op::pad_, {f32({}, {3})}, {0, 0, 7}, {}, {3});
  expectAll(Op::concat_, {f32({2, 1}, {1, 2}), f32({2, 0}, {}), f32({2, 2}, {3, 4, 5, 6})}, {1}, {2, 3}, {1, 3, 4, 2, 5, 6});
  expectAll(Op::cumsum_, {f32({2, 0, 3}, {})}, {0, 0, 0}, {2, 0, 3}, {});
  expectAll(Op::cumsum_, {f32({3}, {1, 2, 3})}, {0, 1, 1}, {3}, {5, 3, 0});
}
