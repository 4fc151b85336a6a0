// The interpreter: every row and dtype against plain loops, layouts, chains, in place, any number of threads, wrong programs.
#include "elementwise_cases.h"

namespace {

using namespace steepest;
using namespace steepest::test;

constexpr double kEndless = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

double floorMod(double a, double b) {
  const double r = std::fmod(a, b);
  return r == 0 ? std::copysign(0.0, b) : (r < 0) == (b < 0) ? r : r + b;
}

// What a row gives in float64, for rows that are exact or differ by a rounding; NaN operands are left to functions.cc.
struct Meaning {
  Ew op;
  int arity;
  bool truth, ints;
  double (*value)(double a, double b);
};
const Meaning kMeanings[] = {
    {Ew::add_, 2, false, true, [](double a, double b) { return a + b; }},
    {Ew::sub_, 2, false, true, [](double a, double b) { return a - b; }},
    {Ew::mul_, 2, false, true, [](double a, double b) { return a * b; }},
    {Ew::div_, 2, false, false, [](double a, double b) { return a / b; }},
    {Ew::floorDiv_, 2, false, true, [](double a, double b) { return (a - floorMod(a, b)) / b; }},
    {Ew::remainder_, 2, false, true, floorMod},
    {Ew::neg_, 1, false, true, [](double a, double) { return -a; }},
    {Ew::abs_, 1, false, true, [](double a, double) { return std::fabs(a); }},
    {Ew::sign_, 1, false, true, [](double a, double) { return a > 0   ? 1.0
                                                              : a < 0 ? -1.0
                                                                      : 0.0; }},
    {Ew::maximum_, 2, false, true, [](double a, double b) { return std::max(a, b); }},
    {Ew::minimum_, 2, false, true, [](double a, double b) { return std::min(a, b); }},
    {Ew::equal_, 2, true, true, [](double a, double b) { return double(a == b); }},
    {Ew::notEqual_, 2, true, true, [](double a, double b) { return double(a != b); }},
    {Ew::less_, 2, true, true, [](double a, double b) { return double(a < b); }},
    {Ew::lessEqual_, 2, true, true, [](double a, double b) { return double(a <= b); }},
    {Ew::greater_, 2, true, true, [](double a, double b) { return double(a > b); }},
    {Ew::greaterEqual_, 2, true, true, [](double a, double b) { return double(a >= b); }},
    {Ew::isFinite_, 1, true, true, [](double a, double) { return double(std::isfinite(a)); }},
    {Ew::isNaN_, 1, true, true, [](double a, double) { return double(std::isnan(a)); }},
    {Ew::square_, 1, false, true, [](double a, double) { return a * a; }},
    {Ew::floor_, 1, false, true, [](double a, double) { return std::floor(a); }},
    {Ew::ceil_, 1, false, true, [](double a, double) { return std::ceil(a); }},
    {Ew::round_, 1, false, true, [](double a, double) { return std::nearbyint(a); }},
    {Ew::relu_, 1, false, true, [](double a, double) { return std::max(a, 0.0); }},
};

double roundTo(DType t, double x) {
  Memory one(t, 1);
  one.set(0, x);
  return one.get(0);
}

Memory fill(DType dtype, std::int64_t n, unsigned seed) {
  Memory m(dtype, n);
  std::mt19937 random(seed);
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = std::uniform_real_distribution<double>(dtype == DType::uint8 ? 0 : -9, 9)(random);
    m.set(i, isFloat(dtype) && random() % 4 ? x : std::trunc(x));
  }
  return m;
}

}  // namespace

TEST(elementwise_rows) {
  for (const Level& level : levels()) {
    for (const Meaning& row : kMeanings) {
      for (const DType t : {DType::float32, DType::bfloat16, DType::float64, DType::int32, DType::uint8}) {
        if (!isFloat(t) && !row.ints) continue;
        Memory a = fill(t, 77, 1), b = fill(t, 77, 2);
        for (std::int64_t i = 0; i < 77; ++i) {
          // Division by zero is tested by itself.
          if (b.get(i) == 0) b.set(i, 3);
        }
        const DType to = row.truth ? DType::uint8 : t;
        std::vector<Memory*> operands{&a};
        if (row.arity == 2) operands.push_back(&b);
        Memory y = apply(level, row.op, operands, t, to);
        for (std::int64_t i = 0; i < 77; ++i) {
          const double want = row.value(a.get(i), b.get(i));
          const double bound = isFloat(t) && !row.truth ? (t == DType::bfloat16  ? 0x1p-8
                                                           : t == DType::float32 ? 0x1p-23
                                                                                 : 0x1p-52) *
                                                              (std::fabs(want) + 1e-30)
                                                        : 0;
          if (!isFloat(t))
            CHECK(y.get(i) == roundTo(to, want));
          else
            CHECK_NEAR(y.get(i), want, bound);
          if (y.get(i) != y.get(i)) std::printf("  %s of %s\n", kRowNames[static_cast<int>(row.op)], nameOf(t));
        }
      }
    }
  }
}

TEST(elementwise_logic) {
  for (const Level& level : levels()) {
    Memory a(DType::uint8, 4), b(DType::uint8, 4);
    for (int i = 0; i < 4; ++i) a.set(i, i & 1 ? 7 : 0), b.set(i, i & 2 ? 1 : 0);
    Memory both = apply(level, Ew::logicalAnd_, {&a, &b}, DType::uint8, DType::uint8);
    Memory one = apply(level, Ew::logicalOr_, {&a, &b}, DType::uint8, DType::uint8);
    Memory none = apply(level, Ew::logicalNot_, {&a}, DType::uint8, DType::uint8);
    for (int i = 0; i < 4; ++i) {
      CHECK(both.get(i) == (i == 3));
      CHECK(one.get(i) == (i != 0));
      CHECK(none.get(i) == !(i & 1));
    }
    for (const DType t : {DType::float32, DType::bfloat16, DType::float64, DType::int32, DType::uint8}) {
      Memory x = fill(t, 4, 3), y = fill(t, 4, 4);
      Memory z = apply(level, Ew::where_, {&a, &x, &y}, t, t);
      for (int i = 0; i < 4; ++i) CHECK(z.get(i) == (i & 1 ? x : y).get(i));
    }
  }
}

TEST(elementwise_special) {
  for (const Level& level : levels()) {
    for (const DType t : {DType::float32, DType::bfloat16, DType::float64}) {
      const auto give = [&](Ew op, double a, double b) {
        Memory x(t, 1), y(t, 1);
        x.set(0, a), y.set(0, b);
        const bool truth = op == Ew::equal_ || op == Ew::notEqual_ || op == Ew::isNaN_ || op == Ew::isFinite_;
        const bool one = op == Ew::isNaN_ || op == Ew::isFinite_ || op == Ew::relu_ || op == Ew::sign_;
        return apply(level, op, one ? std::vector<Memory*>{&x} : std::vector<Memory*>{&x, &y}, t, truth ? DType::uint8 : t).get(0);
      };
      CHECK(std::isnan(give(Ew::maximum_, kNan, 1)) && std::isnan(give(Ew::maximum_, 1, kNan)));
      CHECK(std::isnan(give(Ew::minimum_, kNan, 1)) && std::isnan(give(Ew::minimum_, 1, kNan)));
      CHECK(std::isnan(give(Ew::relu_, kNan, 0)) && std::isnan(give(Ew::sign_, kNan, 0)));
      CHECK(give(Ew::equal_, kNan, kNan) == 0 && give(Ew::notEqual_, kNan, kNan) == 1);
      CHECK(give(Ew::isNaN_, kNan, 0) == 1 && give(Ew::isNaN_, kEndless, 0) == 0);
      CHECK(give(Ew::isFinite_, kNan, 0) == 0 && give(Ew::isFinite_, -kEndless, 0) == 0 && give(Ew::isFinite_, 3e38, 0) == 1);
      // As in NumPy.
      // 0.1 is a little above a tenth in all three, though 1 / 0.1 rounds to 10.
      CHECK(give(Ew::floorDiv_, 1, 0.1) == 9);
      CHECK(std::isnan(give(Ew::remainder_, 5, 0)) && give(Ew::floorDiv_, 5, 0) == kEndless && give(Ew::floorDiv_, -5, 0) == -kEndless);
      CHECK(give(Ew::remainder_, 5, kEndless) == 5 && give(Ew::remainder_, -5, kEndless) == kEndless);
      CHECK(give(Ew::floorDiv_, 5, kEndless) == 0 && give(Ew::floorDiv_, -5, kEndless) == -1);
      CHECK(std::isnan(give(Ew::remainder_, kEndless, 3)));
    }
    const DType i = DType::int32;
    Memory a(i, 5), b(i, 5);
    const int as[] = {7, -7, 7, INT32_MIN, 5}, bs[] = {-2, 2, 0, -1, 3};
    for (int k = 0; k < 5; ++k) a.set(k, as[k]), b.set(k, bs[k]);
    Memory q = apply(level, Ew::floorDiv_, {&a, &b}, i, i), r = apply(level, Ew::remainder_, {&a, &b}, i, i);
    const int qs[] = {-4, -4, 0, INT32_MIN, 1}, rs[] = {-1, 1, 0, 0, 2};
    for (int k = 0; k < 5; ++k) CHECK(q.get(k) == qs[k] && r.get(k) == rs[k]);
    // A quotient beyond the last digit still has its rest.
    Memory x(DType::float64, 2), y(DType::float64, 2);
    x.set(0, 1e300), y.set(0, 7), x.set(1, -1e300), y.set(1, 7);
    Memory rest = apply(level, Ew::remainder_, {&x, &y}, DType::float64, DType::float64);
    CHECK(rest.get(0) == std::fmod(1e300, 7) && rest.get(1) == 7 - std::fmod(1e300, 7));
  }
}

TEST(elementwise_casts) {
  const double values[] = {0,          1,     -1,  1.5,  -1.5, 2.9999, 255,      256, -129, 65535.75, 16777217, -2147483648.0,
                           2147483647, 1e-30, 3e9, -3e9, 1e30, 0.1,    kEndless, kNan};
  constexpr int n = std::size(values);
  const DType all[] = {DType::float32, DType::bfloat16, DType::float64, DType::int32, DType::uint8};
  for (const Level& level : levels()) {
    for (const DType from : all) {
      Memory x(from, n);
      for (int i = 0; i < n; ++i) x.set(i, isFloat(from) || std::fabs(values[i]) <= 2147483648.0 ? values[i] : 0);
      for (const DType to : all) {
        Memory y = apply(level, Ew::cast_, {&x}, from, to);
        for (int i = 0; i < n; ++i) {
          const double v = x.get(i);
          // Out of range: INT_MIN, whose low byte is 0.
          const bool fits = v >= -2147483648.0 && v < 2147483648.0;
          const double want = isFloat(to) ? v : roundTo(to, fits ? std::trunc(v) : -2147483648.0);
          if (std::isnan(want))
            CHECK(std::isnan(y.get(i)));
          else
            CHECK(y.get(i) == roundTo(to, want));
        }
      }
    }
  }
}

namespace {

struct Layout {
  std::vector<std::int64_t> strides;
  std::int64_t offset, count;
};

// Layouts of a shape: contiguous, axes swapped, every other element, reversed, and broadcast along some axes.
std::vector<Layout> layouts(const std::vector<std::int64_t>& shape) {
  const std::size_t rank = shape.size();
  const auto strides = [&](auto length) {
    std::vector<std::int64_t> s(rank);
    std::int64_t step = 1;
    for (std::size_t i = rank; i-- > 0;) {
      s[i] = step;
      step *= length(i);
    }
    return s;
  };
  std::int64_t size = 1;
  for (const auto n : shape) size *= n;
  std::vector<Layout> all{{strides([&](std::size_t i) { return shape[i]; }), 0, size}};
  Layout wide{strides([&](std::size_t i) { return shape[i] + 2; }), 3, 8 * size + 1000};
  for (auto& s : wide.strides) s *= 2;
  wide.count = 4;
  for (std::size_t i = 0; i < rank; ++i) wide.count += wide.strides[i] * shape[i];
  all.push_back(wide);
  Layout back = all[0];
  for (std::size_t i = 0; i < rank; ++i) {
    back.offset += back.strides[i] * std::max<std::int64_t>(0, shape[i] - 1);
    back.strides[i] = -back.strides[i];
  }
  all.push_back(back);
  Layout swapped = all[0];
  std::int64_t step = 1;
  for (std::size_t i = 0; i < rank; ++i) {
    swapped.strides[i] = step;
    step *= shape[i];
  }
  all.push_back(swapped);
  for (std::size_t mask = 1; mask < std::size_t{1} << rank; ++mask) {
    Layout cast{strides([&](std::size_t i) { return mask >> i & 1 ? 1 : shape[i]; }), 0, size};
    for (std::size_t i = 0; i < rank; ++i) {
      if (mask >> i & 1) cast.strides[i] = 0;
    }
    all.push_back(cast);
  }
  return all;
}

std::int64_t offsetOf(const std::vector<std::int64_t>& shape, const Layout& layout, std::int64_t i) {
  std::int64_t at = layout.offset;
  for (std::size_t d = shape.size(); d-- > 0;) {
    at += i % shape[d] * layout.strides[d];
    i /= shape[d];
  }
  return at;
}

// Shapes on both sides of vectors, blocks and tiles.
const std::vector<std::vector<std::int64_t>> kShapes = {
    {},         {1},     {0},        {3, 0, 2},    {5},        {16},        {1023},         {1024},
    {1025},     {3, 5},  {7, 128},   {5, 1040},    {3, 2050},  {2, 3, 4},   {2, 3, 160},    {1, 1, 9},
    {40, 1, 3}, {70000}, {300, 257}, {2, 3, 2, 5}, {130, 512}, {9, 20, 32}, {2, 2, 2, 2, 2}};

}  // namespace

// x * y + z with mixed layouts and dtypes gives what a loop gives.
TEST(elementwise_layouts) {
  std::mt19937 random(5);
  for (const Level& level : levels()) {
    for (const auto& shape : kShapes) {
      const std::vector<Layout> all = layouts(shape);
      std::int64_t size = 1;
      for (const auto n : shape) size *= n;
      for (std::size_t pick = 0; pick < all.size(); ++pick) {
        const DType t = size > 5000 || pick % 3 == 0 ? DType::float32 : pick % 3 == 1 ? DType::bfloat16 : DType::float64;
        const Layout chosen[] = {all[pick], all[random() % all.size()], all[random() % all.size()]};
        std::vector<Memory> memory;
        std::vector<View> in;
        for (const Layout& layout : chosen) {
          memory.push_back(fill(t, std::max<std::int64_t>(1, layout.count + layout.offset), static_cast<unsigned>(random())));
          View v = viewOf(t, shape);
          for (std::size_t d = 0; d < shape.size(); ++d) v.strides[d] = layout.strides[d];
          in.push_back(v);
        }
        for (int k = 0; k < 3; ++k) in[k].data = memory[k].bytes.data() + chosen[k].offset * static_cast<std::int64_t>(sizeOf(t));
        Chain chain;
        chain.shape = shape;
        chain.constants = {2};
        // (x y + z) 2, and x y.
        chain.steps = {{Ew::mul_, t, t, {0, 1}}, {Ew::add_, t, t, {4, 2}}, {Ew::mul_, t, t, {5, 3}}};
        chain.outputs = {6, 4};
        Memory whole(t, size), product(t, size);
        View out[2] = {viewOf(t, shape), viewOf(t, shape)};
        out[0].data = whole.bytes.data();
        out[1].data = product.bytes.data();
        run(level, chain, in, {out[0], out[1]}, 1 + static_cast<int>(pick % 2) * 2);
        bool right = true;
        for (std::int64_t i = 0; right && i < size; ++i) {
          double v[3];
          for (int k = 0; k < 3; ++k) v[k] = memory[k].get(offsetOf(shape, chosen[k], i));
          const double xy = roundTo(t, v[0] * v[1]);
          right = product.get(i) == xy && whole.get(i) == roundTo(t, 2 * roundTo(t, xy + v[2]));
        }
        CHECK(right);
      }
    }
  }
}

// A step may read registers of several widths, and a long chain reuses them.
TEST(elementwise_chain) {
  const std::int64_t n = 3001;
  const DType f = DType::float32, d = DType::float64, i = DType::int32, u = DType::uint8, h = DType::bfloat16;
  for (const Level& level : levels()) {
    Memory x = fill(f, n, 6), w = fill(i, n, 7), m = fill(u, n, 8);
    std::vector<View> in{viewOf(f, {n}), viewOf(i, {n}), viewOf(u, {n})};
    in[0].data = x.bytes.data(), in[1].data = w.bytes.data(), in[2].data = m.bytes.data();
    Chain chain;
    chain.shape = {n};
    chain.constants = {3, 0.1};
    chain.steps = {
        {Ew::cast_, f, d, {0}},          // 5  double x
        {Ew::cast_, i, d, {1}},          // 6  double w
        {Ew::mul_, d, d, {5, 4}},        // 7  0.1 x
        {Ew::less_, d, u, {7, 6}},       // 8  0.1 x < w
        {Ew::where_, d, d, {8, 6, 7}},   // 9
        {Ew::add_, i, i, {1, 3}},        // 10 w + 3
        {Ew::where_, i, i, {2, 10, 1}},  // 11
        {Ew::cast_, d, h, {9}},          // 12
        {Ew::mul_, h, h, {12, 4}},       // 13 times bfloat16 0.1
        {Ew::add_, u, u, {2, 8}},        // 14
        {Ew::cast_, i, u, {11}},         // 15
        {Ew::sub_, u, u, {15, 3}},       // 16 wraps
    };
    chain.outputs = {9, 11, 13, 16, 14, 0};
    const DType types[] = {d, i, h, u, u, f};
    std::vector<Memory> results;
    std::vector<View> out;
    for (const DType t : types) results.emplace_back(t, n), out.push_back(viewOf(t, {n}));
    for (std::size_t k = 0; k < out.size(); ++k) out[k].data = results[k].bytes.data();
    run(level, chain, in, out, 2);
    bool right = true;
    for (std::int64_t k = 0; k < n; ++k) {
      const double tenth = x.get(k) * 0.1, picked = tenth < w.get(k) ? w.get(k) : tenth;
      const double whole = m.get(k) != 0 ? w.get(k) + 3 : w.get(k);
      right = right && results[0].get(k) == picked && results[1].get(k) == whole;
      right = right && results[2].get(k) == roundTo(h, roundTo(h, picked) * roundTo(h, 0.1));
      right = right && results[3].get(k) == roundTo(u, roundTo(u, whole) - 3) && results[4].get(k) == m.get(k) + (tenth < w.get(k));
      right = right && results[5].get(k) == x.get(k);
    }
    CHECK(right);
  }
}

// Results may lie where an operand of the same size lies, even where that operand is read by the last step too.
TEST(elementwise_in_place) {
  for (const Level& level : levels()) {
    for (const std::int64_t n : {7, 1024, 5003}) {
      Memory x = fill(DType::float32, n, 9), y = fill(DType::float32, n, 10), x0 = x, y0 = y;
      std::vector<View> in{viewOf(DType::float32, {n}), viewOf(DType::float32, {n})};
      in[0].data = x.bytes.data(), in[1].data = y.bytes.data();
      Chain chain;
      chain.shape = {n};
      chain.steps = {{Ew::add_, DType::float32, DType::float32, {0, 1}},
                     {Ew::sub_, DType::float32, DType::float32, {0, 1}},
                     {Ew::mul_, DType::float32, DType::float32, {2, 0}}};
      chain.outputs = {2, 4};
      run(level, chain, in, {in[0], in[1]}, 3);
      bool right = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const float sum = x0.as<float>(i) + y0.as<float>(i);
        right = right && x.as<float>(i) == sum && y.as<float>(i) == sum * x0.as<float>(i);
      }
      CHECK(right);
    }
  }
}

TEST(elementwise_threads) {
  const std::vector<std::int64_t> shape{61, 3001};
  const std::int64_t n = 61 * 3001;
  std::vector<Memory> results;
  Memory x = fill(DType::float32, n, 11), row = fill(DType::float32, 3001, 12);
  for (const Level& level : levels()) {
    for (const int threads : {1, 2, 5}) {
      std::vector<View> in{viewOf(DType::float32, shape), viewOf(DType::float32, shape)};
      in[0].data = x.bytes.data(), in[1].data = row.bytes.data();
      in[1].strides[0] = 0;
      Chain chain;
      chain.shape = shape;
      const DType f = DType::float32;
      chain.steps = {
          {Ew::add_, f, f, {0, 1}}, {Ew::gelu_, f, f, {2}}, {Ew::tanh_, f, f, {3}}, {Ew::pow_, f, f, {3, 1}}, {Ew::mul_, f, f, {4, 5}}};
      chain.outputs = {6};
      results.emplace_back(f, n);
      View out = viewOf(f, shape);
      out.data = results.back().bytes.data();
      run(level, chain, in, {out}, threads);
      bool same = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const float a = results[0].as<float>(i), b = results.back().as<float>(i);
        same = same && (std::memcmp(&a, &b, 4) == 0 || (std::isnan(a) && std::isnan(b)));
      }
      CHECK(same);
    }
  }
}

TEST(elementwise_wrong) {
  const DType f = DType::float32, u = DType::uint8;
  const auto refused = [](const Chain& chain, std::vector<View> in, std::vector<View> out) {
    const std::vector<double> words = chain.words();
    try {
      level().kernels()[static_cast<int>(Op::elementwise_)](Spec{in, out, words, 1});
    } catch (const Error& e) {
      return e.code == "PROGRAM";
    }
    return false;
  };
  const View v = viewOf(f, {4});
  Chain good;
  good.shape = {4};
  good.constants = {1};
  good.steps = {{Ew::add_, f, f, {0, 1}}};
  good.outputs = {2};
  CHECK(!refused(good, {v}, {v}));
  const auto changed = [&](auto change) {
    Chain chain = good;
    change(chain);
    return refused(chain, {v}, {v});
  };
  CHECK(changed([](Chain& c) { c.outputs = {3}; }));
  CHECK(changed([](Chain& c) { c.outputs = {1}; }));
  CHECK(changed([](Chain& c) { c.outputs = {}; }));
  CHECK(changed([](Chain& c) { c.shape = {5}; }));
  CHECK(changed([](Chain& c) { c.shape = {4, 1}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::add_, f, f, {0, 2}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::add_, f, f, {0}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::exp_, f, f, {0, 0}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::add_, DType::float64, DType::float64, {0, 1}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::add_, f, u, {0, 1}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::less_, f, f, {0, 1}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{Ew::where_, f, f, {0, 0, 0}}}; }));
  CHECK(changed([&](Chain& c) { c.steps = {{static_cast<Ew>(kEws), f, f, {0, 1}}}; }));
  CHECK(refused(good, {v}, {viewOf(DType::int32, {4})}));
  CHECK(refused(good, {viewOf(DType::int32, {4})}, {viewOf(DType::int32, {4})}));
  Chain ints = good;
  ints.steps = {{Ew::exp_, DType::int32, DType::int32, {0}}};
  CHECK(refused(ints, {viewOf(DType::int32, {4})}, {viewOf(DType::int32, {4})}));
}
