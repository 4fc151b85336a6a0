// The update rules and their driver: formulas against plain float64 loops, the same bits at every width, level and pool size, weights
// of 16 bits, checks and wrong programs.
#include "attrs/update.gen.h"
#include "runtime/philox.h"
#include "update_run.h"

namespace {

using namespace update_test;
using Rule = UpdateAttrs::Rule;

const std::int64_t kSizes[] = {0, 1, 7, 8, 15, 16, 17, 33, 1000, 1024, 1025, 32768, 70001};

// The rules once more, written from the papers and PyTorch's documentation, in float64.
struct Reference {
  Rule rule;
  Numbers h;
  int slots;
  void step(Numbers& p, const Numbers& grads, std::vector<Numbers>& s, double lr, double t) const {
    for (std::size_t i = 0; i < p.size(); ++i) {
      double g = grads[i];
      switch (rule) {
        case Rule::kSgd:
          p[i] -= lr * (g + h[0] * p[i]);
          break;
        case Rule::kSgdMomentum: {
          g += h[3] * p[i];
          s[0][i] = t == 1 ? g : h[0] * s[0][i] + (1 - h[1]) * g;
          p[i] -= lr * (h[2] != 0 ? g + h[0] * s[0][i] : s[0][i]);
          break;
        }
        case Rule::kAdam:
        case Rule::kAdamAmsgrad:
        case Rule::kAdamw:
        case Rule::kAdamwAmsgrad: {
          const bool decoupled = rule == Rule::kAdamw || rule == Rule::kAdamwAmsgrad;
          if (decoupled)
            p[i] *= 1 - lr * h[3];
          else
            g += h[3] * p[i];
          s[0][i] = h[0] * s[0][i] + (1 - h[0]) * g;
          s[1][i] = h[1] * s[1][i] + (1 - h[1]) * g * g;
          double v = s[1][i];
          if (slots == 3) v = s[2][i] = std::fmax(s[2][i], v);
          p[i] -= lr * (s[0][i] / (1 - std::pow(h[0], t))) / (std::sqrt(v / (1 - std::pow(h[1], t))) + h[2]);
          break;
        }
        case Rule::kLion: {
          const double u = h[0] * s[0][i] + (1 - h[0]) * g;
          p[i] = p[i] * (1 - lr * h[2]) - lr * ((u > 0) - (u < 0));
          s[0][i] = h[1] * s[0][i] + (1 - h[1]) * g;
          break;
        }
        case Rule::kAdagrad: {
          g += h[3] * p[i];
          s[0][i] += g * g;
          p[i] -= lr / (1 + (t - 1) * h[0]) * g / (std::sqrt(s[0][i]) + h[1]);
          break;
        }
        case Rule::kAdabelief: {
          const bool decoupled = h[4] != 0, rectify = h[6] != 0;
          if (decoupled)
            p[i] *= 1 - h[3] * (h[5] != 0 ? 1 : lr);
          else
            g += h[3] * p[i];
          s[0][i] = h[0] * s[0][i] + (1 - h[0]) * g;
          s[1][i] = h[1] * s[1][i] + (1 - h[1]) * (g - s[0][i]) * (g - s[0][i]) + h[2];
          const double size = lr / (1 - std::pow(h[0], t)), left = std::pow(h[1], t);
          const double most = 2 / (1 - h[1]) - 1, sma = most - 2 * t * left / (1 - left);
          if (!rectify) {
            p[i] -= size * s[0][i] / (std::sqrt(s[1][i] / (1 - left)) + h[2]);
          } else if (sma >= 5) {
            const double r = std::sqrt((1 - left) * (sma - 4) * (sma - 2) * most / ((most - 4) * (most - 2) * sma));
            p[i] -= size * r * s[0][i] / (std::sqrt(s[1][i]) + h[2]);
          } else if (h[7] != 0) {
            p[i] -= size * s[0][i];
          }
          break;
        }
        case Rule::kDiffgrad: {
          g += h[3] * p[i];
          s[0][i] = h[0] * s[0][i] + (1 - h[0]) * g;
          s[1][i] = h[1] * s[1][i] + (1 - h[1]) * g * g;
          const double friction = 1 / (1 + std::exp(-std::fabs(s[2][i] - g)));
          s[2][i] = g;
          p[i] -= lr * std::sqrt(1 - std::pow(h[1], t)) / (1 - std::pow(h[0], t)) * friction * s[0][i] / (std::sqrt(s[1][i]) + h[2]);
          break;
        }
        case Rule::kSignSgd:
          p[i] = p[i] * (1 - lr * h[0]) - lr * ((g > 0) - (g < 0));
          break;
        case Rule::kSignum: {
          s[0][i] = h[0] * s[0][i] + (1 - h[0]) * g;
          p[i] = p[i] * (1 - lr * h[1]) - lr * ((s[0][i] > 0) - (s[0][i] < 0));
          break;
        }
        default:
          CHECK(false);
      }
    }
  }
};

const Reference kReferences[] = {
    {Rule::kSgd, {0}, 0},
    {Rule::kSgd, {0.1}, 0},
    {Rule::kSgdMomentum, {0.9, 0, 0, 0}, 1},
    {Rule::kSgdMomentum, {0.9, 0.2, 0, 0.05}, 1},
    {Rule::kSgdMomentum, {0.8, 0, 1, 0.05}, 1},
    {Rule::kAdam, {0.9, 0.999, 1e-8, 0}, 2},
    {Rule::kAdam, {0.8, 0.95, 1e-3, 0.1}, 2},
    {Rule::kAdamAmsgrad, {0.9, 0.9, 1e-8, 0.1}, 3},
    {Rule::kAdamw, {0.9, 0.999, 1e-8, 0.1}, 2},
    {Rule::kAdamwAmsgrad, {0.9, 0.9, 1e-8, 0.1}, 3},
    {Rule::kLion, {0.9, 0.99, 0.3}, 1},
    {Rule::kAdagrad, {0.1, 1e-10, 0, 0.1}, 1},
    {Rule::kAdabelief, {0.9, 0.99, 1e-8, 0.1, 1, 0, 0, 1}, 2},
    {Rule::kAdabelief, {0.9, 0.7, 1e-12, 0.1, 1, 1, 1, 1}, 2},
    {Rule::kAdabelief, {0.9, 0.999, 1e-12, 0.1, 0, 0, 1, 1}, 2},
    {Rule::kAdabelief, {0.9, 0.999, 1e-12, 0, 1, 0, 1, 0}, 2},
    {Rule::kDiffgrad, {0.9, 0.999, 1e-8, 0.1}, 3},
    {Rule::kSignSgd, {0.2}, 0},
    {Rule::kSignum, {0.9, 0.2}, 1},
};

TEST(updateRulesAreTheirFormulas) {
  for (const Reference& ref : kReferences) {
    for (const DType dtype : {DType::float32, DType::float64}) {
      for (const std::int64_t n : kSizes) {
        State state(normal(dtype, {n}, 1), ref.slots);
        Numbers p = numbersOf(state.p);
        std::vector<Numbers> s(static_cast<std::size_t>(ref.slots), Numbers(static_cast<std::size_t>(n)));
        for (int t = 1; t <= 4; ++t) {
          Array g = normal(dtype, {n}, static_cast<unsigned>(10 + t));
          if (n > 5) g.set(3, 0);
          const double lr = 0.01 * t;
          ref.step(p, numbersOf(g), s, lr, t);
          CHECK(state.step(levels().back(), {ref.rule, ref.h}, g, lr, t, 2, t % 2 == 0) == 0);
        }
        const double bound = dtype == DType::float64 ? 1e-13 : 1e-6;
        CHECK(worst(state.p, p) <= bound);
        for (int k = 0; k < ref.slots; ++k) CHECK(worst(state.slots[static_cast<std::size_t>(k)], s[static_cast<std::size_t>(k)]) <= bound);
      }
    }
  }
}

TEST(updateBitsDoNotDependOnWidthLevelThreadsOrPlace) {
  for (const Reference& ref : kReferences) {
    for (const DType dtype : {DType::float32, DType::float64}) {
      for (const std::int64_t n : {std::int64_t{37}, std::int64_t{70001}}) {
        const State start(normal(dtype, {n}, 1), ref.slots);
        const Options o{ref.rule, ref.h};
        State first = start;
        const auto drive = [&](State& state, const Level& level, int threads, bool inPlace) {
          for (int t = 1; t <= 3; ++t) {
            Array g = normal(dtype, {n}, static_cast<unsigned>(20 + t), t == 2 ? 1e-25 : 1);
            state.step(level, o, g, 0.01, t, threads, inPlace);
          }
        };
        drive(first, levels()[0], 1, true);
        for (const Level& level : levels()) {
          for (const int threads : {1, 2, 5}) {
            State other = start;
            drive(other, level, threads, threads != 2);
            CHECK(other == first);
          }
          // One number at a time takes the path of width one.
          if (n > 100) continue;
          State ones = start;
          for (std::int64_t i = 0; i < n; ++i) {
            State one(Array(dtype, {}), ref.slots);
            one.p.set(0, start.p.at(i));
            for (int t = 1; t <= 3; ++t) {
              const Array g = normal(dtype, {n}, static_cast<unsigned>(20 + t), t == 2 ? 1e-25 : 1);
              Array single = scalar(dtype, g.at(i));
              one.step(level, o, single, 0.01, t);
            }
            ones.p.set(i, one.p.at(0));
            for (int k = 0; k < ref.slots; ++k)
              ones.slots[static_cast<std::size_t>(k)].set(i, one.slots[static_cast<std::size_t>(k)].at(0));
          }
          CHECK(ones == first);
        }
      }
    }
  }
}

TEST(updateScalesGradientsAndLearningRate) {
  for (const DType scaleType : {DType::float32, DType::float64}) {
    const Options plain{Rule::kAdamw, {0.9, 0.99, 1e-8, 0.1}};
    Options scaled = plain;
    scaled.scale = true;
    scaled.lrScale = 0.5;
    State a(normal(DType::float32, {1000}, 1), 2), b = a;
    Array g = normal(DType::float32, {1000}, 2), quarter = g, scale = scalar(scaleType, 0.25);
    for (std::int64_t i = 0; i < 1000; ++i) quarter.set(i, g.at(i) * 0.25);
    a.step(levels().back(), scaled, g, 0.02, 1, 1, true, &scale);
    b.step(levels().back(), plain, quarter, 0.01, 1);
    CHECK(a == b);
  }
}

TEST(updateCheckWritesNothing) {
  const double bad[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                        -std::numeric_limits<double>::infinity()};
  for (const Level& level : levels()) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
      Options o{Rule::kLion, {0.9, 0.99, 0}};
      o.check = true;
      for (const std::int64_t at : {0, 63, 64, 66}) {
        for (const double x : bad) {
          const State before(normal(dtype, {67}, 1), 1);
          State state = before;
          Array g = normal(dtype, {67}, 2);
          g.set(at, x);
          CHECK(state.step(level, o, g, 0.1, 1) == 1);
          CHECK(state == before);
        }
      }
      State state(normal(dtype, {67}, 1), 1);
      const State before = state;
      Array g = normal(dtype, {67}, 2, 1e30);
      CHECK(state.step(level, o, g, 0.1, 1) == 0);
      CHECK(!(state == before));
      Options scaled = o;
      scaled.scale = true;
      Array nan = scalar(DType::float32, bad[0]);
      state = before;
      CHECK(state.step(level, scaled, g, 0.1, 1, 1, true, &nan) == 1);
      CHECK(state == before);
    }
    // A fault that is already there stops every later update, checked or not.
    State state(normal(DType::float32, {67}, 1), 1);
    const State before = state;
    Array g = normal(DType::float32, {67}, 2), args = arguments(0.1, 1);
    CHECK(run(level, Op::update_, {&args, &state.p, &g, &state.slots[0]}, {&state.p, &state.slots[0]},
              Options{Rule::kLion, {0.9, 0.99, 0}}.words(), 1, 1) == 1);
    CHECK(state == before);
  }
}

TEST(updateKeepsTheHiddenBitsOfBfloat16) {
  for (const Level& level : levels()) {
    for (const DType grads : {DType::float32, DType::bfloat16}) {
      for (const std::int64_t n : {std::int64_t{1}, std::int64_t{17}, std::int64_t{40000}}) {
        Array high = normal(DType::bfloat16, {n}, 1), low(DType::uint8, {2, n}), m(DType::float32, {n}), v = m;
        State wide(Array(DType::float32, {n}), 2);
        for (std::int64_t i = 0; i < n; ++i) wide.p.set(i, high.at(i));
        Options o{Rule::kAdamw, {0.9, 0.999, 1e-8, 0.1}};
        Options master = o;
        master.master = true;
        for (int t = 1; t <= 20; ++t) {
          Array g = normal(grads, {n}, static_cast<unsigned>(t)), same(DType::float32, {n}), args = arguments(1e-4, t);
          for (std::int64_t i = 0; i < n; ++i) same.set(i, g.at(i));
          wide.step(level, o, same, 1e-4, t);
          CHECK(run(level, Op::update_, {&args, &high, &g, &low, &m, &v}, {&high, &low, &m, &v}, master.words(), 2) == 0);
        }
        CHECK(m.bytes == wide.slots[0].bytes && v.bytes == wide.slots[1].bytes);
        bool same = true;
        for (std::int64_t i = 0; i < n; ++i) {
          const std::uint32_t bits = std::bit_cast<std::uint32_t>(static_cast<float>(wide.p.at(i)));
          const std::uint32_t shown = high.as<bf16>()[i].bits, hidden = low.as<std::uint8_t>()[i] | low.as<std::uint8_t>()[n + i] << 8;
          same &= hidden == (bits & 0xffff) && shown == (bits + 0x8000) >> 16;
        }
        CHECK(same);
      }
    }
  }
}

TEST(updateHiddenBitsSurviveTheEdges) {
  const float edges[] = {
      0.0f, -0.0f, 1.0f, 0x1.fffffep127f, -0x1.fffffep127f, 0x1p-149f, std::numeric_limits<float>::infinity(), 0x1.017fffp0f, 0x1.01p0f};
  const std::int64_t n = std::size(edges);
  for (const Level& level : levels()) {
    Array high(DType::bfloat16, {n}), low(DType::uint8, {2, n}), g(DType::float32, {n}), args = arguments(0, 1);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(edges[i]);
      high.as<bf16>()[i].bits = static_cast<std::uint16_t>((bits + 0x8000) >> 16);
      low.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(bits);
      low.as<std::uint8_t>()[n + i] = static_cast<std::uint8_t>(bits >> 8);
    }
    const Array highBefore = high, lowBefore = low;
    Options o{Rule::kLion, {0.9, 0.99, 0}};
    o.master = true;
    Array m(DType::float32, {n});
    run(level, Op::update_, {&args, &high, &g, &low, &m}, {&high, &low, &m}, o.words());
    CHECK(high.bytes == highBefore.bytes && low.bytes == lowBefore.bytes);
  }
}

TEST(updateRoundsStochasticallyByPhilox) {
  const std::int64_t n = 40013;
  const double site = 7, t = 3;
  Array key(DType::int32, {2}), args = arguments(1, t), g(DType::float32, {n});
  key.set(0, 11);
  key.set(1, -5);
  Array start = normal(DType::bfloat16, {n}, 1);
  for (std::int64_t i = 0; i < n; ++i) g.set(i, start.at(i) * -0.001);
  Options o{Rule::kSgd, {0}};
  o.stochastic = true;
  o.site = site;
  for (const Level& level : levels()) {
    for (const int threads : {1, 2, 5}) {
      Array p = start;
      run(level, Op::update_, {&args, &key, &p, &g}, {&p}, o.words(), threads);
      bool same = true;
      double drift = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        const float exact = std::fma(-1.0f, static_cast<float>(g.at(i)), static_cast<float>(start.at(i)));
        const std::uint32_t random =
            philoxBits({11u, static_cast<std::uint32_t>(-5)}, static_cast<std::uint64_t>(i), 3, 7, Stream::rounding);
        same &= p.as<bf16>()[i].bits == (std::bit_cast<std::uint32_t>(exact) + (random >> 16)) >> 16;
        drift += (p.at(i) - start.at(i)) / start.at(i);
      }
      CHECK(same);
      // Nearest would leave all as they are; the mean moves by what was asked for, to 5 standard errors.
      CHECK_NEAR(drift / n, 0.001, 5 * 0.0025 / std::sqrt(static_cast<double>(n)));
    }
  }
}

TEST(updateRoundsToNearestWithoutKeyOrHiddenBits) {
  for (const Level& level : levels()) {
    Array p = normal(DType::bfloat16, {1041}, 1), before = p, g = normal(DType::bfloat16, {1041}, 2), args = arguments(0.1, 1);
    run(level, Op::update_, {&args, &p, &g}, {&p}, Options{Rule::kSgd, {0}}.words());
    for (std::int64_t i = 0; i < p.size(); ++i) {
      Array expect(DType::bfloat16, {});
      expect.set(0, std::fma(-0.1f, static_cast<float>(g.at(i)), static_cast<float>(before.at(i))));
      CHECK(p.at(i) == expect.at(0));
    }
  }
}

TEST(updateRefusesWrongPrograms) {
  const Level level = levels().back();
  Array p(DType::float32, {4, 3}), g = p, m = p, v = p, args = arguments(1, 1), wide(DType::float64, {4, 3}), other(DType::float32, {12}),
                                   half(DType::bfloat16, {4, 3}), key(DType::int32, {2}), low(DType::uint8, {2, 4, 3}),
                                   shortArgs(DType::float64, {1}), scale(DType::float32, {1});
  const Options adam{Rule::kAdam, {0.9, 0.999, 1e-8, 0}};
  const auto refuses = [&](const std::vector<Array*>& in, const std::vector<Array*>& out, const std::vector<double>& attrs) {
    try {
      run(level, Op::update_, in, out, attrs);
    } catch (const Error& e) {
      return e.code == "PROGRAM";
    }
    return false;
  };
  const std::vector<Array*> good{&args, &p, &g, &m, &v};
  CHECK(!refuses(good, {&p, &m, &v}, adam.words()));
  CHECK(refuses({&args, &p, &g, &m}, {&p, &m}, adam.words()));
  CHECK(refuses(good, {&p, &m}, adam.words()));
  CHECK(refuses({&args, &p, &other, &m, &v}, {&p, &m, &v}, adam.words()));
  CHECK(refuses({&args, &p, &wide, &m, &v}, {&p, &m, &v}, adam.words()));
  CHECK(refuses({&args, &p, &half, &m, &v}, {&p, &m, &v}, adam.words()));
  CHECK(refuses({&args, &p, &g, &m, &wide}, {&p, &m, &wide}, adam.words()));
  CHECK(refuses(good, {&p, &m, &other}, adam.words()));
  CHECK(refuses({&shortArgs, &p, &g, &m, &v}, {&p, &m, &v}, adam.words()));
  CHECK(refuses({&args, &key, &key, &m, &v}, {&key, &m, &v}, adam.words()));
  CHECK(refuses(good, {&p, &m, &v}, Options{Rule::kAdam, {0.9}}.words()));
  Options o = adam;
  o.scale = true;
  CHECK(refuses({&args, &scale, &p, &g, &m, &v}, {&p, &m, &v}, o.words()));
  o = adam;
  o.stochastic = true;
  CHECK(refuses({&args, &key, &p, &g, &m, &v}, {&p, &m, &v}, o.words()));
  CHECK(!refuses({&args, &key, &half, &g, &m, &v}, {&half, &m, &v}, o.words()));
  o = adam;
  o.master = true;
  CHECK(refuses({&args, &p, &g, &low, &m, &v}, {&p, &low, &m, &v}, o.words()));
  CHECK(!refuses({&args, &half, &g, &low, &m, &v}, {&half, &low, &m, &v}, o.words()));
  CHECK(refuses({&args, &half, &g, &m, &m, &v}, {&half, &m, &m, &v}, o.words()));
  o = adam;
  o.site = -1;
  CHECK(refuses(good, {&p, &m, &v}, o.words()));
}

}  // namespace
