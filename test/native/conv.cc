// Convolutions and pooling against loops in float64: every dtype, level and number of threads, operands that lie as they come, and shapes
// over several tiles, by oneDNN and by steepest's own loops.
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

using Dims = std::vector<std::int64_t>;

struct Case {
  const char* name;
  Dims x, w;  // [N, C, H, W], [O, C/groups, kh, kw]
  std::int64_t stride[2], before[2], after[2], dilation[2], groups;
  Dims order;  // of the axes in memory, outermost first
};

const Case kCases[] = {
    {"one", {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, 1, {0, 1, 2, 3}},
    {"odd", {3, 5, 7, 9}, {6, 5, 3, 2}, {2, 1}, {1, 0}, {0, 2}, {1, 3}, 1, {0, 1, 2, 3}},
    {"no images", {0, 5, 7, 9}, {6, 5, 3, 2}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, 1, {0, 1, 2, 3}},
    {"no channels", {2, 0, 4, 4}, {3, 0, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 1, {0, 1, 2, 3}},
    {"many channels", {9, 40, 13, 12}, {50, 40, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 1, {0, 1, 2, 3}},
    {"channels last", {3, 48, 9, 10}, {33, 48, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 1, {0, 2, 3, 1}},
    {"columns first", {3, 48, 9, 10}, {33, 48, 3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}, 1, {3, 1, 0, 2}},
    {"few channels, columns first", {2, 3, 9, 10}, {5, 3, 3, 3}, {2, 1}, {1, 1}, {1, 1}, {1, 1}, 1, {3, 2, 1, 0}},
    {"products", {5, 33, 9, 11}, {40, 33, 1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, 1, {0, 1, 2, 3}},
    {"products in groups, channels last", {2, 48, 20, 31}, {33, 16, 1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, 3, {0, 2, 3, 1}},
    {"groups", {3, 64, 8, 9}, {96, 32, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {1, 1}, 2, {0, 1, 2, 3}},
    {"depthwise", {3, 17, 11, 20}, {17, 1, 3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}, 17, {0, 1, 2, 3}},
    {"long row", {2, 3, 1, 1801}, {4, 3, 1, 5}, {1, 2}, {0, 2}, {0, 2}, {1, 2}, 1, {0, 1, 2, 3}},
    {"padding beyond the kernel", {1, 2, 3, 3}, {2, 2, 2, 2}, {3, 1}, {5, 3}, {4, 2}, {1, 1}, 1, {0, 1, 2, 3}},
};

double numberAt(const Array& a, std::int64_t offset) {
  if (a.view.dtype == DType::float64) return a.as<double>()[offset];
  if (a.view.dtype == DType::float32) return a.as<float>()[offset];
  return std::bit_cast<float>(static_cast<std::uint32_t>(a.as<std::uint16_t>()[offset]) << 16);
}

// Numbers that every dtype holds; the axes lie in memory in the order given.
Array numbers(DType dtype, const Dims& shape, unsigned seed, const Dims& order = {}) {
  Array a = Array::empty(dtype, shape);
  if (!order.empty()) {
    std::int64_t step = 1;
    for (int i = a.view.rank - 1; i >= 0; --i) {
      const auto axis = order[static_cast<std::size_t>(i)];
      a.view.strides[axis] = step;
      step *= shape[static_cast<std::size_t>(axis)];
    }
  }
  std::mt19937 random(seed);
  for (std::int64_t i = 0; i < a.view.size(); ++i) {
    const float x = (static_cast<int>(random() % 255) - 127) / 64.0f;
    if (dtype == DType::float64)
      reinterpret_cast<double*>(a.bytes.data())[i] = x;
    else if (dtype == DType::float32)
      reinterpret_cast<float*>(a.bytes.data())[i] = x;
    else
      reinterpret_cast<std::uint16_t*>(a.bytes.data())[i] = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16);
  }
  return a;
}

std::int64_t offsetOf(const View& v, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) {
  return a * v.strides[0] + b * v.strides[1] + c * v.strides[2] + d * v.strides[3];
}

Dims outputOf(const Case& c) {
  Dims y{c.x[0], c.w[0]};
  for (std::size_t i = 0; i < 2; ++i)
    y.push_back((c.x[2 + i] + c.before[i] + c.after[i] - c.dilation[i] * (c.w[2 + i] - 1) - 1) / c.stride[i] + 1);
  return y;
}

std::vector<double> attrsOf(const Case& c) {
  std::vector<double> attrs;
  const auto list = [&](std::initializer_list<std::int64_t> values) {
    attrs.push_back(static_cast<double>(values.size()));
    for (const std::int64_t v : values) attrs.push_back(static_cast<double>(v));
  };
  list({c.stride[0], c.stride[1]});
  list({c.before[0], c.after[0], c.before[1], c.after[1]});
  list({c.dilation[0], c.dilation[1]});
  attrs.push_back(static_cast<double>(c.groups));
  return attrs;
}

// f(n, o, i, j; channel, row, column; tap along h, along w) for every product.
template <class F>
void eachProduct(const Case& c, const Dims& y, F&& f) {
  const std::int64_t perGroup = c.w[1], outputs = c.w[0] / c.groups;
  for (std::int64_t n = 0; n < y[0]; ++n)
    for (std::int64_t o = 0; o < y[1]; ++o)
      for (std::int64_t i = 0; i < y[2]; ++i)
        for (std::int64_t j = 0; j < y[3]; ++j)
          for (std::int64_t k = 0; k < perGroup; ++k)
            for (std::int64_t p = 0; p < c.w[2]; ++p)
              for (std::int64_t q = 0; q < c.w[3]; ++q) {
                const std::int64_t row = i * c.stride[0] + p * c.dilation[0] - c.before[0];
                const std::int64_t column = j * c.stride[1] + q * c.dilation[1] - c.before[1];
                if (row < 0 || column < 0 || row >= c.x[2] || column >= c.x[3]) continue;
                f(n, o, i, j, o / outputs * perGroup + k, k, row, column, p, q);
              }
}

struct Results {
  Array y, dx, dw, db;
};

Results runAll(const Level& level, int threads, const Case& c, DType t) {
  const Dims out = outputOf(c);
  std::vector<Array> in{numbers(t, c.x, 1, c.order), numbers(t, c.w, 2), numbers(t, {c.w[0]}, 3)}, y{Array::empty(t, out)};
  std::vector<double> attrs = attrsOf(c);
  std::vector<double> forward = attrs, input = attrs, weight = attrs;
  forward.push_back(1);
  input.insert(input.end(), {2, static_cast<double>(c.x[2]), static_cast<double>(c.x[3])});
  weight.insert(weight.end(), {2, static_cast<double>(c.w[2]), static_cast<double>(c.w[3]), 1});
  runOp(level, Op::conv_, in, y, forward, threads);
  std::vector<Array> back{numbers(t, out, 4, c.order), numbers(t, c.w, 2)}, dx{Array::empty(t, c.x)};
  runOp(level, Op::convInputBackward_, back, dx, input, threads);
  std::vector<Array> both{numbers(t, c.x, 1, c.order), numbers(t, out, 4, c.order)}, dw{Array::empty(t, c.w), Array::empty(t, {c.w[0]})};
  runOp(level, Op::convWeightBackward_, both, dw, weight, threads);
  return {y[0], dx[0], dw[0], dw[1]};
}

void checkClose(const std::string& what, const Array& got, const std::vector<double>& wanted, double bound) {
  double scale = 1, worst = 0;
  for (const double v : wanted) scale = std::max(scale, std::fabs(v));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double error = std::fabs(numberAt(got, static_cast<std::int64_t>(i)) - wanted[i]);
    if (!(error <= worst)) worst = error;
  }
  CHECK(worst <= bound * scale);
  if (!(worst <= bound * scale)) std::printf("  %s: off by %g of %g\n", what.c_str(), worst, scale);
}

}  // namespace

TEST(convolutions_are_their_loops) {
  for (const Case& c : kCases) {
    const Dims out = outputOf(c);
    const Array x = numbers(DType::float64, c.x, 1, c.order), w = numbers(DType::float64, c.w, 2), b = numbers(DType::float64, {c.w[0]}, 3);
    const Array dy = numbers(DType::float64, out, 4, c.order);
    const Array plainX = Array::empty(DType::float64, c.x), plainY = Array::empty(DType::float64, out);
    std::vector<double> y(static_cast<std::size_t>(plainY.view.size())), dx(static_cast<std::size_t>(plainX.view.size()));
    std::vector<double> dw(static_cast<std::size_t>(w.view.size())), db(static_cast<std::size_t>(c.w[0]));
    for (std::int64_t n = 0; n < out[0]; ++n)
      for (std::int64_t o = 0; o < out[1]; ++o)
        for (std::int64_t i = 0; i < out[2]; ++i)
          for (std::int64_t j = 0; j < out[3]; ++j) {
            y[static_cast<std::size_t>(offsetOf(plainY.view, n, o, i, j))] = numberAt(b, o);
            db[static_cast<std::size_t>(o)] += numberAt(dy, offsetOf(dy.view, n, o, i, j));
          }
    eachProduct(c, out,
                [&](std::int64_t n, std::int64_t o, std::int64_t i, std::int64_t j, std::int64_t channel, std::int64_t k, std::int64_t row,
                    std::int64_t column, std::int64_t p, std::int64_t q) {
                  const double seen = numberAt(x, offsetOf(x.view, n, channel, row, column));
                  const double slope = numberAt(dy, offsetOf(dy.view, n, o, i, j));
                  const std::int64_t at = offsetOf(w.view, o, k, p, q);
                  y[static_cast<std::size_t>(offsetOf(plainY.view, n, o, i, j))] += seen * numberAt(w, at);
                  dx[static_cast<std::size_t>(offsetOf(plainX.view, n, channel, row, column))] += slope * numberAt(w, at);
                  dw[static_cast<std::size_t>(at)] += seen * slope;
                });
    for (const DType t : {DType::float64, DType::float32, DType::bfloat16}) {
      const double bound = t == DType::float64 ? 1e-13 : t == DType::float32 ? 3e-6 : 5e-3;
      Results everywhere{};
      for (const Level& level : levels()) {
        const Results first = runAll(level, 1, c, t);
        const std::string what = std::string(c.name) + " " + level.name + " " + nameOf(t);
        checkClose(what + " y", first.y, y, bound);
        checkClose(what + " dx", first.dx, dx, bound);
        checkClose(what + " dw", first.dw, dw, bound);
        checkClose(what + " db", first.db, db, bound);
        for (const int threads : {2, 5}) {
          const Results again = runAll(level, threads, c, t);
          CHECK(again.y.bytes == first.y.bytes && again.dx.bytes == first.dx.bytes);
          CHECK(again.dw.bytes == first.dw.bytes && again.db.bytes == first.db.bytes);
        }
        // Pairs of bfloat16 numbers are multiplied at once only where the CPU can.
        if (t == DType::bfloat16) continue;
        if (level.name == levels()[0].name) everywhere = first;
        CHECK(first.y.bytes == everywhere.y.bytes && first.dx.bytes == everywhere.dx.bytes && first.dw.bytes == everywhere.dw.bytes);
      }
    }
  }
}

TEST(a_convolution_with_wrong_operands_is_refused) {
  const auto refused = [](Case c, const Dims& y, DType bias) {
    bool threw = false;
    std::vector<Array> in{numbers(DType::float32, c.x, 1), numbers(DType::float32, c.w, 2), numbers(bias, {c.w[0]}, 3)};
    std::vector<Array> out{Array::empty(DType::float32, y)};
    std::vector<double> attrs = attrsOf(c);
    attrs.push_back(1);
    try {
      runOp(levels()[0], Op::conv_, in, out, attrs, 1);
    } catch (const Error& error) {
      threw = error.code == "PROGRAM";
    }
    return threw;
  };
  const Case good = kCases[1];
  const Dims y = outputOf(good);
  CHECK(!refused(good, y, DType::float32));
  CHECK(refused(good, y, DType::bfloat16));
  CHECK(refused(good, {y[0], y[1], y[2] + 1, y[3]}, DType::float32));
  CHECK(refused(good, {y[0], y[1] + 1, y[2], y[3]}, DType::float32));
  Case bad = good;
  bad.groups = 2;
  CHECK(refused(bad, y, DType::float32));
  bad = good;
  bad.stride[0] = 0;
  CHECK(refused(bad, y, DType::float32));
  bad = good;
  bad.before[1] = -1;
  CHECK(refused(bad, y, DType::float32));
  bad = good;
  bad.dilation[1] = std::int64_t{1} << 40;
  CHECK(refused(bad, y, DType::float32));
}

TEST(pooling_is_its_loops) {
  struct Pooling {
    Dims x;
    std::int64_t size[2], stride[2], before[2], after[2], out[2];
    Dims order;
  };
  const Pooling all[] = {
      {{2, 3, 7, 40}, {3, 2}, {2, 1}, {1, 0}, {1, 1}, {4, 40}, {0, 1, 2, 3}},
      {{2, 3, 6, 5}, {2, 2}, {2, 2}, {0, 0}, {0, 0}, {3, 3}, {3, 1, 2, 0}},  // a last window that the input ends in
      {{0, 3, 6, 5}, {2, 2}, {2, 2}, {0, 0}, {0, 0}, {3, 2}, {0, 1, 2, 3}},
      {{1, 1, 1, 1}, {1, 1}, {1, 1}, {0, 0}, {0, 0}, {1, 1}, {0, 1, 2, 3}},
  };
  for (const Pooling& p : all) {
    const Dims out{p.x[0], p.x[1], p.out[0], p.out[1]};
    for (const DType t : {DType::float64, DType::float32, DType::bfloat16}) {
      const Array x = numbers(t, p.x, 1, p.order), dy = numbers(t, out, 2, p.order);
      const Array plainX = Array::empty(t, p.x), plainY = Array::empty(t, out);
      std::vector<double> largest, mean, dLargest(static_cast<std::size_t>(plainX.view.size())), dMean = dLargest;
      for (std::int64_t n = 0; n < out[0]; ++n)
        for (std::int64_t c = 0; c < out[1]; ++c)
          for (std::int64_t i = 0; i < out[2]; ++i)
            for (std::int64_t j = 0; j < out[3]; ++j) {
              const std::int64_t top = i * p.stride[0] - p.before[0], left = j * p.stride[1] - p.before[1];
              const std::int64_t bottom = std::min(top + p.size[0], p.x[2] + p.after[0]);
              const std::int64_t right = std::min(left + p.size[1], p.x[3] + p.after[1]);
              const double places = static_cast<double>((bottom - top) * (right - left));
              double best = -std::numeric_limits<double>::infinity(), total = 0;
              std::int64_t bestAt = 0;
              const double slope = numberAt(dy, offsetOf(dy.view, n, c, i, j));
              for (std::int64_t a = std::max<std::int64_t>(top, 0); a < std::min(bottom, p.x[2]); ++a)
                for (std::int64_t b = std::max<std::int64_t>(left, 0); b < std::min(right, p.x[3]); ++b) {
                  const double v = numberAt(x, offsetOf(x.view, n, c, a, b));
                  if (v > best) best = v, bestAt = offsetOf(plainX.view, n, c, a, b);
                  total += v;
                  dMean[static_cast<std::size_t>(offsetOf(plainX.view, n, c, a, b))] += slope / places;
                }
              largest.push_back(best);
              mean.push_back(total / places);
              dLargest[static_cast<std::size_t>(bestAt)] += slope;
            }
      std::vector<double> geometry;
      const auto list = [&](std::initializer_list<std::int64_t> values) {
        geometry.push_back(static_cast<double>(values.size()));
        for (const std::int64_t v : values) geometry.push_back(static_cast<double>(v));
      };
      list({p.size[0], p.size[1]});
      list({p.stride[0], p.stride[1]});
      list({p.before[0], p.after[0], p.before[1], p.after[1]});
      std::vector<double> max = geometry, average = geometry, averageBack = geometry;
      max.insert(max.end(), {2, 1, 1, 2, static_cast<double>(p.out[0]), static_cast<double>(p.out[1])});
      average.insert(average.end(), {2, static_cast<double>(p.out[0]), static_cast<double>(p.out[1]), 1});
      averageBack.insert(averageBack.end(), {2, static_cast<double>(p.x[2]), static_cast<double>(p.x[3]), 1});
      const double bound = t == DType::float64 ? 1e-13 : t == DType::float32 ? 1e-6 : 5e-3;
      std::vector<std::byte> first;
      atAllLevels([&](const Level& level, int threads) {
        std::vector<Array> in{numbers(t, p.x, 1, p.order)}, y{Array::empty(t, out), Array::empty(DType::int32, out)};
        runOp(level, Op::maxPool_, in, y, max, threads);
        std::vector<Array> back{numbers(t, out, 2, p.order), y[1]}, dx{Array::empty(t, p.x)};
        runOp(level, Op::maxPoolBackward_, back, dx, {2, static_cast<double>(p.x[2]), static_cast<double>(p.x[3])}, threads);
        std::vector<Array> m{Array::empty(t, out)}, slopes{numbers(t, out, 2, p.order)}, dm{Array::empty(t, p.x)};
        runOp(level, Op::avgPool_, in, m, average, threads);
        runOp(level, Op::avgPoolBackward_, slopes, dm, averageBack, threads);
        checkClose("max", y[0], largest, 0);
        checkClose("max, gradient", dx[0], dLargest, bound);
        checkClose("mean", m[0], mean, bound);
        checkClose("mean, gradient", dm[0], dMean, bound);
        std::vector<std::byte> bits;
        for (const Array* a : {&y[0], &y[1], &dx[0], &m[0], &dm[0]}) bits.insert(bits.end(), a->bytes.begin(), a->bytes.end());
        if (first.empty()) first = bits;
        CHECK(bits == first);
      });
    }
  }
}

TEST(the_gradient_of_a_maximum_stays_in_its_plane) {
  std::vector<Array> in{Array::of<float>(DType::float32, {1, 1, 1, 3}, {1, 2, 4}),
                        Array::of<std::int32_t>(DType::int32, {1, 1, 1, 3}, {1, -1, 4})};
  std::vector<Array> out{Array::empty(DType::float32, {1, 1, 2, 2})};
  runOp(levels()[0], Op::maxPoolBackward_, in, out, {2, 2, 2}, 1);
  CHECK(out[0].holds<float>({0, 1, 0, 0}));
}
