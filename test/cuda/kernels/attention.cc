// Attention over several tiles in both directions, with everything that it may be told, against the CPU.
#include <cmath>

#include "both.h"

namespace {

using steepest::DType;
using steepest::Op;

struct How {
  std::int64_t batch = 1, queries = 1, keys = 1, heads = 1, keyHeads = 1, depth = 1;
  bool causal = false, segments = false, keyMask = false, ids = false, turned = false;
  std::int64_t left = -1, right = -1;
  double softCap = 0, rate = 0;
  std::int64_t biasBatch = 0, biasHeads = 0;  // 0: no bias
};

Array ints(DType dtype, const std::vector<std::int64_t>& shape, int (*f)(std::int64_t)) {
  Array a = Array::empty(dtype, shape);
  for (std::int64_t i = 0; i < a.view.size(); ++i) setNumber(a, i, f(i % shape.back()));
  return a;
}

// [batch, rows, heads, depth]; turned, as a view of [batch, heads, depth, rows].
Array rowsOf(DType dtype, const How& h, std::int64_t rows, std::int64_t heads, unsigned seed) {
  Array a = normalArray(dtype, {h.batch, rows, heads, h.depth}, seed);
  if (!h.turned) return a;
  a.view.strides[1] = 1, a.view.strides[2] = h.depth * rows, a.view.strides[3] = rows;
  return a;
}

void compare(DType dtype, const How& h) {
  const bool bias = h.biasBatch > 0, dropout = h.rate > 0;
  const std::vector<double> attrs{double(h.causal),
                                  double(h.segments),
                                  double(h.keyMask),
                                  double(bias),
                                  double(dropout),
                                  double(h.ids),
                                  double(h.left),
                                  double(h.right),
                                  1 / std::sqrt(double(h.depth)),
                                  h.softCap,
                                  h.rate,
                                  7,
                                  double(h.batch)};
  const Array q = rowsOf(dtype, h, h.queries, h.heads, 1), k = rowsOf(dtype, h, h.keys, h.keyHeads, 2),
              v = rowsOf(dtype, h, h.keys, h.keyHeads, 3), dout = rowsOf(dtype, h, h.queries, h.heads, 4);
  std::vector<Array> optional;
  if (h.segments) {
    optional.push_back(ints(DType::int32, {h.batch, h.queries}, [](std::int64_t i) { return int(i / 50); }));
    optional.push_back(ints(DType::int32, {h.batch, h.keys}, [](std::int64_t i) { return int(i / 60); }));
  }
  if (h.keyMask) optional.push_back(ints(DType::uint8, {h.batch, h.keys}, [](std::int64_t i) { return int(i % 5 != 1); }));
  if (bias) optional.push_back(normalArray(dtype, {h.biasBatch, h.biasHeads, h.queries, h.keys}, 5));
  if (dropout) optional.push_back(ints(DType::int32, {h.batch, 2}, [](std::int64_t i) { return int(77 + i); }));
  if (h.ids) optional.push_back(ints(DType::int32, {h.batch}, [](std::int64_t i) { return int(1000 + 3 * i); }));
  const auto with = [&](std::vector<Array> all) {
    all.insert(all.end(), optional.begin(), optional.end());
    return all;
  };
  const double bound = dtype == DType::bfloat16 ? 2e-2 : dtype == DType::float64 ? 1e-12 : 4e-6;
  const Array out = Array::empty(dtype, {h.batch, h.queries, h.heads, h.depth});
  const Array lse = Array::empty(dtype == DType::float64 ? DType::float64 : DType::float32, {h.batch, h.heads, h.queries});
  const Both forward = runBoth(Op::attention_, with({q, k, v}), {out, lse}, attrs);
  CHECK(apart(forward) <= bound);
  const std::vector<Array> in = with({q, k, v, forward.cpu[0], forward.cpu[1], dout});
  const Array dk = Array::empty(dtype, {h.batch, h.keys, h.keyHeads, h.depth});
  CHECK(apart(runBoth(Op::attentionBackward_, in, {out, dk, dk}, attrs)) <= bound);
  if (bias) {
    const Array db = Array::empty(dtype, {h.biasBatch, h.biasHeads, h.queries, h.keys});
    CHECK(apart(runBoth(Op::attentionBiasBackward_, in, {db}, attrs)) <= bound);
  }
}

void compare(const How& h) {
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) compare(dtype, h);
}

}  // namespace

TEST(cuda_attention_causal_grouped) {
  compare({.batch = 2, .queries = 70, .keys = 70, .heads = 4, .keyHeads = 2, .depth = 17, .causal = true});
  compare({.queries = 67, .keys = 131, .heads = 2, .depth = 80, .causal = true, .left = 70});
}

TEST(cuda_attention_windows_and_masks) {
  compare({.batch = 2, .queries = 131, .keys = 67, .depth = 8, .left = 20, .right = 9});
  compare({.batch = 2, .queries = 130, .keys = 150, .depth = 4, .causal = true, .segments = true, .keyMask = true});
}

TEST(cuda_attention_bias_cap_and_dropout) {
  compare({.batch = 2,
           .queries = 66,
           .keys = 70,
           .heads = 2,
           .depth = 12,
           .ids = true,
           .softCap = 3,
           .rate = 0.3,
           .biasBatch = 2,
           .biasHeads = 1});
  compare({.batch = 2,
           .queries = 34,
           .keys = 65,
           .heads = 2,
           .keyHeads = 1,
           .depth = 5,
           .causal = true,
           .rate = 0.2,
           .biasBatch = 1,
           .biasHeads = 2});
}

TEST(cuda_attention_deep_and_turned) {
  compare({.queries = 9, .keys = 33, .heads = 2, .depth = 200, .turned = true});
  compare({.queries = 3, .keys = 65, .heads = 2, .keyHeads = 2, .depth = 64, .turned = true});
}
