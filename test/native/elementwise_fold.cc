// Chains against their steps one by one: whatever the interpreter joins, moves or writes straight to its place, the bits are the same.
#include "elementwise_cases.h"

namespace {

using namespace steepest;
using namespace steepest::test;

constexpr DType kFloat = DType::float32;

bool sameBits(Memory& a, Memory& b) {
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const float x = a.as<float>(i), y = b.as<float>(i);
    if (std::memcmp(&x, &y, 4) != 0 && !(std::isnan(x) && std::isnan(y))) return false;
  }
  return true;
}

Memory numbers(std::int64_t n, std::mt19937& random) {
  constexpr float odd[] = {0.0f,    -0.0f, std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN(), 1e-42f, 3e38f,
                           -1e-20f, 1};
  Memory m(kFloat, n);
  for (std::int64_t i = 0; i < n; ++i)
    m.as<float>(i) = random() % 16 ? std::uniform_real_distribution<float>(-3, 3)(random) : odd[random() % std::size(odd)];
  return m;
}

struct RandomRow {
  Ew op;
  int arity;
};
constexpr RandomRow kRows[] = {{Ew::add_, 2},    {Ew::sub_, 2},  {Ew::mul_, 2},  {Ew::div_, 2}, {Ew::add_, 2},     {Ew::mul_, 2},
                               {Ew::square_, 1}, {Ew::sqrt_, 1}, {Ew::sign_, 1}, {Ew::abs_, 1}, {Ew::maximum_, 2}, {Ew::neg_, 1}};

}  // namespace

TEST(elementwise_fold) {
  std::mt19937 random(17);
  for (const Level& level : levels()) {
    for (int round = 0; round < 120; ++round) {
      const std::int64_t lengths[] = {5, 64, 1000, 5003, 9216};
      const std::int64_t n = lengths[random() % std::size(lengths)];
      // Three arrays, a scalar, a constant; then the steps.
      std::vector<Memory> held;
      for (int k = 0; k < 4; ++k) held.push_back(numbers(k < 3 ? n : 1, random));
      Chain chain;
      chain.shape = {n};
      chain.constants = {0.75};
      const int steps = 2 + static_cast<int>(random() % 13);
      std::vector<Memory> values;
      for (int k = 0; k < 3; ++k) values.push_back(held[static_cast<std::size_t>(k)]);
      for (int k = 0; k < 2; ++k) {
        values.emplace_back(kFloat, n);
        for (std::int64_t i = 0; i < n; ++i) values.back().as<float>(i) = k ? 0.75f : held[3].as<float>(0);
      }
      for (int s = 0; s < steps; ++s) {
        const RandomRow row = kRows[random() % std::size(kRows)];
        // Mostly what came last, so that there is something to join.
        const auto pick = [&] {
          const int all = static_cast<int>(values.size());
          return random() % 3 ? all - 1 - static_cast<int>(random() % std::min(all, 4)) : static_cast<int>(random() % all);
        };
        std::vector<int> sources{pick()};
        if (row.arity == 2) sources.push_back(pick());
        std::vector<Memory*> operands;
        for (const int r : sources) operands.push_back(&values[static_cast<std::size_t>(r)]);
        Memory value = apply(level, row.op, operands, kFloat, kFloat);
        values.push_back(std::move(value));
        chain.steps.push_back({row.op, kFloat, kFloat, sources});
      }
      // The last step and up to two others, each in the place of an array or in memory of its own.
      const int first = 5;
      for (int k = 0; k < 3; ++k) {
        const int reg = k == 0 ? first + steps - 1 : first + static_cast<int>(random() % steps);
        if (std::find(chain.outputs.begin(), chain.outputs.end(), reg) == chain.outputs.end()) chain.outputs.push_back(reg);
      }
      std::vector<View> in, out;
      for (int k = 0; k < 4; ++k) {
        in.push_back(viewOf(kFloat, {n}));
        in.back().data = held[static_cast<std::size_t>(k)].bytes.data();
        if (k == 3) in.back().strides[0] = 0;
      }
      std::vector<Memory> own;
      for (std::size_t k = 0; k < chain.outputs.size(); ++k) own.emplace_back(kFloat, n);
      const bool inPlace = random() % 2;
      for (std::size_t k = 0; k < chain.outputs.size(); ++k) {
        out.push_back(viewOf(kFloat, {n}));
        out.back().data = inPlace ? in[k].data : own[k].bytes.data();
      }
      run(level, chain, in, out, 1 + round % 3);
      for (std::size_t k = 0; k < chain.outputs.size(); ++k)
        CHECK(sameBits(inPlace ? held[k] : own[k], values[static_cast<std::size_t>(chain.outputs[k])]));
    }
  }
}
