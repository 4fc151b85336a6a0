// The random kernels against the scalar definition of their counters, bit for bit at every level and for any threads.
#include <cmath>
#include <string>

#include "check.h"
#include "run_op.h"
#include "runtime/philox.h"

using namespace steepest;

namespace {

constexpr PhiloxKey kKey{0x12345678u, 0x9abcdef0u};
constexpr std::uint32_t kSite = 7;

std::vector<double> randomAttrs(int kind, const std::vector<std::int64_t>& shape, DType dtype, double a, double b, bool ids) {
  std::vector<double> words{static_cast<double>(kind), static_cast<double>(shape.size())};
  for (const auto d : shape) words.push_back(static_cast<double>(d));
  for (const double x : {static_cast<double>(dtype), a, b, static_cast<double>(kSite), ids ? 1.0 : 0.0}) words.push_back(x);
  return words;
}

Array oneKey(PhiloxKey k = kKey) { return Array::of<std::uint32_t>(DType::int32, {2}, {k.k0, k.k1}); }

Array draw(const Level& level, int threads, int kind, const std::vector<std::int64_t>& shape, DType dtype, double a = 0, double b = 1) {
  std::vector<Array> in{oneKey()}, out{Array::empty(dtype, shape)};
  CHECK(runOp(level, Op::random_, in, out, randomAttrs(kind, shape, dtype, a, b, false), threads) == 0);
  return out[0];
}

const std::vector<std::vector<std::int64_t>> kShapes{{}, {0}, {1}, {63}, {3, 0, 2}, {5, 13}, {8192}, {8193}, {3, 9001}};

}  // namespace

TEST(random_words_are_those_of_the_definition) {
  atAllLevels([](const Level& level, int threads) {
    for (const auto& shape : kShapes) {
      const Array bits = draw(level, threads, 0, shape, DType::int32);
      const Array u = draw(level, threads, 1, shape, DType::float32), wide = draw(level, threads, 1, shape, DType::float64);
      const Array below = draw(level, threads, 4, shape, DType::int32, -5, 1000);
      const Array whole = draw(level, threads, 4, shape, DType::int32, -0x1p31, 0x1p31);
      bool fine = true;
      for (std::int64_t i = 0; i < bits.view.size(); ++i) {
        const auto n = static_cast<std::uint64_t>(i);
        const std::uint32_t w = philoxBits(kKey, n, 0, kSite, Stream::draw);
        const std::uint64_t ww = philoxBits64(kKey, n, 0, kSite, Stream::draw);
        fine &= bits.as<std::uint32_t>()[i] == w && u.as<float>()[i] == uniform01(w) && wide.as<double>()[i] == uniform01(ww);
        fine &= below.as<std::int32_t>()[i] == static_cast<std::int32_t>(philoxBelow(ww, 1005)) - 5;
        fine &= static_cast<std::uint32_t>(whole.as<std::int32_t>()[i]) == static_cast<std::uint32_t>(ww >> 32) + 0x80000000u;
      }
      CHECK(fine);
    }
  });
}

TEST(random_examples_keep_their_numbers_in_any_batch) {
  const std::vector<std::int64_t> shape{3, 77};
  atAllLevels([&](const Level& level, int threads) {
    std::vector<Array> in{oneKey(), Array::of<std::int32_t>(DType::int32, {3}, {900, 4, 31})}, out{Array::empty(DType::int32, shape)};
    CHECK(runOp(level, Op::random_, in, out, randomAttrs(0, shape, DType::int32, 0, 1, true), threads) == 0);
    bool fine = true;
    const std::uint32_t ids[] = {900, 4, 31};
    for (std::uint64_t e = 0; e < 3; ++e) {
      for (std::uint64_t i = 0; i < 77; ++i)
        fine &= out[0].as<std::uint32_t>()[e * 77 + i] == philoxBits(kKey, i, ids[e], kSite, Stream::draw);
    }
    CHECK(fine);
  });
}

// Against libm in long double, from the same words; the bounds are in units of the last place of float32 (float64).
TEST(random_normal_and_exponential_are_exact_functions_of_their_words) {
  constexpr std::int64_t n = 100000;
  const std::vector<Level> all = levels();
  const Array first = draw(all[0], 1, 2, {n}, DType::float32, 0, 1), firstWide = draw(all[0], 1, 2, {n}, DType::float64, 0, 1);
  atAllLevels([&](const Level& level, int threads) {
    CHECK(draw(level, threads, 2, {n}, DType::float32, 0, 1).bytes == first.bytes);
    CHECK(draw(level, threads, 2, {n}, DType::float64, 0, 1).bytes == firstWide.bytes);
    CHECK(draw(level, threads, 2, {n}, DType::bfloat16, 0, 1).bytes == draw(all[0], 1, 2, {n}, DType::bfloat16, 0, 1).bytes);
    CHECK(draw(level, threads, 3, {n}, DType::float64).bytes == draw(all[0], 1, 3, {n}, DType::float64).bytes);
  });
  const Array e = draw(all[0], 1, 3, {n}, DType::float32), eWide = draw(all[0], 1, 3, {n}, DType::float64);
  double worst = 0, worstWide = 0, worstE = 0, worstEWide = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::uint64_t>(i);
    {
      const PhiloxBlock block = philox(kKey, at / 64 * 16 + at % 16, 0, kSite, Stream::draw);
      const std::uint64_t p = at / 16 % 4;
      const long double u = (block.w[p / 2 * 2] + 0.5L) * 0x1p-32L, t = static_cast<std::int32_t>(block.w[p / 2 * 2 + 1]) * 0x1p-32L;
      const long double r = std::sqrt(-2 * std::log(u)), angle = 2 * M_PIl * t, expect = p % 2 ? r * std::sin(angle) : r * std::cos(angle);
      worst = std::max(worst, std::fabs(static_cast<double>(first.as<float>()[i] - expect)) / std::max(1.0, static_cast<double>(r)));
      const long double mine = -std::log((block.w[p] + 0.5L) * 0x1p-32L);
      worstE = std::max(worstE, std::fabs(static_cast<double>(e.as<float>()[i] / mine - 1)));
    }
    const PhiloxBlock block = philox(kKey, at / 32 * 16 + at % 16, 0, kSite, Stream::draw);
    const auto word = [&](int k) { return static_cast<std::uint64_t>(block.w[k]) << 32 | block.w[k + 1]; };
    const std::uint64_t p = at / 16 % 2;
    const long double u = (word(0) + 0.5L) * 0x1p-64L, t = static_cast<std::int64_t>(word(2) ^ 1ull << 63) * 0x1p-64L;
    const long double r = std::sqrt(-2 * std::log(u)), angle = 2 * M_PIl * t, expect = p ? r * std::sin(angle) : r * std::cos(angle);
    worstWide = std::max(worstWide, std::fabs(static_cast<double>(firstWide.as<double>()[i] - expect)));
    // Half a unit is lost beside a 64-bit word: the upper half is taken from its other end.
    const std::uint64_t own = word(static_cast<int>(2 * p));
    const long double mine = own >> 63 ? -std::log1p(-(~own + 0.5L) * 0x1p-64L) : -std::log((own + 0.5L) * 0x1p-64L);
    worstEWide = std::max(worstEWide, std::fabs(static_cast<double>(eWide.as<double>()[i] / mine - 1)));
  }
  CHECK_NEAR(worst, 0, 4e-7);
  CHECK_NEAR(worstE, 0, 4e-7);
  CHECK_NEAR(worstWide, 0, 2e-15);
  CHECK_NEAR(worstEWide, 0, 1e-15);
}

TEST(random_uniform_stays_below_its_upper_end) {
  for (const Level& level : levels()) {
    const Array f = draw(level, 1, 1, {200000}, DType::float32, 1, 1 + 0x1p-20), d = draw(level, 1, 1, {200000}, DType::float64, -3, -2);
    const Array h = draw(level, 1, 1, {20000}, DType::bfloat16, -1, 1);
    bool fine = true;
    for (int i = 0; i < 200000; ++i)
      fine &= f.as<float>()[i] >= 1 && f.as<float>()[i] < 1 + 0x1p-20f && d.as<double>()[i] >= -3 && d.as<double>()[i] < -2;
    for (int i = 0; i < 20000; ++i) fine &= h.as<std::uint16_t>()[i] != 0x3f80 && (h.as<std::uint16_t>()[i] & 0x7fff) <= 0x3f80;
    CHECK(fine);
  }
}

TEST(random_keys) {
  atAllLevels([](const Level& level, int threads) {
    std::vector<Array> in{oneKey()}, out{Array::empty(DType::int32, {2500, 2})};
    runOp(level, Op::splitKey_, in, out, {2500}, threads);
    bool fine = true;
    for (std::uint64_t i = 0; i < 2500; ++i) {
      const PhiloxBlock b = philox(kKey, i, 0, 0, Stream::split);
      fine &= out[0].as<std::uint32_t>()[2 * i] == b.w[0] && out[0].as<std::uint32_t>()[2 * i + 1] == b.w[1];
    }
    in = {oneKey(), Array::of<std::int32_t>(DType::int32, {}, {-3})};
    out = {Array::empty(DType::int32, {2})};
    runOp(level, Op::foldKey_, in, out, {}, threads);
    const PhiloxBlock b = philox(kKey, 0xfffffffdu, 0, 0, Stream::fold);
    fine &= out[0].as<std::uint32_t>()[0] == b.w[0] && out[0].as<std::uint32_t>()[1] == b.w[1];
    CHECK(fine);
  });
}

namespace {
template <class T>
void dropoutCase(const Level& level, int threads, DType dtype, const std::vector<T>& values, double p, T zero, T (*scaled)(T, double)) {
  const auto n = static_cast<std::int64_t>(values.size());
  std::vector<Array> in{Array::of(dtype, {n}, values), oneKey()}, out{Array::empty(dtype, {n})};
  runOp(level, Op::dropout_, in, out, {p, kSite, 0}, threads);
  bool fine = true;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool keep = philoxBits(kKey, static_cast<std::uint64_t>(i), 0, kSite, Stream::dropout) < philoxThreshold(1 - p);
    const T expect = keep ? scaled(values[static_cast<std::size_t>(i)], p < 1 ? 1 / (1 - p) : 0) : zero;
    fine &= std::memcmp(&expect, out[0].as<T>() + i, sizeof(T)) == 0;
  }
  CHECK(fine);
}
}  // namespace

TEST(dropout_masks) {
  atAllLevels([](const Level& level, int threads) {
    for (const double p : {0.0, 0.1, 0.5, 0.999, 1.0}) {
      for (const std::size_t n : {0u, 1u, 15u, 100u, 9000u}) {
        std::vector<float> f(n);
        std::vector<double> d(n);
        std::vector<std::uint16_t> h(n);
        for (std::size_t i = 0; i < n; ++i) {
          f[i] = static_cast<float>(i) - 3.5f;
          d[i] = static_cast<double>(i) + 0.25;
          h[i] = static_cast<std::uint16_t>(0x3f80 + i % 7);
        }
        dropoutCase<float>(level, threads, DType::float32, f, p, 0.0f, [](float x, double s) { return x * static_cast<float>(s); });
        dropoutCase<double>(level, threads, DType::float64, d, p, 0.0, [](double x, double s) { return x * s; });
        if (p == 0.5) {
          // Doubling only moves the exponent.
          dropoutCase<std::uint16_t>(level, threads, DType::bfloat16, h, p, 0,
                                     [](std::uint16_t x, double) { return static_cast<std::uint16_t>(x + 0x80); });
        }
      }
    }
  });
}

TEST(categorical_is_the_largest_of_logit_plus_noise) {
  for (const std::int64_t n : {1, 2, 17, 64, 130}) {
    const std::int64_t rows = 37;
    std::vector<float> logits(static_cast<std::size_t>(rows * n));
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = i % 5 == 3 && n > 5 ? -INFINITY : std::sin(static_cast<float>(i));
    std::vector<std::int32_t> expect;
    for (std::int64_t r = 0; r < rows; ++r) {
      long double best = -INFINITY;
      std::int32_t where = -1;
      for (std::int64_t j = 0; j < n; ++j) {
        const auto i = static_cast<std::uint64_t>(r * n + j);
        const long double y = logits[i] - std::log(-std::log((philoxBits(kKey, i, 0, kSite, Stream::draw) + 0.5L) * 0x1p-32L));
        if (y > best) {
          best = y;
          where = static_cast<std::int32_t>(j);
        }
      }
      expect.push_back(where);
    }
    const std::vector<double> wide(logits.begin(), logits.end());
    atAllLevels([&](const Level& level, int threads) {
      for (const bool f64 : {false, true}) {
        std::vector<Array> in{f64 ? Array::of(DType::float64, {rows, n}, wide) : Array::of(DType::float32, {rows, n}, logits), oneKey()};
        std::vector<Array> out{Array::empty(DType::int32, {rows})};
        CHECK(runOp(level, Op::categorical_, in, out, {kSite, 0}, threads) == 0);
        CHECK(out[0].holds(expect));
      }
    });
  }
  for (const float nothing : {-INFINITY, NAN}) {
    std::vector<Array> in{Array::of<float>(DType::float32, {1, 3}, {nothing, nothing, nothing}), oneKey()},
        out{Array::empty(DType::int32, {1})};
    CHECK(runOp(levels()[0], Op::categorical_, in, out, {kSite, 0}, 1) == 1);
    CHECK(out[0].as<std::int32_t>()[0] == 0);
  }
}

TEST(random_programs_are_checked) {
  const Level level = levels()[0];
  const auto refused = [&](Op op, std::vector<Array> in, std::vector<Array> out, const std::vector<double>& attrs) {
    try {
      runOp(level, op, in, out, attrs, 1);
    } catch (const Error& error) {
      return error.code == "PROGRAM";
    }
    return false;
  };
  const Array f = Array::empty(DType::float32, {4}), key = oneKey(), i32 = Array::empty(DType::int32, {4});
  CHECK(refused(Op::random_, {key}, {f}, randomAttrs(1, {5}, DType::float32, 0, 1, false)));
  CHECK(refused(Op::random_, {key}, {f}, randomAttrs(1, {4}, DType::float64, 0, 1, false)));
  CHECK(refused(Op::random_, {i32}, {f}, randomAttrs(1, {4}, DType::float32, 0, 1, false)));
  CHECK(refused(Op::random_, {key}, {i32}, randomAttrs(4, {4}, DType::int32, 3, 3, false)));
  CHECK(refused(Op::random_, {key, oneKey()}, {f}, randomAttrs(1, {4}, DType::float32, 0, 1, true)));
  CHECK(refused(Op::dropout_, {f, key}, {Array::empty(DType::float32, {5})}, {0.5, 0, 0}));
  CHECK(refused(Op::dropout_, {f, key}, {f}, {1.5, 0, 0}));
  CHECK(refused(Op::categorical_, {f, key}, {i32}, {0, 0}));
  CHECK(refused(Op::splitKey_, {key}, {i32}, {2}));
  CHECK(refused(Op::foldKey_, {key, i32}, {key}, {}));
}
