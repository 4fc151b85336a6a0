// Numbers in eight bits: the nearest of 256 values, found as by looking at all of them, and updates of states that are kept so.
#include "update_run.h"

namespace {

using namespace update_test;
using Rule = UpdateAttrs::Rule;

std::int64_t blocksOf(std::int64_t n) { return (n + 255) / 256; }

struct Packed {
  Array codes, units;
  explicit Packed(const std::vector<std::int64_t>& shape) : codes(DType::uint8, shape), units(DType::float32, {0}) {
    units = Array(DType::float32, {blocksOf(codes.size())});
  }
};

Packed pack(const Level& level, Array x, bool either, int threads = 1) {
  Packed out(x.shape);
  run(level, Op::quantizeBlockwise_, {&x}, {&out.codes, &out.units}, {either ? 1. : 0.}, threads);
  return out;
}

Array unpack(const Level& level, Packed x, bool either, int threads = 1) {
  Array out(DType::float32, x.codes.shape);
  run(level, Op::dequantizeBlockwise_, {&x.codes, &x.units}, {&out}, {either ? 1. : 0.}, threads);
  return out;
}

// The 256 values, as the codes of a block whose unit is 1.
std::vector<float> valuesOf(const Level& level, bool either) {
  Packed all({256});
  for (int i = 0; i < 256; ++i) all.codes.set(i, i);
  all.units.set(0, 1);
  const Array values = unpack(level, all, either);
  std::vector<float> list;
  for (int i = 0; i < 256; ++i) list.push_back(static_cast<float>(values.at(i)));
  return list;
}

int nearest(const std::vector<float>& values, float x) {
  int best = 0;
  for (int i = 1; i < 256; ++i) {
    const float d = std::fabs(x - values[static_cast<std::size_t>(i)]), least = std::fabs(x - values[static_cast<std::size_t>(best)]);
    if (d < least) best = i;
  }
  return best;
}

TEST(blockwiseValuesAreInOrder) {
  for (const bool either : {true, false}) {
    const std::vector<float> values = valuesOf(levels()[0], either);
    for (std::size_t i = 1; i < 256; ++i) CHECK(values[i - 1] < values[i]);
    CHECK(values[255] == 1 && values[either ? 127 : 0] == 0);
    for (const Level& level : levels()) CHECK(valuesOf(level, either) == values);
  }
}

TEST(blockwiseTakesTheNearest) {
  for (const bool either : {true, false}) {
    const std::vector<float> values = valuesOf(levels()[0], either);
    // Every border from both sides, every value, every binade down to nothing; the first number of each block makes its unit 1.
    std::vector<float> wanted{0, -0.0f, 1e-30f, 0x1p-149f};
    for (std::size_t i = 0; i < 256; ++i) {
      wanted.push_back(values[i]);
      if (i == 0) continue;
      float x = values[i - 1] + (values[i] - values[i - 1]) / 2;
      for (int k = 0; k < 4; ++k) x = std::nextafter(x, -2.0f);
      for (int k = 0; k < 9; ++k, x = std::nextafter(x, 2.0f)) wanted.push_back(x);
    }
    for (float x = 1; x > 1e-9f; x *= 0.93f) {
      wanted.push_back(x);
      if (either) wanted.push_back(-x);
    }
    if (!either) std::erase_if(wanted, [](float x) { return x < 0; });
    const std::int64_t blocks = blocksOf(static_cast<std::int64_t>(wanted.size() * 256 / 255));
    Array x(DType::float32, {blocks + 1, 256});
    std::size_t at = 0;
    for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, i % 256 == 0 ? 1 : wanted[at++ % wanted.size()]);
    for (const Level& level : levels()) {
      const Packed packed = pack(level, x, either, 2);
      bool same = true;
      for (std::int64_t i = 0; i < x.size(); ++i) same &= packed.codes.at(i) == nearest(values, static_cast<float>(x.at(i)));
      CHECK(same);
      for (std::int64_t b = 0; b < packed.units.size(); ++b) CHECK(packed.units.at(b) == 1);
    }
  }
}

TEST(blockwiseUnitsAreTheLargestOfTheirBlock) {
  for (const std::int64_t n : {0, 1, 255, 256, 257, 1000, 70001}) {
    for (const double scale : {1e-30, 1e-3, 1.0, 1e30}) {
      Array x = normal(DType::float32, {n}, 3, scale);
      if (n >= 1000) {
        for (std::int64_t i = 256; i < 512; ++i) x.set(i, 0);
      }
      const Packed first = pack(levels()[0], x, true);
      for (std::int64_t b = 0; b < first.units.size(); ++b) {
        double most = 0;
        for (std::int64_t i = b * 256; i < std::min(n, b * 256 + 256); ++i) most = std::fmax(most, std::fabs(x.at(i)));
        CHECK(first.units.at(b) == (most == 0 ? 1 : most));
      }
      const Array back = unpack(levels()[0], first, true);
      for (std::int64_t i = 0; i < n; ++i) CHECK(std::fabs(back.at(i) - x.at(i)) <= 0.0102 * first.units.at(i / 256));
      for (const Level& level : levels()) {
        for (const int threads : {1, 2, 5}) {
          const Packed other = pack(level, x, true, threads);
          CHECK(other.codes.bytes == first.codes.bytes && other.units.bytes == first.units.bytes);
          CHECK(unpack(level, other, true, threads).bytes == back.bytes);
        }
      }
    }
  }
}

TEST(blockwiseSurvivesWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const Level& level : levels()) {
    for (const bool either : {true, false}) {
      for (const float bad : {infinity, -infinity, nan, -nan, -1.0f}) {
        Array x = normal(DType::float32, {600}, 1);
        x.set(300, bad);
        const Packed packed = pack(level, x, either);
        CHECK(unpack(level, packed, either).size() == 600);
      }
    }
  }
}

struct Case {
  Rule rule;
  Numbers h;
  std::vector<bool> either;  // of each slot
};
const Case kCases[] = {
    {Rule::kSgdMomentum, {0.9, 0, 0, 0.01}, {true}},
    {Rule::kAdamw, {0.9, 0.999, 1e-8, 0.1}, {true, false}},
    {Rule::kAdamAmsgrad, {0.9, 0.99, 1e-8, 0}, {true, false, false}},
    {Rule::kLion, {0.9, 0.99, 0.3}, {true}},
    {Rule::kAdagrad, {0.1, 1e-10, 0, 0.1}, {false}},
    {Rule::kDiffgrad, {0.9, 0.999, 1e-8, 0.1}, {true, false, true}},
    {Rule::kLamb, {0.9, 0.999, 1e-6, 0.1, 0, 1, 1, 0, 0}, {true, false}},
    {Rule::kLars, {0.9, 0.1, 0.1, 0.01, 1e-8, 1, 0, 0}, {true}},
    {Rule::kAdamp, {0.9, 0.999, 1e-8, 0.1, 10, 0.1, 1}, {true, false}},
    {Rule::kSgdp, {0.9, 0, 0.1, 1e-8, 10, 0.1, 0}, {true}},
};

// Dequantizes, updates by the rule in float32, quantizes: what the driver does in one pass.
TEST(updateOfStatesInEightBitsIsThatOfTheirNumbers) {
  const std::vector<std::int64_t> shapes[] = {{}, {0}, {1}, {255}, {256}, {300, 517}, {3, 40001}, {70001}, {2, 3, 700}};
  for (const Case& c : kCases) {
    for (const auto& shape : shapes) {
      for (const bool narrow : {false, true}) {
        const DType dtype = narrow ? DType::bfloat16 : DType::float32;
        Options o{c.rule, c.h};
        const auto drive = [&](const Level& level, int threads, bool separate) {
          Array p = normal(dtype, shape, 1);
          std::vector<Packed> states(c.either.size(), Packed(shape));
          for (std::size_t k = 0; k < states.size(); ++k) {
            for (std::int64_t i = 0; i < p.size(); ++i) states[k].codes.set(i, c.either[k] ? 127 : 0);
          }
          for (int t = 1; t <= 3; ++t) {
            Array g = normal(dtype, shape, static_cast<unsigned>(20 + t), 0.1), args = arguments(0.01, t);
            if (separate) {
              std::vector<Array> wide;
              for (std::size_t k = 0; k < states.size(); ++k) wide.push_back(unpack(level, states[k], c.either[k]));
              std::vector<Array*> in{&args, &p, &g}, out{&p};
              for (Array& s : wide) in.push_back(&s), out.push_back(&s);
              CHECK(run(level, Op::update_, in, out, o.words(), threads) == 0);
              for (std::size_t k = 0; k < states.size(); ++k) states[k] = pack(level, wide[k], c.either[k]);
            } else {
              Options eight = o;
              eight.blockwise = true;
              std::vector<Array*> in{&args, &p, &g}, out{&p};
              for (Packed& s : states) {
                for (Array* a : {&s.codes, &s.units}) in.push_back(a), out.push_back(a);
              }
              CHECK(run(level, Op::update_, in, out, eight.words(), threads) == 0);
            }
          }
          std::vector<std::byte> all = p.bytes;
          for (const Packed& s : states) {
            all.insert(all.end(), s.codes.bytes.begin(), s.codes.bytes.end());
            all.insert(all.end(), s.units.bytes.begin(), s.units.bytes.end());
          }
          return all;
        };
        const auto expect = drive(levels()[0], 1, true);
        for (const Level& level : levels()) {
          for (const int threads : {1, 2, 5}) CHECK(drive(level, threads, false) == expect);
        }
      }
    }
  }
}

TEST(updateRefusesWrongStatesInEightBits) {
  Array args = arguments(1, 1), p(DType::float32, {300}), g = p, wide(DType::float64, {300});
  Packed m({300}), odd({301});
  Array few(DType::float32, {1});
  Options lion{Rule::kLion, {0.9, 0.99, 0}};
  lion.blockwise = true;
  const auto refuses = [&](const std::vector<Array*>& in, const std::vector<Array*>& out) {
    try {
      run(levels().back(), Op::update_, in, out, lion.words());
    } catch (const Error& e) {
      return e.code == "PROGRAM";
    }
    return false;
  };
  CHECK(!refuses({&args, &p, &g, &m.codes, &m.units}, {&p, &m.codes, &m.units}));
  CHECK(refuses({&args, &p, &g, &m.codes}, {&p, &m.codes}));
  CHECK(refuses({&args, &p, &g, &m.codes, &few}, {&p, &m.codes, &few}));
  CHECK(refuses({&args, &p, &g, &odd.codes, &m.units}, {&p, &odd.codes, &m.units}));
  CHECK(refuses({&args, &p, &g, &p, &m.units}, {&p, &p, &m.units}));
  CHECK(refuses({&args, &wide, &wide, &m.codes, &m.units}, {&wide, &m.codes, &m.units}));
}

}  // namespace
