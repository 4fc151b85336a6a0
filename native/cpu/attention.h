// What attention forward and backward share: operands, which columns a row sees, and packing of heads.
#pragma once

#include "cpu/attention_checks.h"
#include "cpu/attention_product.h"
#include "cpu/random.h"

namespace steepest::STEEPEST_LEVEL {

// Rows of queries that are worked on at once, and columns of scores that are held for them.
constexpr std::int64_t kQueryBlock = 64;
constexpr std::int64_t kKeyChunk = 512;
// A row of scores is a cache line longer than its chunk: at a power of two all rows would fall into the same sets of the cache.
constexpr std::int64_t kScoreRow = kKeyChunk + 16;
// Columns of a panel of transposed keys.
template <class S>
inline constexpr std::int64_t kPanel = 256 / sizeof(S);

// Scratch is laid out by the same code that measures it.
class Layout {
 public:
  explicit Layout(std::byte* base) : base_(reinterpret_cast<std::uintptr_t>(base)) {}
  template <class X>
  X* take(std::int64_t n) {
    X* const p = reinterpret_cast<X*>(base_ + used_);
    used_ += (static_cast<std::size_t>(n) * sizeof(X) + 63) / 64 * 64;
    return p;
  }
  std::size_t used() const { return used_; }

 private:
  std::uintptr_t base_;
  std::size_t used_ = 0;
};

// Writes the factor of dropout (0, or 1/(1-rate)) for columns [begin, end) of one row of scores.
template <class S>
void dropoutRow(const AttentionShape& shape, const AttentionOptions& options, const AttentionOperands& operands, std::int64_t b,
                std::int64_t h, std::int64_t t, std::int64_t begin, std::int64_t end, S* out) {
  const View& keys = *operands.key;
  const std::int32_t* words = keys.as<std::int32_t>() + (keys.rank == 2 ? b * 2 : 0);
  const PhiloxKey key{static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1])};
  const std::int64_t inner = (h * shape.queries + t) * shape.keys;
  const std::int64_t first = operands.ids ? inner : b % options.examples * shape.heads * shape.queries * shape.keys + inner;
  const std::uint32_t example = operands.ids ? static_cast<std::uint32_t>(operands.ids->as<std::int32_t>()[b]) : 0;
  const std::uint64_t threshold = philoxThreshold(options.rate);
  const S kept = static_cast<S>(1 / (1 - options.rate));
  for (std::int64_t at = first + begin; at < first + end;) {
    vi drawn[4];
    philoxGroup(drawn, key, static_cast<std::uint64_t>(at / 64), example, static_cast<std::uint32_t>(options.site), Stream::attention);
    alignas(64) std::int32_t bits[64];
    for (int p = 0; p < 4; ++p) store(bits + 16 * p, drawn[p]);
    const std::int64_t skip = at % 64, n = std::min(64 - skip, first + end - at);
    S* const to = out + (at - first);
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<std::uint32_t>(bits[skip + i]) < threshold ? S(0) : kept;
    at += n;
  }
}

// Which columns a row of scores sees, and what is added to them. One per thread; remembers the mask of the last segment.
template <class S>
class Visible {
 public:
  Visible(const AttentionShape& shape, const AttentionOptions& options, const AttentionOperands& operands, Layout& layout)
      : shape_(shape), options_(options), operands_(operands) {
    mask_ = layout.take<S>(options.segments || options.keyMask ? shape.keys : 0);
    sum_ = layout.take<S>(options.bias ? shape.keys : 0);
  }

  struct Range {
    std::int64_t begin, end;
  };

  // Everything outside the range is masked; inside it `added` may still hold -infinity.
  Range range(std::int64_t b, std::int64_t t) {
    Range r{0, shape_.keys};
    const std::int64_t diagonal = t + shape_.keys - shape_.queries;
    std::int64_t left = options_.left, right = options_.right;
    if (options_.causal) right = right < 0 ? 0 : std::min<std::int64_t>(right, 0);
    if (left >= 0) r.begin = std::max(r.begin, diagonal - left);
    if (right >= 0) r.end = std::min(r.end, diagonal + right + 1);
    if (operands_.keySegments || operands_.keyMask) {
      findMask(b, t);
      r.begin = std::max(r.begin, seen_.begin);
      r.end = std::min(r.end, seen_.end);
    }
    if (r.begin >= r.end) r = {0, 0};
    return r;
  }

  // What is added to the scores of columns [begin, end), indexed by column; null for nothing.
  const S* added(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t begin, std::int64_t end) {
    const S* mask = nullptr;
    if (operands_.keySegments || operands_.keyMask) {
      findMask(b, t);
      if (!solid_) mask = mask_;
    }
    if (!operands_.bias) return mask;
    const View& v = *operands_.bias;
    const std::int64_t at = (v.shape[0] == 1 ? 0 : b * v.strides[0]) + (v.shape[1] == 1 ? 0 : h * v.strides[1]) + t * v.strides[2];
    if constexpr (std::is_same_v<S, float>) {
      if (v.dtype == DType::bfloat16) {
        addBias(v.as<bf16>() + at, v.strides[3], mask, begin, end);
        return sum_;
      }
    }
    addBias(v.as<S>() + at, v.strides[3], mask, begin, end);
    return sum_;
  }

 private:
  using V = typename Math<S>::V;

  template <class T>
  void addBias(const T* bias, std::int64_t stride, const S* mask, std::int64_t begin, std::int64_t end) {
    if (stride == 1) {
      eachVector<V>(end - begin, [&](auto w, std::int64_t i) {
        const V x = w.load(bias + begin + i);
        w.store(sum_ + begin + i, mask ? x + w.load(mask + begin + i) : x);
      });
    } else {
      for (std::int64_t j = begin; j < end; ++j) {
        const V x = V::load(bias + j * stride, 1);
        store(sum_ + j, mask ? x + V::load(mask + j, 1) : x, 1);
      }
    }
  }

  void findMask(std::int64_t b, std::int64_t t) {
    const std::int32_t segment = operands_.querySegments ? operands_.querySegments->as<std::int32_t>()[b * shape_.queries + t] : 0;
    if (b == batch_ && segment == segment_) return;
    batch_ = b;
    segment_ = segment;
    const std::int32_t* segments = operands_.keySegments ? operands_.keySegments->as<std::int32_t>() + b * shape_.keys : nullptr;
    const std::uint8_t* present = operands_.keyMask ? operands_.keyMask->as<std::uint8_t>() + b * shape_.keys : nullptr;
    seen_ = {shape_.keys, 0};
    std::int64_t count = 0;
    for (std::int64_t j = 0; j < shape_.keys; ++j) {
      const bool sees = (!segments || segments[j] == segment) && (!present || present[j]);
      mask_[j] = sees ? S(0) : -std::numeric_limits<S>::infinity();
      if (!sees) continue;
      ++count;
      seen_.begin = std::min(seen_.begin, j);
      seen_.end = j + 1;
    }
    solid_ = count == seen_.end - seen_.begin;
  }

  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const AttentionOperands& operands_;
  S *mask_, *sum_;
  std::int64_t batch_ = -1;
  std::int32_t segment_ = 0;
  Range seen_{0, 0};
  bool solid_ = true;
};

// Rows [begin, begin + n) of one head of [batch, rows, heads, depth] with any strides, as n dense rows padded with zeros.
template <class T, class S>
void packRows(const View& v, std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t n, std::int64_t width, S scale, S* out) {
  using V = typename Math<S>::V;
  const std::int64_t depth = v.shape[3];
  for (std::int64_t t = 0; t < n; ++t, out += width) {
    const T* p = v.as<T>() + b * v.strides[0] + (begin + t) * v.strides[1] + h * v.strides[2];
    if (v.strides[3] == 1) {
      eachVector<V>(depth, [&](auto w, std::int64_t i) { store(out + i, w.load(p + i) * V(scale)); });
    } else {
      std::fill(out, out + width, S(0));
      for (std::int64_t d = 0; d < depth; ++d) store(out + d, V::load(p + d * v.strides[3], 1) * V(scale), 1);
    }
  }
}

// Transposes 4 × 4 numbers through registers; plain loops for float64.
template <class S>
inline void transpose4(const S* in, std::int64_t inRow, S* out, std::int64_t outRow) {
  if constexpr (std::is_same_v<S, float>) {
    typedef float F4 __attribute__((vector_size(16), aligned(4), may_alias));
    typedef std::int32_t I4 __attribute__((vector_size(16)));
    const F4 a = *reinterpret_cast<const F4*>(in), b = *reinterpret_cast<const F4*>(in + inRow);
    const F4 c = *reinterpret_cast<const F4*>(in + 2 * inRow), d = *reinterpret_cast<const F4*>(in + 3 * inRow);
    const F4 ab0 = __builtin_shuffle(a, b, I4{0, 4, 1, 5}), ab1 = __builtin_shuffle(a, b, I4{2, 6, 3, 7});
    const F4 cd0 = __builtin_shuffle(c, d, I4{0, 4, 1, 5}), cd1 = __builtin_shuffle(c, d, I4{2, 6, 3, 7});
    *reinterpret_cast<F4*>(out) = __builtin_shuffle(ab0, cd0, I4{0, 1, 4, 5});
    *reinterpret_cast<F4*>(out + outRow) = __builtin_shuffle(ab0, cd0, I4{2, 3, 6, 7});
    *reinterpret_cast<F4*>(out + 2 * outRow) = __builtin_shuffle(ab1, cd1, I4{0, 1, 4, 5});
    *reinterpret_cast<F4*>(out + 3 * outRow) = __builtin_shuffle(ab1, cd1, I4{2, 3, 6, 7});
  } else {
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) out[j * outRow + i] = in[i * inRow + j];
  }
}

// Rows [begin, end) of a head as panels [depth][kPanel] of their transpose; `begin` is a multiple of kPanel, columns past `end` are zero.
// `rows` holds one panel of dense rows.
template <class T, class S>
void packPanels(const View& v, std::int64_t b, std::int64_t h, std::int64_t begin, std::int64_t end, std::int64_t width, S* rows, S* out) {
  constexpr std::int64_t W = kPanel<S>;
  for (std::int64_t j = begin; j < end; j += W, out += width * W) {
    const std::int64_t n = std::min(W, end - j);
    packRows<T>(v, b, h, j, n, width, S(1), rows);
    std::fill(rows + n * width, rows + W * width, S(0));
    for (std::int64_t d = 0; d < width; d += 4)
      for (std::int64_t i = 0; i < W; i += 4) transpose4(rows + i * width + d, width, out + d * W + i, W);
  }
}

// The ranges of a block of rows, and of each group of kBlockRows of them.
struct BlockRanges {
  std::int64_t begin[kQueryBlock], end[kQueryBlock];
  std::int64_t groupBegin[kQueryBlock], groupEnd[kQueryBlock];
  std::int64_t first, last;  // of all rows
  bool rising;               // both ends rise with the row, as for causal and windowed attention

  template <class S>
  void find(Visible<S>& visible, std::int64_t b, std::int64_t t, std::int64_t n, std::int64_t from, std::int64_t to) {
    first = to;
    last = from;
    rising = true;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto r = visible.range(b, t + i);
      begin[i] = std::clamp(r.begin, from, to);
      end[i] = std::clamp(r.end, begin[i], to);
      if (i && (begin[i] < begin[i - 1] || end[i] < end[i - 1])) rising = false;
      if (begin[i] < end[i]) first = std::min(first, begin[i]), last = std::max(last, end[i]);
    }
    for (std::int64_t i = 0; i < n; i += kBlockRows) {
      std::int64_t a = to, z = from;
      for (std::int64_t r = i; r < std::min<std::int64_t>(n, i + kBlockRows); ++r) {
        if (begin[r] < end[r]) a = std::min(a, begin[r]), z = std::max(z, end[r]);
      }
      groupBegin[i / kBlockRows] = a;
      groupEnd[i / kBlockRows] = z;
    }
  }
};

// scores[i][j - from] = rows[i] · column j, for columns of [from, to) that the rows' groups see; `panels` begins at column `base`.
template <class S>
void scoreProduct(const BlockRanges& ranges, std::int64_t n, std::int64_t from, std::int64_t to, const S* rows, std::int64_t width,
                  const S* panels, std::int64_t base, S* scores) {
  using V = typename Math<S>::V;
  constexpr std::int64_t W = kPanel<S>, L = V::kLanes;
  for (std::int64_t j = from; j < to; j += W) {
    const S* panel = panels + (j - base) * width;
    for (std::int64_t i = 0; i < n; i += kBlockRows) {
      const std::int64_t end = ranges.groupEnd[i / kBlockRows];
      if (end <= j || ranges.groupBegin[i / kBlockRows] >= j + W) continue;
      const std::int64_t vectors = (std::min(W, end - j) + L - 1) / L;
      const Operands<S> o{rows + i * width, width, 1, panel, W, scores + i * kScoreRow + (j - from), kScoreRow};
      product<V>(static_cast<int>(std::min<std::int64_t>(kBlockRows, n - i)), vectors, o, 0, width, false);
    }
  }
}

// out[i] += Σ_j scores[i][j - from]·rows[j], over the columns that the groups see; `rows` begins at column `base`.
template <class S>
void mixProduct(const BlockRanges& ranges, std::int64_t n, std::int64_t from, std::int64_t to, const S* scores, const S* rows,
                std::int64_t width, std::int64_t base, S* out) {
  using V = typename Math<S>::V;
  constexpr std::int64_t kStep = 64;  // rows that fit the first-level cache
  for (std::int64_t j = from; j < to; j += kStep) {
    for (std::int64_t i = 0; i < n; i += kBlockRows) {
      const std::int64_t a = std::max(j, ranges.groupBegin[i / kBlockRows]), z = std::min({j + kStep, to, ranges.groupEnd[i / kBlockRows]});
      if (a >= z) continue;
      const Operands<S> o{scores + i * kScoreRow, kScoreRow, 1, rows + (from - base) * width, width, out + i * width, width};
      product<V>(static_cast<int>(std::min<std::int64_t>(kBlockRows, n - i)), width / V::kLanes, o, a - from, z - from, true);
    }
  }
}

}  // namespace steepest::STEEPEST_LEVEL
