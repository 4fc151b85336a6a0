// Attention, forward: blocks of query rows walk over chunks of keys with a running maximum (Milakov and Gimelshein, 2018;
// Dao, "FlashAttention-2", 2023), so that no matrix of scores longer than a chunk exists.
#include "cpu/attention.h"

#include "attrs/attention.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

template <class S>
struct Scratch {
  S *panels, *values, *rows, *q, *scores, *out, *top, *total, *factor;

  Scratch(const AttentionShape& s, const AttentionOptions& o, Layout& layout) {
    const std::int64_t width = s.paddedDepth<S>(), keys = roundUp(s.keys, kPanel<S>);
    panels = layout.take<S>(keys * width);
    values = layout.take<S>(keys * width);
    rows = layout.take<S>(kPanel<S> * width);
    q = layout.take<S>(kQueryBlock * width);
    scores = layout.take<S>(kQueryBlock * kScoreRow);
    out = layout.take<S>(kQueryBlock * width);
    top = layout.take<S>(kQueryBlock);
    total = layout.take<S>(kQueryBlock);
    factor = layout.take<S>(o.dropout ? kKeyChunk : 0);
  }
};

template <class T>
class Forward {
  using V = VecOf<T>;
  using S = typename V::Scalar;

 public:
  Forward(const Call& call, const AttentionShape& shape, const AttentionOptions& options)
      : call_(call), shape_(shape), options_(options), operands_(call.in, 3, options) {}

  static std::size_t bytes(const AttentionShape& shape, const AttentionOptions& options) {
    Layout layout(nullptr);
    Scratch<S> scratch(shape, options, layout);
    const AttentionOperands none({}, 0, {});
    Visible<S> visible(shape, options, none, layout);
    return layout.used();
  }

  // Query rows [begin, end) of all heads that share one head of keys.
  void run(std::int64_t b, std::int64_t group, std::int64_t begin, std::int64_t end, std::byte* memory) {
    Layout layout(memory);
    Scratch<S> scratch(shape_, options_, layout);
    Visible<S> visible(shape_, options_, operands_, layout);
    std::int64_t first = shape_.keys, last = 0;
    for (std::int64_t t = begin; t < end; ++t) {
      const auto r = visible.range(b, t);
      if (r.begin < r.end) first = std::min(first, r.begin), last = std::max(last, r.end);
    }
    const std::int64_t width = shape_.paddedDepth<S>(), base = std::min(first, last) / kPanel<S> * kPanel<S>;
    packPanels<T>(call_.in[1], b, group, base, last, width, scratch.rows, scratch.panels);
    packRows<T>(call_.in[2], b, group, base, std::max<std::int64_t>(0, last - base), width, S(1), scratch.values);
    for (std::int64_t h = group * shape_.share(); h < (group + 1) * shape_.share(); ++h) {
      for (std::int64_t t = begin; t < end; t += kQueryBlock) block(visible, scratch, b, h, t, std::min(kQueryBlock, end - t), base);
    }
  }

 private:
  void block(Visible<S>& visible, const Scratch<S>& x, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t n, std::int64_t base) {
    const std::int64_t width = shape_.paddedDepth<S>();
    packRows<T>(call_.in[0], b, h, t, n, width, static_cast<S>(options_.scale), x.q);
    BlockRanges ranges;
    ranges.find(visible, b, t, n, 0, shape_.keys);
    std::fill(x.out, x.out + n * width, S(0));
    std::fill(x.top, x.top + n, -std::numeric_limits<S>::infinity());
    std::fill(x.total, x.total + n, S(0));
    for (std::int64_t from = ranges.first / kPanel<S> * kPanel<S>; from < ranges.last; from += kKeyChunk) {
      const std::int64_t to = std::min(from + kKeyChunk, ranges.last);
      scoreProduct(ranges, n, from, to, x.q, width, x.panels, base, x.scores);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t g = i / kBlockRows, begin = std::max(ranges.begin[i], from), end = std::min(ranges.end[i], to);
        S* const row = x.scores + i * kScoreRow - from;
        if (begin < end) {
          weigh(row, visible.added(b, h, t + i, begin, end), begin, end, x.top[i], x.total[i], x.out + i * width);
          if (options_.dropout) drop(row, b, h, t + i, begin, end, x.factor - begin);
        }
        // Rows of a group are multiplied together: what one sees and another does not counts nothing for the other.
        const std::int64_t left = std::max(ranges.groupBegin[g], from), right = std::min(ranges.groupEnd[g], to);
        if (begin >= end) {
          if (left < right) std::fill(row + left, row + right, S(0));
        } else {
          std::fill(row + left, row + begin, S(0));
          std::fill(row + end, row + right, S(0));
        }
      }
      mixProduct(ranges, n, from, to, x.scores, x.values, width, base, x.out);
    }
    finish(x, b, h, t, n);
  }

  // Scores become weights relative to the running maximum; what came before is scaled to a new maximum.
  void weigh(S* row, const S* added, std::int64_t begin, std::int64_t end, S& top, S& total, S* out) const {
    if (options_.softCap > 0) {
      const V cap(static_cast<S>(options_.softCap)), inverse(static_cast<S>(1 / options_.softCap));
      eachVector<V>(end - begin, [&](auto w, std::int64_t i) { w.store(row + begin + i, cap * tanh(w.load(row + begin + i) * inverse)); });
    }
    if (added) {
      eachVector<V>(end - begin,
                    [&](auto w, std::int64_t i) { w.store(row + begin + i, w.load(row + begin + i) + w.load(added + begin + i)); });
    }
    const S before = top;
    top = std::max(before, rowMax(row + begin, end - begin));
    // Where all is masked so far any finite maximum serves; NaN goes on into the sum.
    const V peak(top == -std::numeric_limits<S>::infinity() ? S(0) : top);
    if (total != S(0) && top != before) {
      const V shrink = exp(V(before) - peak);
      total = sum(V::load(&total, 1) * shrink);
      for (std::int64_t d = 0; d < shape_.paddedDepth<S>(); d += V::kLanes) store(out + d, V::load(out + d) * shrink);
    }
    total += sum(sumVectors<V>(end - begin, [&](auto w, std::int64_t i) {
      const V e = exp(w.load(row + begin + i) - peak);
      w.store(row + begin + i, e);
      return w.pad(e, V(0));
    }));
  }

  void drop(S* row, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t begin, std::int64_t end, S* factor) const {
    dropoutRow(shape_, options_, operands_, b, h, t, begin, end, factor);
    eachVector<V>(end - begin,
                  [&](auto w, std::int64_t i) { w.store(row + begin + i, w.load(row + begin + i) * w.load(factor + begin + i)); });
  }

  void finish(const Scratch<S>& x, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t n) const {
    const std::int64_t width = shape_.paddedDepth<S>(), depth = shape_.depth;
    for (std::int64_t i = 0; i < n; ++i) {
      const V total(x.total[i]);
      const V scale(x.total[i] == S(0) ? S(0) : S(1) / x.total[i]);
      T* out = call_.out[0].template as<T>() + ((b * shape_.queries + t + i) * shape_.heads + h) * depth;
      eachVector<V>(depth, [&](auto w, std::int64_t d) { w.store(out + d, w.load(x.out + i * width + d) * scale); });
      S* lse = call_.out[1].template as<S>() + (b * shape_.heads + h) * shape_.queries + t + i;
      store(lse, x.total[i] == S(0) ? V(-std::numeric_limits<S>::infinity()) : V(x.top[i]) + log(total), 1);
    }
  }

  const Call& call_;
  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const AttentionOperands operands_;
};

class Attention final : public Kernel {
 public:
  explicit Attention(const Spec& spec) : options_(AttentionOptions::of(AttentionAttrs::decode(spec.attrs))) {
    shape_ = checkAttentionForward(spec, options_);
    byFloat(shape_.type, [&](auto t) { bytes_ = Forward<decltype(t)>::bytes(shape_, options_); });
    workspace = bytes_ * static_cast<std::size_t>(spec.threads);
    // Few heads: their query rows are cut too, at the price of packing keys more than once.
    const std::int64_t heads = std::max<std::int64_t>(1, shape_.batch * shape_.keyHeads);
    const std::int64_t blocks = (shape_.queries + kQueryBlock - 1) / kQueryBlock;
    pieces_ = std::clamp<std::int64_t>((16 + heads - 1) / heads, 1, std::max<std::int64_t>(1, blocks / 2));
  }

  void run(const Call& call) const override {
    byFloat(shape_.type, [&](auto type) {
      Forward<decltype(type)> forward(call, shape_, options_);
      const std::int64_t blocks = (shape_.queries + kQueryBlock - 1) / kQueryBlock;
      call.pool.run(shape_.batch * shape_.keyHeads * pieces_, [&](std::int64_t tile, int thread) {
        // The last rows first: under a causal mask they are the longest.
        const std::int64_t piece = pieces_ - 1 - tile % pieces_, group = tile / pieces_ % shape_.keyHeads,
                           b = tile / pieces_ / shape_.keyHeads;
        const std::int64_t begin = blocks * piece / pieces_ * kQueryBlock,
                           end = std::min(shape_.queries, blocks * (piece + 1) / pieces_ * kQueryBlock);
        forward.run(b, group, begin, end, call.workspace + bytes_ * static_cast<std::size_t>(thread));
      });
    });
  }

 private:
  AttentionOptions options_;
  AttentionShape shape_;
  std::size_t bytes_ = 0;
  std::int64_t pieces_ = 1;
};

// The factors of dropout as a tensor [batch, heads, queries, keys]: the definition of attention in primitive ops needs them.
class AttentionDropout final : public Kernel {
 public:
  explicit AttentionDropout(const Spec& spec) : attrs_(AttentionDropoutAttrs::decode(spec.attrs)) {
    checkAttentionDropout(spec, attrs_);
    workspace = static_cast<std::size_t>(spec.threads) * static_cast<std::size_t>(spec.out[0].shape[3]) * sizeof(float);
  }

  void run(const Call& call) const override {
    const View& out = call.out[0];
    const AttentionShape shape{out.shape[0], out.shape[2], out.shape[3], out.shape[1], 1, 0, out.dtype};
    AttentionOptions options{};
    options.dropout = true;
    options.ids = attrs_.ids;
    options.rate = attrs_.rate;
    options.site = attrs_.site;
    options.examples = attrs_.examples;
    const AttentionOperands operands(call.in, 0, options);
    byFloat(out.dtype, [&](auto type) {
      using T = decltype(type);
      using V = VecOf<T>;
      const std::int64_t rows = shape.heads * shape.queries;
      eachRow(call.pool, shape.batch * rows, shape.keys, [&](std::int64_t r) {
        T* p = out.as<T>() + r * shape.keys;
        const auto fill = [&](auto* factors) {
          dropoutRow(shape, options, operands, r / rows, r % rows / shape.queries, r % shape.queries, 0, shape.keys, factors);
        };
        if constexpr (!std::is_same_v<T, bf16>) {
          fill(p);
        } else {
          constexpr std::int64_t kStep = 256;
          float factors[kStep];
          for (std::int64_t j = 0; j < shape.keys; j += kStep) {
            const std::int64_t n = std::min(kStep, shape.keys - j);
            dropoutRow(shape, options, operands, r / rows, r % rows / shape.queries, r % shape.queries, j, j + n, factors - j);
            eachVector<V>(n, [&](auto w, std::int64_t i) { w.store(p + j + i, w.load(factors + i)); });
          }
        }
      });
    });
  }

 private:
  AttentionDropoutAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeAttention(const Spec& spec) { return std::make_unique<Attention>(spec); }
std::unique_ptr<Kernel> makeAttentionDropout(const Spec& spec) { return std::make_unique<AttentionDropout>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
