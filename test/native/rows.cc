// Softmax, norms, losses, attention and rotary positions: the same bits for any number of threads (and, where no library computes, at every
// level), and float32 and bfloat16 within a bound of the float64 kernel, which the tests of lib/ops hold against formulas.
#include <bit>
#include <cmath>
#include <random>
#include <string>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {

using Dims = std::vector<std::int64_t>;

Array floats(DType dtype, const Dims& shape, unsigned seed) {
  Array a = Array::empty(dtype, shape);
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (std::int64_t i = 0; i < a.view.size(); ++i) {
    // A bfloat16 number in every dtype, so that all compute the same thing.
    const auto high = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(static_cast<float>(uniform(random))) >> 16);
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(high) << 16);
    if (dtype == DType::float64)
      reinterpret_cast<double*>(a.bytes.data())[i] = x;
    else if (dtype == DType::float32)
      reinterpret_cast<float*>(a.bytes.data())[i] = x;
    else
      reinterpret_cast<std::uint16_t*>(a.bytes.data())[i] = high;
  }
  return a;
}

Array labels(const Dims& shape, int classes) {
  Array a = Array::empty(DType::int32, shape);
  for (std::int64_t i = 0; i < a.view.size(); ++i)
    reinterpret_cast<std::int32_t*>(a.bytes.data())[i] = i % 5 == 4 ? -100 : static_cast<int>(i * 7 + 3) % classes;
  return a;
}

double number(const Array& a, std::int64_t i) {
  switch (a.view.dtype) {
    case DType::float64:
      return a.as<double>()[i];
    case DType::float32:
      return a.as<float>()[i];
    default:
      return std::bit_cast<float>(static_cast<std::uint32_t>(a.as<std::uint16_t>()[i]) << 16);
  }
}

void checkClose(const char* what, const Array& got, const Array& wanted, double bound) {
  double scale = 1, worst = 0;
  for (std::int64_t i = 0; i < wanted.view.size(); ++i)
    scale = std::max(scale, std::isfinite(number(wanted, i)) ? std::fabs(number(wanted, i)) : 1);
  for (std::int64_t i = 0; i < wanted.view.size(); ++i) {
    const double error = std::fabs(number(got, i) - number(wanted, i));
    if (!(error <= worst) && !(number(got, i) == number(wanted, i))) worst = error;
  }
  CHECK(worst <= bound * scale);
  if (!(worst <= bound * scale)) std::printf("  %s: off by %g of %g\n", what, worst, scale);
}

DType wideOf(DType t) { return t == DType::float64 ? DType::float64 : DType::float32; }

// A forward kernel and its backward one on operands of a dtype; gives all outputs.
using Case = std::vector<Array> (*)(const Level&, int threads, DType);

void checkCase(const char* name, Case run, bool bitsAtEveryLevel, double narrowBound) {
  const std::vector<Level> all = levels();
  const std::vector<Array> exact = run(all[0], 1, DType::float64);
  for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16}) {
    std::vector<Array> first;
    for (const Level& level : all) {
      if (first.empty() || !bitsAtEveryLevel) first = run(level, 1, dtype);
      const double bound = dtype == DType::float64 ? 1e-12 : dtype == DType::float32 ? 4e-6 : narrowBound;
      for (const int threads : {1, 2, 5}) {
        const std::vector<Array> got = run(level, threads, dtype);
        for (std::size_t i = 0; i < got.size(); ++i) {
          CHECK(got[i].bytes == first[i].bytes);
          if (got[i].bytes != first[i].bytes)
            std::printf("  %s: bits of output %zu differ at %s with %d threads\n", name, i, level.name, threads);
          if (threads == 1)
            checkClose((std::string(name) + " " + level.name + " " + nameOf(dtype) + " output " + std::to_string(i)).c_str(), got[i],
                       exact[i], bound);
        }
      }
    }
  }
}

void add(std::vector<Array>& to, std::vector<Array>& from) {
  for (Array& a : from) to.push_back(std::move(a));
}

std::vector<Array> softmaxCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  for (const double log : {0.0, 1.0}) {
    for (const Dims& shape : {Dims{3, 1}, Dims{70, 1000}, Dims{5, 0}, Dims{33}}) {
      std::vector<Array> in{floats(t, shape, 1)}, y{Array::empty(t, shape)}, dx{Array::empty(t, shape)};
      runOp(level, Op::softmax_, in, y, {log}, threads);
      std::vector<Array> back{floats(t, shape, 3), floats(t, shape, 2)};
      runOp(level, Op::softmaxBackward_, back, dx, {log}, threads);
      add(all, y);
      add(all, dx);
    }
  }
  return all;
}

template <bool Centered>
std::vector<Array> normCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  const DType s = wideOf(t);
  for (const Dims& shape : {Dims{100, 37}, Dims{1, 1}, Dims{0, 5}, Dims{513, 64}}) {
    const Dims rows{shape[0]}, columns{shape[1]};
    std::vector<Array> in{floats(t, shape, 1), floats(t, columns, 2)}, y{Array::empty(t, shape)};
    if (Centered) in.push_back(floats(t, columns, 3)), y.push_back(Array::empty(s, rows));
    y.push_back(Array::empty(s, rows));
    runOp(level, Centered ? Op::layerNorm_ : Op::rmsNorm_, in, y, {1, 1e-5, 1, Centered}, threads);
    // The statistics are those of float64: an error of the forward kernel is not to count twice.
    std::vector<Array> back{floats(t, shape, 1), floats(t, shape, 4), floats(s, rows, 5)};
    if (Centered) back.push_back(floats(s, rows, 6));
    back.push_back(floats(t, columns, 2));
    std::vector<Array> dx{Array::empty(t, shape), Array::empty(t, columns)};
    if (Centered) dx.push_back(Array::empty(t, columns));
    runOp(level, Centered ? Op::layerNormBackward_ : Op::rmsNormBackward_, back, dx, {1, 1e-5, 1, 1, 1, Centered, 0}, threads);
    add(all, y);
    add(all, dx);
  }
  return all;
}

std::vector<Array> groupNormCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  const DType s = wideOf(t);
  for (const Dims& shape : {Dims{9, 6, 37}, Dims{1, 3, 1}, Dims{0, 6, 5}, Dims{40, 12, 9, 5}}) {
    const Dims stats{shape[0], 3}, channels{shape[1]};
    std::vector<Array> in{floats(t, shape, 1), floats(t, channels, 2), floats(t, channels, 3)};
    std::vector<Array> y{Array::empty(t, shape), Array::empty(s, stats), Array::empty(s, stats)};
    runOp(level, Op::groupNorm_, in, y, {3, 1e-5, 1, 1}, threads);
    std::vector<Array> back{floats(t, shape, 1), floats(t, shape, 4), floats(s, stats, 5), floats(s, stats, 6), floats(t, channels, 2)};
    std::vector<Array> dx{Array::empty(t, shape), Array::empty(t, channels), Array::empty(t, channels)};
    runOp(level, Op::groupNormBackward_, back, dx, {3, 1e-5, 1, 1, 1, 1, 0}, threads);
    if (shape[2] > 1) add(all, y);
    add(all, dx);
  }
  return all;
}

std::vector<Array> crossEntropyCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  const DType s = wideOf(t);
  for (const Dims& shape : {Dims{50, 777}, Dims{3, 1}, Dims{0, 5}}) {
    const Dims rows{shape[0]};
    const Array y = labels(rows, static_cast<int>(shape[1]));
    std::vector<Array> in{floats(t, shape, 1), y}, loss{Array::empty(s, rows), Array::empty(s, rows)};
    CHECK(runOp(level, Op::crossEntropy_, in, loss, {-100, 0.1, 2, 0.01}, threads) == 0);
    std::vector<Array> back{floats(t, shape, 1), y, floats(s, rows, 5), floats(s, rows, 6)}, dx{Array::empty(t, shape)};
    runOp(level, Op::crossEntropyBackward_, back, dx, {-100, 0.1, 2, 0.01}, threads);
    add(all, loss);
    add(all, dx);
  }
  return all;
}

std::vector<Array> linearCrossEntropyCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  const DType s = wideOf(t);
  // Rows, width, classes: the last has several chunks of rows.
  for (const Dims& d : {Dims{50, 33, 777}, Dims{1, 1, 1}, Dims{0, 3, 5}, Dims{2100, 8, 600}}) {
    const Dims x{d[0], d[1]}, w{d[2], d[1]}, rows{d[0]}, bias{d[2]};
    const Array y = labels(rows, static_cast<int>(d[2]));
    std::vector<Array> in{floats(t, x, 1), floats(t, w, 2), y, floats(t, bias, 3)}, loss{Array::empty(s, rows), Array::empty(s, rows)};
    CHECK(runOp(level, Op::linearCrossEntropy_, in, loss, {-100, 0.1, 2, 0.01, 1}, threads) == 0);
    std::vector<Array> back{floats(t, x, 1), floats(t, w, 2), y, floats(s, rows, 5), floats(s, rows, 6), floats(t, bias, 3)};
    std::vector<Array> dx{Array::empty(t, x), Array::empty(t, w), Array::empty(t, bias)};
    runOp(level, Op::linearCrossEntropyBackward_, back, dx, {-100, 0.1, 2, 0.01, 1, 1, 1, 1}, threads);
    add(all, loss);
    add(all, dx);
    // The same together, losses first.
    std::vector<Array> whole{floats(t, x, 1), floats(t, w, 2), y, floats(s, rows, 6), floats(t, bias, 3)};
    std::vector<Array> both{Array::empty(s, rows), Array::empty(s, rows), Array::empty(t, x), Array::empty(t, w), Array::empty(t, bias)};
    CHECK(runOp(level, Op::linearCrossEntropyWithGradients_, whole, both, {-100, 0.1, 2, 0.01, 1, 1, 1, 1}, threads) == 0);
    add(all, both);
  }
  return all;
}

// Batch, queries, keys, heads, heads of keys, depth.
std::vector<Array> attentionCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  const DType s = wideOf(t);
  for (const Dims& d :
       {Dims{2, 70, 90, 4, 2, 20}, Dims{1, 300, 700, 2, 1, 33}, Dims{1, 1, 1, 1, 1, 1}, Dims{1, 0, 3, 2, 2, 4}, Dims{2, 3, 0, 2, 2, 4}}) {
    const Dims q{d[0], d[1], d[3], d[5]}, k{d[0], d[2], d[4], d[5]}, rows{d[0], d[3], d[1]}, bias{1, d[3], d[1], d[2]};
    const Array key = Array::of<std::int32_t>(DType::int32, {2}, {11, 12});
    // causal, segments, keyMask, bias, dropout, ids, left, right, scale, softCap, rate, site, examples
    const std::vector<double> attrs{1, 0, 0, 1, 1, 0, 400, -1, 0.4, 3, 0.2, 1, 2};
    std::vector<Array> in{floats(t, q, 1), floats(t, k, 2), floats(t, k, 3), floats(t, bias, 4), key};
    std::vector<Array> y{Array::empty(t, q), Array::empty(s, rows)};
    runOp(level, Op::attention_, in, y, attrs, threads);
    // The backward kernels get the float64 kernel's output and log-sum-exp, rounded.
    std::vector<Array> exactIn{floats(DType::float64, q, 1), floats(DType::float64, k, 2), floats(DType::float64, k, 3),
                               floats(DType::float64, bias, 4), key};
    std::vector<Array> exact{Array::empty(DType::float64, q), Array::empty(DType::float64, rows)};
    runOp(level, Op::attention_, exactIn, exact, attrs, threads);
    Array lse = Array::empty(s, rows);
    for (std::int64_t i = 0; i < lse.view.size(); ++i) {
      if (s == DType::float64)
        reinterpret_cast<double*>(lse.bytes.data())[i] = exact[1].as<double>()[i];
      else
        reinterpret_cast<float*>(lse.bytes.data())[i] = static_cast<float>(exact[1].as<double>()[i]);
    }
    std::vector<Array> back{floats(t, q, 1), floats(t, k, 2), floats(t, k, 3), y[0], lse, floats(t, q, 6), floats(t, bias, 4), key};
    std::vector<Array> dx{Array::empty(t, q), Array::empty(t, k), Array::empty(t, k)}, dbias{Array::empty(t, bias)};
    runOp(level, Op::attentionBackward_, back, dx, attrs, threads);
    runOp(level, Op::attentionBiasBackward_, back, dbias, attrs, threads);
    add(all, y);
    add(all, dx);
    add(all, dbias);
  }
  return all;
}

std::vector<Array> rotaryCase(const Level& level, int threads, DType t) {
  std::vector<Array> all;
  for (const double interleaved : {0.0, 1.0}) {
    const Dims shape{2, 37, 3, 45};
    std::vector<double> attrs{20};
    for (int i = 0; i < 20; ++i) attrs.push_back(std::pow(10000.0, -i / 20.0));
    for (const double x : {interleaved, 1.0, 5.0, 0.0}) attrs.push_back(x);
    std::vector<Array> in{floats(t, shape, 1)}, y{Array::empty(t, shape)};
    runOp(level, Op::rotary_, in, y, attrs, threads);
    add(all, y);
  }
  return all;
}

constexpr double kNarrow = 0x1p-7;

}  // namespace

TEST(rows_softmax) { checkCase("softmax", softmaxCase, true, kNarrow); }
TEST(rows_layerNorm) { checkCase("layerNorm", normCase<true>, true, kNarrow); }
TEST(rows_rmsNorm) { checkCase("rmsNorm", normCase<false>, true, kNarrow); }
TEST(rows_groupNorm) { checkCase("groupNorm", groupNormCase, true, kNarrow); }
TEST(rows_crossEntropy) { checkCase("crossEntropy", crossEntropyCase, true, kNarrow); }
TEST(rows_linearCrossEntropy) { checkCase("linearCrossEntropy", linearCrossEntropyCase, false, kNarrow); }
TEST(rows_attention) { checkCase("attention", attentionCase, true, 2 * kNarrow); }
TEST(rows_rotary) { checkCase("rotary", rotaryCase, true, kNarrow); }
