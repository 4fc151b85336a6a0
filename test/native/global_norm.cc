// The norm over many tensors: against float64 loops, at the ends of the exponent range, with what is not finite, the same bits everywhere.
#include "attrs/globalNorm.gen.h"
#include "update_run.h"

namespace {

using namespace update_test;
using Kind = GlobalNormAttrs::Kind;

double normOf(const Level& level, std::vector<Array>& inputs, Kind kind, int threads = 1) {
  bool wide = false;
  std::vector<Array*> in;
  for (Array& a : inputs) {
    in.push_back(&a);
    wide |= a.dtype == DType::float64;
  }
  Array out(wide ? DType::float64 : DType::float32, {});
  CHECK(run(level, Op::globalNorm_, in, {&out}, {static_cast<double>(kind), 0}, threads) == 0);
  return out.at(0);
}

TEST(globalNormIsTheNormOfAllNumbers) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
    std::vector<Array> inputs;
    unsigned seed = 0;
    for (const std::vector<std::int64_t>& shape :
         {std::vector<std::int64_t>{}, {1}, {0, 5}, {7}, {8}, {9}, {15}, {16}, {31}, {33}, {3, 5, 7}, {70001}, {32768}}) {
      inputs.push_back(normal(dtype, shape, ++seed));
    }
    double squares = 0, sum = 0, most = 0;
    for (const Array& a : inputs) {
      for (std::int64_t i = 0; i < a.size(); ++i) {
        squares += a.at(i) * a.at(i);
        sum += std::fabs(a.at(i));
        most = std::fmax(most, std::fabs(a.at(i)));
      }
    }
    const double bound = dtype == DType::float64 ? 1e-13 : 6e-8;
    for (const Level& level : levels()) {
      CHECK_NEAR(normOf(level, inputs, Kind::kL2) / std::sqrt(squares), 1, bound);
      CHECK_NEAR(normOf(level, inputs, Kind::kL1) / sum, 1, bound);
      CHECK(normOf(level, inputs, Kind::kMax) == most);
      for (const Kind kind : {Kind::kL2, Kind::kL1}) {
        const double first = normOf(levels()[0], inputs, kind);
        for (const int threads : {1, 2, 5}) CHECK(normOf(level, inputs, kind, threads) == first);
      }
    }
  }
}

TEST(globalNormInPiecesHasTheBitsOfTheWhole) {
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    for (const double size : {0.0, 1e-30, 1.0, 1e30}) {
      std::vector<Array> inputs, pieces;
      for (const std::int64_t n : {0, 1, 33, 32768, 70001}) {
        inputs.push_back(normal(dtype, {n}, static_cast<unsigned>(n) + 1));
        for (std::int64_t i = 0; i < n; ++i) inputs.back().set(i, size * inputs.back().at(i));
      }
      for (const Level& level : levels()) {
        std::vector<Array*> all;
        pieces.clear();
        for (Array& a : inputs) pieces.emplace_back(DType::float64, std::vector<std::int64_t>{(a.size() + 32767) / 32768});
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          CHECK(run(level, Op::globalNorm_, {&inputs[i]}, {&pieces[i]}, {0, 1}, 2) == 0);
          all.push_back(&pieces[i]);
        }
        Array out(DType::float32, {});
        CHECK(run(level, Op::globalNorm_, all, {&out}, {0, 2}, 1) == 0);
        CHECK(out.at(0) == normOf(level, inputs, Kind::kL2));
      }
    }
  }
}

TEST(globalNormReachesTheEndsOfTheRange) {
  for (const Level& level : levels()) {
    for (const double size : {1e160, 1e-170, 1e300, 1e-300, 5e-324, 1.0}) {
      std::vector<Array> inputs{Array(DType::float64, {4}), Array(DType::float64, {5})};
      for (Array& a : inputs) {
        for (std::int64_t i = 0; i < a.size(); ++i) a.set(i, size);
      }
      CHECK_NEAR(normOf(level, inputs, Kind::kL2) / size, 3, size < 1e-320 ? 0 : 1e-14);
    }
    for (const double size : {1e30, 1e-30}) {
      std::vector<Array> inputs{Array(DType::float32, {9})};
      for (std::int64_t i = 0; i < 9; ++i) inputs[0].set(i, size);
      CHECK_NEAR(normOf(level, inputs, Kind::kL2) / size, 3, 1e-6);
    }
    std::vector<Array> none, zeros{Array(DType::float64, {100})};
    CHECK(normOf(level, none, Kind::kL2) == 0);
    CHECK(normOf(level, zeros, Kind::kL2) == 0);
  }
}

TEST(globalNormOfWhatIsNotFinite) {
  const double inf = std::numeric_limits<double>::infinity();
  for (const Level& level : levels()) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
      for (const Kind kind : {Kind::kL2, Kind::kL1, Kind::kMax}) {
        for (const std::int64_t at : {0, 40, 66}) {
          std::vector<Array> inputs{normal(dtype, {67}, 1), normal(dtype, {3}, 2)};
          inputs[0].set(at, -inf);
          CHECK(normOf(level, inputs, kind) == inf);
          inputs[0].set(at, std::nan(""));
          CHECK(std::isnan(normOf(level, inputs, kind)));
        }
      }
    }
  }
}

TEST(globalNormRefusesWrongPrograms) {
  Array ints(DType::int32, {3}), good(DType::float32, {3}), wide(DType::float64, {}), out(DType::float32, {});
  const auto refuses = [&](const std::vector<Array*>& in, Array& to, double stage = 0) {
    try {
      run(levels().back(), Op::globalNorm_, in, {&to}, {0, stage});
    } catch (const Error& e) {
      return e.code == "PROGRAM";
    }
    return false;
  };
  CHECK(!refuses({&good}, out));
  CHECK(refuses({&ints}, out));
  CHECK(refuses({&good}, wide));
  CHECK(refuses({&good}, good));
  Array one(DType::float64, {1}), two(DType::float64, {2});
  CHECK(!refuses({&good}, one, 1));
  CHECK(refuses({&good}, two, 1));
  CHECK(refuses({&good, &good}, one, 1));
  CHECK(refuses({&wide}, one, 1));
  CHECK(!refuses({&one, &two}, out, 2));
  CHECK(refuses({&good}, out, 2));
  CHECK(refuses({&one}, wide, 2));
}

}  // namespace
