// The update rules on a GPU give the CPU's bits: every rule, storage and kind of state, at sizes around warps, blocks and segments, several
// parameters in one launch.
#include "attrs/globalNorm.gen.h"
#include "attrs/quantizeBlockwise.gen.h"
#include "both.h"

#include "cpu/blockwise_map.h"
#include "rules/info.h"

namespace {

using namespace steepest;
using steepest::cuda::RuleInfo;

struct Row {
  const char* name;
  RuleInfo info;
  std::vector<double> hyper;
};

template <class Rule>
Row rowOf(const char* name) {
  const typename Rule::Hyper h{};
  std::vector<double> words(static_cast<std::size_t>(steepest::cuda::hypersOf<Rule>()));
  std::memcpy(words.data(), &h, words.size() * sizeof(double));
  return {name, steepest::cuda::infoOf<Rule>(), words};
}

const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
#define ROW(Rule) rowOf<steepest::cuda::rules::Rule>(#Rule),
      STEEPEST_RULES(ROW)
#undef ROW
  };
  return all;
}

struct Case {
  bool scale, check, stochastic, master, blockwise;
  DType weights, grads;
  double scaleBy = 0.5;
};

// One step of some parameters; in place on the GPU if `over`.
Both step(int rule, const Case& c, const std::vector<std::vector<std::int64_t>>& shapes, double t, bool over, double poison = 0) {
  const Row& row = rows()[static_cast<std::size_t>(rule)];
  std::vector<Array> in, out;
  std::vector<int> alias;
  in.push_back(Array::of<double>(DType::float64, {3}, {3e-3, t, 0}));
  if (c.scale) in.push_back(Array::of<float>(DType::float32, {}, {static_cast<float>(c.scaleBy)}));
  if (c.stochastic) in.push_back(Array::of<std::int32_t>(DType::int32, {2}, {77, -5}));
  unsigned seed = 1;
  for (const auto& shape : shapes) {
    const auto target = [&](Array a) {
      out.push_back(Array::empty(a.view.dtype, std::vector<std::int64_t>(a.view.shape, a.view.shape + a.view.rank)));
      alias.push_back(over ? static_cast<int>(in.size()) : -1);
      in.push_back(std::move(a));
    };
    target(normalArray(c.weights, shape, seed++));
    in.push_back(normalArray(c.grads, shape, seed++, 0.1));
    const std::int64_t n = in.back().view.size();
    if (poison != 0 && n > 0) setNumber(in.back(), n - 1, poison);
    if (c.master) {
      std::vector<std::int64_t> planes = shape;
      planes.insert(planes.begin(), 2);
      Array low = Array::empty(DType::uint8, planes);
      std::mt19937 random(seed++);
      for (std::byte& b : low.bytes) b = static_cast<std::byte>(random());
      target(low);
    }
    for (int k = 0; k < row.info.slots; ++k) {
      const bool positive = row.info.positive >> k & 1;
      if (c.blockwise) {
        Array codes = Array::empty(DType::uint8, shape);
        std::mt19937 random(seed++);
        for (std::byte& b : codes.bytes) b = static_cast<std::byte>(random());
        target(codes);
        target(normalArray(DType::float32, {steepest::cuda::quantBlocks(n)}, seed++, 0.01, 1));
      } else {
        Array s = normalArray(DType::float32, shape, seed++, 0.1);
        for (std::int64_t i = 0; positive && i < n; ++i) setNumber(s, i, std::abs(numberAt(s, i)));
        target(s);
      }
    }
  }
  std::vector<double> attrs{static_cast<double>(rule), static_cast<double>(row.hyper.size())};
  attrs.insert(attrs.end(), row.hyper.begin(), row.hyper.end());
  for (const bool b : {c.scale, c.check, c.stochastic, c.master, c.blockwise}) attrs.push_back(b);
  attrs.push_back(static_cast<double>(shapes.size()));
  for (std::size_t i = 0; i < shapes.size(); ++i) attrs.push_back(i % 3 == 0 ? 1 : 0.5);
  attrs.push_back(static_cast<double>(shapes.size()));
  for (std::size_t i = 0; i < shapes.size(); ++i) attrs.push_back(static_cast<double>(7 * i));
  return runBoth(Op::update_, in, out, attrs, alias);
}

constexpr DType f32 = DType::float32, b16 = DType::bfloat16;
const Case kCases[] = {
    {false, false, false, false, false, f32, f32}, {true, true, false, false, false, b16, b16}, {true, false, true, false, false, b16, b16},
    {false, true, false, true, false, b16, f32},   {true, false, false, false, true, f32, f32}, {false, false, false, true, true, b16, f32},
    {false, false, true, false, true, b16, b16},
};

TEST(cudaUpdate) {
  const std::vector<std::vector<std::int64_t>> small = {{5, 3}, {}, {0}, {1}, {257}, {3, 300}, {33, 64}, {2, 0}, {7, 17}};
  for (int rule = 0; rule < static_cast<int>(rows().size()); ++rule) {
    for (const Case& c : kCases) {
      const bool over = (&c - kCases) % 2 == 1;
      const bool same = step(rule, c, small, 3, over).equal();
      if (!same) std::printf("%s, case %d\n", rows()[static_cast<std::size_t>(rule)].name, static_cast<int>(&c - kCases));
      CHECK(same);
    }
  }
}

// Segments longer than one, several tiles, first step.
TEST(cudaUpdateLong) {
  for (const int rule : {6, 12, 14}) {
    for (const int c : {0, 3, 4}) CHECK(step(rule, kCases[c], {{2, 33001}, {40007}}, 1, true).equal());
  }
}

TEST(cudaUpdateRefuses) {
  for (const int rule : {4, 15}) {
    for (const double bad : {std::numeric_limits<double>::infinity(), std::nan("")}) {
      Both r = step(rule, kCases[3], {{300}, {4, 70}}, 2, true, bad);
      CHECK(r.cpuFault == 1 && r.cudaFault == 1);
      Case c = kCases[1];
      c.scaleBy = bad;
      r = step(rule, c, {{300}}, 2, true);
      CHECK(r.cpuFault == 1 && r.cudaFault == 1);
    }
  }
}

TEST(cudaGlobalNorm) {
  for (const double kind : {0., 1., 2.}) {
    for (const DType t : {f32, b16}) {
      const std::vector<Array> in = {normalArray(t, {33001}, 1), normalArray(t, {}, 2), normalArray(t, {0, 3}, 3),
                                     normalArray(t, {7, 111}, 4, 1e-20), normalArray(t, {16}, 5)};
      CHECK(runBoth(Op::globalNorm_, in, {Array::empty(f32, {})}, {kind, 0}).equal());
    }
    CHECK(runBoth(Op::globalNorm_, {normalArray(f32, {0}, 1)}, {Array::empty(f32, {})}, {kind, 0}).equal());
    CHECK(runBoth(Op::globalNorm_, {normalArray(f32, {50}, 1, 0)}, {Array::empty(f32, {})}, {kind, 0}).equal());
    std::vector<Array> bad = {normalArray(f32, {50}, 1)};
    setNumber(bad[0], 49, std::numeric_limits<double>::infinity());
    CHECK(runBoth(Op::globalNorm_, bad, {Array::empty(f32, {})}, {kind, 0}).equal());
  }
}

TEST(cudaGlobalNormInPieces) {
  std::vector<Array> parts;
  for (const std::int64_t n : {0, 1, 32768, 70001}) {
    const Both one = runBoth(Op::globalNorm_, {normalArray(f32, {n}, 3)}, {Array::empty(DType::float64, {(n + 32767) / 32768})}, {0, 1});
    CHECK(one.equal());
    parts.push_back(one.cpu[0]);
  }
  CHECK(runBoth(Op::globalNorm_, parts, {Array::empty(f32, {})}, {0, 2}).equal());
}

TEST(cudaBlockwise) {
  for (const double either : {0., 1.}) {
    for (const std::int64_t n : {0, 1, 255, 256, 1000, 2049}) {
      Array x = normalArray(f32, {n}, 9, 3);
      for (std::int64_t i = 0; either == 0 && i < n; ++i) setNumber(x, i, std::abs(numberAt(x, i)));
      for (std::int64_t i = 256; i < n && i < 512; ++i) setNumber(x, i, 0);
      const std::int64_t blocks = steepest::cuda::quantBlocks(n);
      const Both q = runBoth(Op::quantizeBlockwise_, {x}, {Array::empty(DType::uint8, {n}), Array::empty(f32, {blocks})}, {either});
      CHECK(q.equal());
      CHECK(runBoth(Op::dequantizeBlockwise_, q.cpu, {Array::empty(f32, {n})}, {either}).equal());
    }
  }
}

}  // namespace
