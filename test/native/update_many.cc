// Many parameters in one instruction: each gets the bits that it gets alone, at every level and pool size.
#include <array>

#include "update_run.h"

namespace {

using namespace update_test;
using Rule = UpdateAttrs::Rule;

const std::vector<std::int64_t> kShapes[] = {{}, {7}, {0}, {300, 517}, {1024}, {3, 40001}, {0, 3}, {5, 7}, {70001}, {1, 1}};

struct Case {
  Rule rule;
  Numbers h;
  int slots;
};
const Case kCases[] = {
    {Rule::kSgd, {0.1}, 0},
    {Rule::kAdamw, {0.9, 0.999, 1e-8, 0.1}, 2},
    {Rule::kLion, {0.9, 0.99, 0.3}, 1},
    {Rule::kLamb, {0.9, 0.999, 1e-6, 0.1, 0, 1, 1, 0, 0}, 2},
    {Rule::kAdamp, {0.9, 0.999, 1e-8, 0.1, 10, 0.1, 1}, 2},
};

// Weight, gradient, hidden bits where there are some, slots.
struct Parameter {
  std::vector<Array> arrays;
  Parameter(DType dtype, const std::vector<std::int64_t>& shape, unsigned seed, int slots, bool master) {
    arrays.push_back(normal(dtype, shape, seed));
    arrays.push_back(normal(dtype, shape, seed + 100, 0.1));
    if (master) {
      std::vector<std::int64_t> planes{2};
      planes.insert(planes.end(), shape.begin(), shape.end());
      arrays.push_back(Array(DType::uint8, planes));
    }
    for (int i = 0; i < slots; ++i) arrays.push_back(Array(dtype == DType::float64 ? dtype : DType::float32, shape));
  }
};

// A few steps of all of them at once; in place, or into arrays of their own.
void drive(std::vector<Parameter>& all, const Level& level, Options o, int threads, bool inPlace = true) {
  o.parameters = static_cast<int>(all.size());
  Array key(DType::int32, {2}), scale = scalar(DType::float32, 0.5);
  key.set(0, 9);
  for (int t = 1; t <= 2; ++t) {
    Array args = arguments(0.01, t);
    std::vector<Parameter> next = all;
    std::vector<Array*> in{&args, &scale}, out;
    if (o.stochastic) in.push_back(&key);
    for (std::size_t n = 0; n < all.size(); ++n) {
      for (std::size_t i = 0; i < all[n].arrays.size(); ++i) {
        in.push_back(&all[n].arrays[i]);
        if (i != 1) out.push_back(inPlace ? &all[n].arrays[i] : &next[n].arrays[i]);
      }
    }
    CHECK(run(level, Op::update_, in, out, o.words(), threads) == 0);
    if (!inPlace) all = next;
  }
}

bool same(const std::vector<Parameter>& a, const std::vector<Parameter>& b) {
  for (std::size_t n = 0; n < a.size(); ++n) {
    for (std::size_t i = 0; i < a[n].arrays.size(); ++i) {
      if (a[n].arrays[i].bytes != b[n].arrays[i].bytes) return false;
    }
  }
  return true;
}

TEST(updateOfManyParametersIsThatOfEach) {
  for (const Case& c : kCases) {
    for (const int kind : {0, 1, 2, 3}) {
      const DType dtype = std::array{DType::float32, DType::float64, DType::bfloat16, DType::bfloat16}[static_cast<std::size_t>(kind)];
      Options o{c.rule, c.h};
      o.scale = true;
      o.master = kind == 2;
      o.stochastic = kind == 3;
      o.site = 40;
      std::vector<Parameter> start;
      unsigned seed = 1;
      for (const auto& shape : kShapes) start.emplace_back(dtype, shape, seed++, c.slots, o.master);
      std::vector<Parameter> each;
      for (std::size_t n = 0; n < start.size(); ++n) {
        Options own = o;
        own.lrScale = static_cast<double>(1 + n);
        own.site = o.site + static_cast<double>(n);
        std::vector<Parameter> one{start[n]};
        drive(one, levels()[0], own, 1);
        each.push_back(one[0]);
      }
      CHECK(!same(each, start));
      for (const Level& level : levels()) {
        for (const int threads : {1, 2, 5}) {
          std::vector<Parameter> together = start;
          drive(together, level, o, threads, threads != 2);
          CHECK(same(together, each));
        }
      }
    }
  }
}

TEST(updateOfManyParametersIsAllOrNothing) {
  const Options plain{Rule::kLion, {0.9, 0.99, 0}};
  for (const Level& level : levels()) {
    for (const std::size_t bad : {std::size_t{0}, std::size_t{1}, std::size_t{2}}) {
      std::vector<Parameter> all;
      for (unsigned n = 0; n < 3; ++n) all.emplace_back(DType::float32, std::vector<std::int64_t>{50000}, n + 1, 1, false);
      all[bad].arrays[1].set(49999, std::numeric_limits<double>::infinity());
      const std::vector<Parameter> before = all;
      Options o = plain;
      o.check = true;
      o.parameters = 3;
      Array args = arguments(0.01, 1);
      std::vector<Array*> in{&args}, out;
      for (Parameter& p : all) {
        for (Array& a : p.arrays) in.push_back(&a);
        out.insert(out.end(), {&p.arrays[0], &p.arrays[2]});
      }
      CHECK(run(level, Op::update_, in, out, o.words(), 2) == 1);
      CHECK(same(all, before));
    }
  }
}

TEST(updateOfManyParametersRefusesWrongPrograms) {
  Array args = arguments(1, 1), p(DType::float32, {4}), g = p, m = p, wide(DType::float64, {4}), other(DType::float32, {5});
  Options lion{Rule::kLion, {0.9, 0.99, 0}};
  lion.parameters = 2;
  const auto refuses = [&](const std::vector<Array*>& in, const std::vector<Array*>& out, const std::vector<double>& attrs) {
    try {
      run(levels().back(), Op::update_, in, out, attrs);
    } catch (const Error& e) {
      return e.code == "PROGRAM";
    }
    return false;
  };
  Array p2 = p, m2 = m;
  CHECK(!refuses({&args, &p, &g, &m, &p2, &g, &m2}, {&p, &m, &p2, &m2}, lion.words()));
  CHECK(refuses({&args, &p, &g, &m}, {&p, &m}, lion.words()));
  CHECK(refuses({&args, &p, &g, &m, &p2, &g, &m2}, {&p, &m}, lion.words()));
  CHECK(refuses({&args, &p, &g, &m, &wide, &wide, &wide}, {&p, &m, &wide, &wide}, lion.words()));
  CHECK(refuses({&args, &p, &g, &m, &p2, &other, &m2}, {&p, &m, &p2, &m2}, lion.words()));
  CHECK(refuses({&args, &p, &g, &m, &p2, &g, &other}, {&p, &m, &p2, &other}, lion.words()));
  Options none = lion;
  none.parameters = 0;
  CHECK(refuses({&args}, {}, none.words()));
  std::vector<double> uneven = lion.words();
  uneven.erase(uneven.end() - 1);
  uneven[uneven.size() - 2] = 1;
  CHECK(refuses({&args, &p, &g, &m, &p2, &g, &m2}, {&p, &m, &p2, &m2}, uneven));
}

}  // namespace
