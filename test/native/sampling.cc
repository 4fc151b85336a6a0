// Rows that stand for all: norms, the choice against a plain sort, and the same bits at every level and for any number of threads.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.h"
#include "run_op.h"

using namespace steepest;

namespace {
constexpr double kWinners = 0, kCrs = 1, kTopK = 2, kSystematic = 0, kReplacement = 1;

double noise(std::int64_t i) {
  return std::sin(12.9898 * static_cast<double>(i + 1)) * 43758.5453 -
         std::floor(std::sin(12.9898 * static_cast<double>(i + 1)) * 43758.5453);
}

// How many rows are certain, by the rule on sorted probabilities.
std::int64_t scan(std::vector<double> p, std::int64_t k) {
  std::sort(p.rbegin(), p.rend());
  double rest = std::accumulate(p.begin(), p.end(), 0.0);
  std::int64_t c = 0;
  while (c < k - 1 && p[static_cast<std::size_t>(c)] > rest / static_cast<double>(k - c)) rest -= p[static_cast<std::size_t>(c++)];
  return c;
}

std::vector<Array> outputs(std::int64_t sets, std::int64_t n, std::int64_t k) {
  return {Array::empty(DType::int32, {sets, k}), Array::empty(DType::float64, {sets, k}), Array::empty(DType::float64, {sets, n})};
}
}  // namespace

TEST(sample_rows_follow_the_scan_rule_at_every_level) {
  for (const std::int64_t n : {1, 2, 7, 8, 9, 31, 256, 1000}) {
    for (const double spread : {0.0, 0.5, 2.0}) {
      const std::int64_t sets = 3, k = std::max<std::int64_t>(1, n * 3 / 10);
      std::vector<double> norms(static_cast<std::size_t>(sets * n));
      for (std::size_t i = 0; i < norms.size(); ++i) norms[i] = std::exp(spread * (noise(static_cast<std::int64_t>(i)) * 4 - 2));
      for (const double draw : {kSystematic, kReplacement}) {
        std::vector<std::byte> first;
        atAllLevels([&](const Level& level, int threads) {
          std::vector<Array> in{Array::of(DType::float64, {sets, n}, norms), Array::of<std::int32_t>(DType::int32, {2}, {5, -7})};
          std::vector<Array> out = outputs(sets, n, k);
          CHECK(runOp(level, Op::sampleRows_, in, out, {static_cast<double>(k), kWinners, draw, 4, 0, 0}, threads) == 0);
          std::vector<std::byte> all;
          for (const Array& a : out) all.insert(all.end(), a.bytes.begin(), a.bytes.end());
          if (first.empty()) first = all;
          CHECK(all == first);
          for (std::int64_t set = 0; set < sets; ++set) {
            const double* p = norms.data() + set * n;
            const double* inverse = out[2].as<double>() + set * n;
            const std::int32_t* indices = out[0].as<std::int32_t>() + set * k;
            const double* weights = out[1].as<double>() + set * k;
            std::int64_t certain = 0;
            double expected = 0;
            for (std::int64_t i = 0; i < n; ++i) {
              certain += inverse[i] == 0;
              if (inverse[i] != 0) expected += 1 / inverse[i];
            }
            CHECK(certain == scan({p, p + n}, k));
            CHECK_NEAR(expected, static_cast<double>(k - certain), 1e-9);
            for (std::int64_t j = 0; j < k; ++j) {
              CHECK(indices[j] >= 0 && indices[j] < n && (j == 0 || indices[j] >= indices[j - 1]));
              CHECK(weights[j] == (inverse[indices[j]] == 0 ? 1 : inverse[indices[j]]));
              if (draw == kSystematic) CHECK(j == 0 || indices[j] > indices[j - 1]);
            }
          }
        });
      }
    }
  }
}

TEST(sample_rows_take_what_no_row_should_be) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const auto run = [&](std::vector<double> norms, std::int64_t k, double method) {
    const auto n = static_cast<std::int64_t>(norms.size());
    std::vector<Array> in{Array::of(DType::float64, {1, n}, norms), Array::of<std::int32_t>(DType::int32, {2}, {1, 2})};
    std::vector<Array> out = outputs(1, n, k);
    CHECK(runOp(levels().front(), Op::sampleRows_, in, out, {static_cast<double>(k), method, kSystematic, 0, 0, 0}, 1) == 0);
    std::vector<std::int32_t> indices(out[0].as<std::int32_t>(), out[0].as<std::int32_t>() + k);
    std::vector<double> weights(out[1].as<double>(), out[1].as<double>() + k);
    return std::pair(indices, weights);
  };
  // Fewer rows than places: what is left over counts nothing.
  const auto [few, weights] = run({0, 3, 0, 1, 0}, 4, kWinners);
  CHECK(few[0] == 1 && few[1] == 3 && weights[0] == 1 && weights[1] == 1 && weights[2] == 0 && weights[3] == 0);
  // Nothing known: all rows are alike.
  const auto [alike, counts] = run({0, 0, 0, 0}, 2, kWinners);
  CHECK(alike[0] != alike[1] && counts[0] == 2 && counts[1] == 2);
  // Rows that are not numbers are never drawn; one that is infinite is certain.
  const auto [odd, one] = run({1, nan, inf, 1, -5}, 2, kWinners);
  CHECK(odd[1] == 2 || odd[0] == 2);
  for (const std::int32_t i : odd) CHECK(i != 1 && i != 4);
  for (const double w : one) CHECK(std::isfinite(w));
  // Equal rows that are as many as the places.
  const auto [equal, ones] = run({0.1, 0.1, 0, 0.1}, 3, kWinners);
  CHECK(equal[0] == 0 && equal[1] == 1 && equal[2] == 3);
  for (const double w : ones) CHECK_NEAR(w, 1, 1e-12);
  const auto [top, flat] = run({1, 5, 5, 2, 5}, 2, kTopK);
  CHECK(top[0] == 1 && top[1] == 2 && flat[0] == 1 && flat[1] == 1);
  CHECK(run({1, 2, 3}, 0, kCrs).first.empty());
}

TEST(row_norms_and_scaled_rows_at_every_level) {
  for (const std::int64_t width : {0, 1, 3, 16, 65, 200}) {
    const std::int64_t rows = 37;
    std::vector<float> x(static_cast<std::size_t>(rows * width));
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(noise(static_cast<std::int64_t>(i)) - 0.5);
    const std::vector<std::int32_t> indices{3, 3, 36, 0};
    const std::vector<float> weights{1, 2, 0.5F, -1};
    std::vector<std::byte> norms, taken;
    atAllLevels([&](const Level& level, int threads) {
      std::vector<Array> in{Array::of(DType::float32, {rows, width}, x)}, out{Array::empty(DType::float32, {rows})};
      runOp(level, Op::rowNorms_, in, out, {0}, threads);
      if (norms.empty()) norms = out[0].bytes;
      CHECK(out[0].bytes == norms);
      for (std::int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (std::int64_t j = 0; j < width; ++j) sum += std::pow(static_cast<double>(x[static_cast<std::size_t>(r * width + j)]), 2);
        CHECK_NEAR(out[0].as<float>()[r], std::sqrt(sum), 1e-6);
      }
      std::vector<Array> from{Array::of(DType::float32, {rows, width}, x), Array::of(DType::int32, {4}, indices),
                              Array::of(DType::float32, {4}, weights)};
      std::vector<Array> to{Array::empty(DType::float32, {4, width})};
      CHECK(runOp(level, Op::takeScaled_, from, to, {}, threads) == 0);
      if (taken.empty()) taken = to[0].bytes;
      CHECK(to[0].bytes == taken);
      for (std::int64_t r = 0; r < 4; ++r) {
        const auto at = static_cast<std::size_t>(r);
        for (std::int64_t j = 0; j < width; ++j)
          CHECK(to[0].as<float>()[r * width + j] == x[static_cast<std::size_t>(indices[at] * width + j)] * weights[at]);
      }
      std::vector<Array> bad{from[0], Array::of<std::int32_t>(DType::int32, {1}, {37}), Array::of<float>(DType::float32, {1}, {1})};
      std::vector<Array> zero{Array::empty(DType::float32, {1, width})};
      CHECK(runOp(level, Op::takeScaled_, bad, zero, {}, threads) == (width ? 2 : 0));
    });
  }
}

TEST(records_take_their_places) {
  atAllLevels([](const Level& level, int threads) {
    std::vector<Array> in{Array::of<float>(DType::float32, {7}, {0, 1, 2, 3, 4, 5, 6}),
                          Array::of<std::int32_t>(DType::int32, {3}, {2, 0, 2}),
                          Array::of<float>(DType::float32, {3, 2}, {10, 11, 20, 21, 30, 31})};
    std::vector<Array> out{Array::empty(DType::float32, {7})};
    CHECK(runOp(level, Op::putRecords_, in, out, {}, threads) == 0);
    CHECK(out[0].holds<float>({20, 21, 2, 3, 30, 31, 6}));
    in[1] = Array::of<std::int32_t>(DType::int32, {3}, {0, 3, -1});
    CHECK(runOp(level, Op::putRecords_, in, out, {}, threads) == 2);
    CHECK(out[0].holds<float>({10, 11, 2, 3, 4, 5, 6}));
  });
}

TEST(signs_are_packed_and_masked_at_every_level) {
  for (const std::int64_t width : {0, 1, 7, 8, 16, 17, 100}) {
    for (const DType dtype : {DType::float32, DType::float64}) {
      const std::int64_t rows = 5, bytes = (width + 7) / 8;
      std::vector<double> x(static_cast<std::size_t>(rows * width));
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = i % 5 == 0 ? 0 : noise(static_cast<std::int64_t>(i)) - 0.5;
      const std::vector<float> f(x.begin(), x.end());
      const Array from = dtype == DType::float64 ? Array::of(dtype, {rows, width}, x) : Array::of(dtype, {rows, width}, f);
      atAllLevels([&](const Level& level, int threads) {
        std::vector<Array> in{from}, packed{Array::empty(DType::uint8, {rows, bytes})};
        runOp(level, Op::packSigns_, in, packed, {}, threads);
        std::vector<Array> both{from, packed[0]}, out{Array::empty(dtype, {rows, width})};
        runOp(level, Op::maskBySigns_, both, out, {}, threads);
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t j = 0; j < bytes * 8; ++j) {
            const bool set = packed[0].as<std::uint8_t>()[r * bytes + j / 8] >> (j % 8) & 1;
            CHECK(set == (j < width && x[static_cast<std::size_t>(r * width + j)] > 0));
          }
        }
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double got = dtype == DType::float64 ? out[0].as<double>()[i] : out[0].as<float>()[i];
          const double wanted = x[i] > 0 ? (dtype == DType::float64 ? x[i] : f[i]) : 0;
          CHECK(got == wanted);
        }
      });
    }
  }
}
