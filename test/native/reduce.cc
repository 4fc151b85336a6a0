// Reductions of operands with any strides, against plain loops; the same bits for any number of threads and at every level.
#include <cmath>
#include <limits>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

std::vector<float> numbers(std::size_t n) {
  std::vector<float> x(n);
  std::uint32_t s = 12345;
  for (float& v : x) {
    s = s * 1664525u + 1013904223u;
    v = static_cast<float>(s >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

// A view of an array with other axes, as the plan hands it over.
struct Strided {
  const char* what;
  std::vector<std::int64_t> memory, shape, strides, axes;
  std::int64_t offset;
};

const std::vector<Strided> kCases = {
    {"last axis", {5, 37}, {5, 37}, {37, 1}, {1}, 0},
    {"first axis", {37, 5}, {37, 5}, {5, 1}, {0}, 0},
    {"long rows", {2, 70001}, {2, 70001}, {70001, 1}, {1}, 0},
    {"long columns", {70001, 2}, {70001, 2}, {2, 1}, {0}, 0},
    {"both around the middle", {7, 5, 9}, {7, 5, 9}, {45, 9, 1}, {0, 2}, 0},
    {"the middle", {7, 65, 300}, {7, 65, 300}, {19500, 300, 1}, {1}, 0},
    {"transposed", {33, 17}, {17, 33}, {1, 17}, {0}, 0},
    {"flipped", {33, 17}, {33, 17}, {17, -1}, {1}, 16},
    {"every second", {11, 40}, {11, 20}, {40, 2}, {0}, 0},
    {"broadcast", {33}, {5, 33}, {0, 1}, {0}, 0},
    {"broadcast and kept", {33}, {33, 5}, {1, 0}, {0}, 0},
    {"everything", {123, 457}, {123, 457}, {457, 1}, {0, 1}, 0},
    {"of nothing", {0, 4}, {0, 4}, {4, 1}, {0}, 0},
    {"nothing of", {4, 0}, {4, 0}, {1, 1}, {0}, 0},
    {"one", {1}, {1}, {1}, {0}, 0},
    {"no axis", {3, 5}, {3, 5}, {5, 1}, {}, 0},
};

std::size_t sizeOfShape(const std::vector<std::int64_t>& shape) {
  std::size_t n = 1;
  for (const std::int64_t d : shape) n *= static_cast<std::size_t>(d);
  return n;
}

// Sum, sum of squares and greatest of every group, in double.
void plain(const Strided& c, const std::vector<float>& x, std::vector<double>& sum, std::vector<double>& squares,
           std::vector<double>& top) {
  std::vector<std::int64_t> kept;
  std::size_t groups = 1;
  for (std::size_t i = 0; i < c.shape.size(); ++i) {
    bool reduced = false;
    for (const std::int64_t a : c.axes) reduced = reduced || a == static_cast<std::int64_t>(i);
    kept.push_back(reduced ? 0 : 1);
    if (!reduced) groups *= static_cast<std::size_t>(c.shape[i]);
  }
  sum.assign(groups, 0);
  squares.assign(groups, 0);
  top.assign(groups, -std::numeric_limits<double>::infinity());
  for (std::size_t at = 0; at < sizeOfShape(c.shape); ++at) {
    std::int64_t rest = static_cast<std::int64_t>(at), from = c.offset;
    std::size_t group = 0, scale = 1;
    for (std::size_t i = c.shape.size(); i-- > 0;) {
      const std::int64_t index = rest % c.shape[i];
      rest /= c.shape[i];
      from += index * c.strides[i];
      if (!kept[i]) continue;
      group += static_cast<std::size_t>(index) * scale;
      scale *= static_cast<std::size_t>(c.shape[i]);
    }
    const double v = x[static_cast<std::size_t>(from)];
    sum[group] += v;
    squares[group] += v * v;
    top[group] = std::max(top[group], v);
  }
}

// Runs `reduce` and gives the float32 output.
std::vector<float> reduced(const Level& level, int threads, const Strided& c, const std::vector<float>& x, int kind) {
  std::vector<Array> in{Array::of(DType::float32, c.memory, x)};
  std::vector<std::int64_t> shape;
  for (std::size_t i = 0; i < c.shape.size(); ++i) {
    bool gone = false;
    for (const std::int64_t a : c.axes) gone = gone || a == static_cast<std::int64_t>(i);
    if (!gone) shape.push_back(c.shape[i]);
  }
  std::vector<Array> out{Array::empty(DType::float32, shape)};
  std::vector<View> ins{in[0].view}, outs{out[0].view};
  ins[0].rank = static_cast<int>(c.shape.size());
  for (int i = 0; i < ins[0].rank; ++i) {
    ins[0].shape[i] = c.shape[static_cast<std::size_t>(i)];
    ins[0].strides[i] = c.strides[static_cast<std::size_t>(i)];
  }
  std::vector<double> attrs{static_cast<double>(c.axes.size())};
  attrs.insert(attrs.end(), c.axes.begin(), c.axes.end());
  attrs.insert(attrs.end(), {0.0, static_cast<double>(kind), 0.0});
  const auto kernel = level.kernels()[static_cast<int>(Op::reduce_)]({ins, outs, attrs, threads});
  ins[0].data = in[0].bytes.data() + static_cast<std::size_t>(c.offset) * sizeof(float);
  outs[0].data = out[0].bytes.data();
  std::vector<std::byte> scratch(kernel->workspace + 64);
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64);
  Pool pool(threads);
  std::atomic<int> fault{0};
  kernel->run({ins, outs, aligned, pool, fault});
  const float* y = out[0].as<float>();
  return {y, y + sizeOfShape(shape)};
}

constexpr int kSum = 0, kMax = 2, kSumSquares = 5;

}  // namespace

TEST(reduce_strided) {
  for (const Strided& c : kCases) {
    const std::vector<float> x = numbers(sizeOfShape(c.memory));
    std::vector<double> sum, squares, top;
    plain(c, x, sum, squares, top);
    const bool nothing = sizeOfShape(c.shape) == 0;
    for (const int kind : {kSum, kMax, kSumSquares}) {
      const std::vector<double>& wanted = kind == kSum ? sum : kind == kMax ? top : squares;
      std::vector<float> first;
      atAllLevels([&](const Level& level, int threads) {
        const std::vector<float> y = reduced(level, threads, c, x, kind);
        CHECK(y.size() == wanted.size());
        if (first.empty()) first = y;
        for (std::size_t i = 0; i < y.size(); ++i) {
          CHECK(y[i] == first[i]);
          if (kind == kMax || nothing)
            CHECK(y[i] == wanted[i]);
          else
            CHECK_NEAR(y[i], wanted[i], 1e-5 * (1 + std::fabs(squares[i])));
        }
      });
    }
  }
}

TEST(reduce_refuses_wrong_programs) {
  const Level level = levels().front();
  const auto refuses = [&](std::vector<std::int64_t> in, std::vector<std::int64_t> out, std::vector<double> attrs) {
    std::vector<View> ins{Array::empty(DType::float32, in).view}, outs{Array::empty(DType::float32, out).view};
    try {
      level.kernels()[static_cast<int>(Op::reduce_)]({ins, outs, attrs, 1});
      return false;
    } catch (const Error& e) {
      return e.code == "PROGRAM";
    }
  };
  CHECK(!refuses({3, 4}, {3}, {1, 1, 0, 0, 0}));
  CHECK(refuses({3, 4}, {4}, {1, 1, 0, 0, 0}));
  CHECK(refuses({3, 4}, {3}, {1, 2, 0, 0, 0}));
  CHECK(refuses({3, 4}, {3}, {2, 1, 1, 0, 0, 0}));
  CHECK(refuses({3, 4}, {3, 4}, {1, 1, 1, 0, 0}));
  CHECK(refuses({3, 4}, {3}, {1, 1, 0, 0, 3}));
  CHECK(refuses({3, 4}, {3}, {1, 1, 0, 0}));
}
