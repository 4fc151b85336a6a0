// The operands of attention and of its gradients.
#pragma once

#include "attrs/attentionDropout.gen.h"
#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

inline std::int64_t roundUp(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

struct AttentionOptions {
  bool causal, segments, keyMask, bias, dropout, ids;
  std::int64_t left, right;  // -1: no limit
  double scale, softCap, rate;
  std::int64_t site, examples;

  template <class A>
  static AttentionOptions of(const A& a) {
    return {a.causal,      a.segments, a.keyMask, a.bias, a.dropout, a.ids,     a.windowLeft,
            a.windowRight, a.scale,    a.softCap, a.rate, a.site,    a.examples};
  }
};

struct AttentionShape {
  std::int64_t batch = 0, queries = 0, keys = 0, heads = 0, keyHeads = 0, depth = 0;
  DType type{};
  std::int64_t share() const { return heads / keyHeads; }
  template <class S>
  std::int64_t paddedDepth() const {
    return roundUp(depth, 64 / static_cast<std::int64_t>(sizeof(S)));
  }
};

// The optional operands, in the order of the attributes.
struct AttentionOperands {
  const View *querySegments = nullptr, *keySegments = nullptr, *keyMask = nullptr, *bias = nullptr, *key = nullptr, *ids = nullptr;

  AttentionOperands(std::span<const View> in, std::size_t at, const AttentionOptions& o) {
    if (o.segments) querySegments = &in[at], keySegments = &in[at + 1], at += 2;
    if (o.keyMask) keyMask = &in[at++];
    if (o.bias) bias = &in[at++];
    if (o.dropout) key = &in[at++];
    if (o.ids) ids = &in[at++];
  }
  static std::size_t count(const AttentionOptions& o) { return 2u * o.segments + o.keyMask + o.bias + o.dropout + o.ids; }
};

// Checks q, k, v and the optional operands that begin at `at`.
inline AttentionShape checkAttention(const Spec& spec, std::size_t at, const AttentionOptions& o) {
  require(spec.in.size() == at + AttentionOperands::count(o), "attention: wrong number of operands");
  const View &q = spec.in[0], &k = spec.in[1], &v = spec.in[2];
  require(q.rank == 4 && k.rank == 4 && isFloat(q.dtype) && k.dtype == q.dtype && v.dtype == q.dtype && sameShape(k, v),
          "attention: wrong q, k or v");
  require(k.shape[0] == q.shape[0] && k.shape[3] == q.shape[3], "attention: batch or depth of q and k differ");
  const std::int64_t heads = q.shape[2], keyHeads = k.shape[2];
  require(keyHeads >= 1 && heads % keyHeads == 0, "attention: heads of k must divide those of q");
  const AttentionShape s{q.shape[0], q.shape[1], k.shape[1], heads, keyHeads, q.shape[3], q.dtype};
  const AttentionOperands operands(spec.in, at, o);
  const auto isMask = [&](const View* m, std::int64_t rows, DType t) {
    return !m || (m->rank == 2 && m->shape[0] == s.batch && m->shape[1] == rows && m->dtype == t && m->contiguous());
  };
  require(isMask(operands.querySegments, s.queries, DType::int32) && isMask(operands.keySegments, s.keys, DType::int32),
          "attention: wrong segments");
  require(isMask(operands.keyMask, s.keys, DType::uint8), "attention: wrong key mask");
  if (const View* b = operands.bias) {
    require(b->rank == 4 && (b->shape[0] == s.batch || b->shape[0] == 1) && (b->shape[1] == heads || b->shape[1] == 1) &&
                b->shape[2] == s.queries && b->shape[3] == s.keys &&
                (b->dtype == q.dtype || (q.dtype == DType::bfloat16 && b->dtype == DType::float32)),
            "attention: wrong bias");
  }
  if (const View* key = operands.key) {
    const bool each = key->rank == 2 && key->shape[0] == s.batch;
    require((key->rank == 1 || each) && key->dim(-1) == 2 && key->dtype == DType::int32 && key->contiguous(), "attention: wrong key");
    require(o.rate >= 0 && o.rate < 1 && o.examples >= 1, "attention: wrong dropout");
  }
  if (const View* ids = operands.ids) {
    require(o.dropout && ids->rank == 1 && ids->shape[0] == s.batch && ids->dtype == DType::int32 && ids->contiguous(),
            "attention: wrong ids");
  }
  return s;
}

// Operands q, k, v; outputs the mixed values and the log-sum-exp of the rows.
inline AttentionShape checkAttentionForward(const Spec& spec, const AttentionOptions& options) {
  const AttentionShape s = checkAttention(spec, 3, options);
  require(spec.out.size() == 2 && sameShape(spec.out[0], spec.in[0]) && spec.out[0].dtype == s.type, "attention: wrong output");
  const View& lse = spec.out[1];
  require(
      lse.rank == 3 && lse.shape[0] == s.batch && lse.shape[1] == s.heads && lse.shape[2] == s.queries && lse.dtype == statistics(s.type),
      "attention: wrong second output");
  return s;
}

// Operands q, k, v, out, lse, gradient of out; the optional ones follow.
constexpr std::size_t kGradientOperands = 6;

inline AttentionShape checkAttentionGradient(const Spec& spec, const AttentionOptions& options) {
  const AttentionShape s = checkAttention(spec, kGradientOperands, options);
  const View &out = spec.in[3], &lse = spec.in[4], &dout = spec.in[5];
  require(sameShape(out, spec.in[0]) && out.dtype == s.type && out.contiguous(), "attention: wrong output");
  require(sameShape(dout, spec.in[0]) && dout.dtype == s.type, "attention: wrong gradient");
  require(lse.rank == 3 && lse.shape[0] == s.batch && lse.shape[1] == s.heads && lse.shape[2] == s.queries &&
              lse.dtype == statistics(s.type) && lse.contiguous(),
          "attention: wrong log-sum-exp");
  return s;
}

inline AttentionShape checkAttentionBackward(const Spec& spec, const AttentionOptions& options) {
  const AttentionShape s = checkAttentionGradient(spec, options);
  require(spec.out.size() == 3, "attention: wrong number of gradients");
  for (std::size_t i = 0; i < 3; ++i)
    require(sameShape(spec.out[i], spec.in[i]) && spec.out[i].dtype == s.type, "attention: wrong gradient");
  return s;
}

inline AttentionShape checkAttentionBiasBackward(const Spec& spec, const AttentionOptions& options) {
  const AttentionShape s = checkAttentionGradient(spec, options);
  require(options.bias && spec.out.size() == 1, "attention: wrong gradient of the bias");
  const View& bias = *AttentionOperands(spec.in, kGradientOperands, options).bias;
  require(sameShape(spec.out[0], bias) && spec.out[0].dtype == bias.dtype, "attention: wrong gradient of the bias");
  return s;
}

inline void checkAttentionDropout(const Spec& spec, const AttentionDropoutAttrs& a) {
  require(spec.in.size() == 1u + a.ids && spec.out.size() == 1 && spec.out[0].rank == 4 && isFloat(spec.out[0].dtype),
          "attentionDropout: wrong operands");
  const View &key = spec.in[0], &out = spec.out[0];
  require((key.rank == 1 || (key.rank == 2 && key.shape[0] == out.shape[0])) && key.dim(-1) == 2 && key.dtype == DType::int32 &&
              key.contiguous(),
          "attentionDropout: wrong key");
  if (a.ids) {
    const View& ids = spec.in[1];
    require(ids.rank == 1 && ids.shape[0] == out.shape[0] && ids.dtype == DType::int32 && ids.contiguous(), "attentionDropout: wrong ids");
  }
  require(a.rate >= 0 && a.rate < 1 && a.examples >= 1, "attentionDropout: wrong rate");
}

}  // namespace steepest::STEEPEST_LEVEL
