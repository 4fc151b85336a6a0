// Attention, backward: the weights are computed again from the kept log-sum-exp, one chunk of keys and one block of queries at a time
// (Dao, "FlashAttention-2", 2023). A tile owns the keys of its chunk; what it adds to the queries is summed over pieces in their order.
#include "cpu/attention_gradient.h"

#include "attrs/attentionBackward.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

template <class S>
struct Scratch {
  QueryRows<S> rows;
  S *keyPanels, *valuePanels, *panelRows, *keys, *dk, *dv, *scores, *slopes, *factor, *dq;

  // `queries`: rows of sums for dq that the thread holds itself.
  Scratch(const AttentionShape& s, const AttentionOptions& o, std::int64_t queries, Layout& layout) : rows(s, layout) {
    const std::int64_t width = s.paddedDepth<S>(), chunk = std::min(kKeyChunk, roundUp(s.keys, kPanel<S>));
    keyPanels = layout.take<S>(chunk * width);
    valuePanels = layout.take<S>(chunk * width);
    panelRows = layout.take<S>(kPanel<S> * width);
    keys = layout.take<S>(chunk * width);
    dk = layout.take<S>(chunk * width);
    dv = layout.take<S>(chunk * width);
    scores = layout.take<S>(kQueryBlock * kScoreRow);
    slopes = layout.take<S>(kQueryBlock * kScoreRow);
    factor = layout.take<S>(o.dropout ? kKeyChunk : 0);
    dq = layout.take<S>(queries * width);
  }
};

template <class T>
class Backward {
  using V = VecOf<T>;
  using S = typename V::Scalar;

 public:
  Backward(const Call& call, const AttentionShape& shape, const AttentionOptions& options)
      : call_(call), shape_(shape), options_(options), operands_(call.in, kGradientOperands, options), width_(shape.paddedDepth<S>()) {}

  static std::size_t bytes(const AttentionShape& shape, const AttentionOptions& options, std::int64_t queries) {
    Layout layout(nullptr);
    Scratch<S> scratch(shape, options, queries, layout);
    const AttentionOperands none({}, 0, {});
    Visible<S> visible(shape, options, none, layout);
    return layout.used();
  }

  // Keys [begin, end) of one head of keys. What they add to the queries goes to `partial` [share, queries, width], or, where that is
  // null, to the output.
  void run(std::int64_t b, std::int64_t group, std::int64_t begin, std::int64_t end, S* partial, std::byte* memory) {
    Layout layout(memory);
    const std::int64_t sums = shape_.share() * shape_.queries;
    Scratch<S> x(shape_, options_, partial ? 0 : sums, layout);
    Visible<S> visible(shape_, options_, operands_, layout);
    S* const dq = partial ? partial : x.dq;
    std::fill(dq, dq + sums * width_, S(0));
    for (std::int64_t from = begin; from < end; from += kKeyChunk) {
      const std::int64_t to = std::min(from + kKeyChunk, end), n = to - from;
      packPanels<T>(call_.in[1], b, group, from, to, width_, x.panelRows, x.keyPanels);
      packPanels<T>(call_.in[2], b, group, from, to, width_, x.panelRows, x.valuePanels);
      packRows<T>(call_.in[1], b, group, from, n, width_, S(1), x.keys);
      std::fill(x.dk, x.dk + n * width_, S(0));
      std::fill(x.dv, x.dv + n * width_, S(0));
      for (std::int64_t i = 0; i < shape_.share(); ++i) {
        S* const mine = dq + i * shape_.queries * width_;
        for (std::int64_t t = 0; t < shape_.queries; t += kQueryBlock) {
          block(visible, x, b, group * shape_.share() + i, t, std::min(kQueryBlock, shape_.queries - t), from, to, mine + t * width_);
        }
      }
      storeKeys(x.dk, call_.out[1], b, group, from, n);
      storeKeys(x.dv, call_.out[2], b, group, from, n);
    }
    if (!partial) storeQueries(dq, 0, 1, b, group);
  }

  // dq of one head of keys from the sum of `pieces` partials that lie `stride` apart.
  void storeQueries(const S* sums, std::int64_t stride, std::int64_t pieces, std::int64_t b, std::int64_t group) const {
    const V scale(static_cast<S>(options_.scale));
    for (std::int64_t i = 0; i < shape_.share(); ++i) {
      for (std::int64_t t = 0; t < shape_.queries; ++t) {
        const S* row = sums + (i * shape_.queries + t) * width_;
        T* out = call_.out[0].template as<T>() + ((b * shape_.queries + t) * shape_.heads + group * shape_.share() + i) * shape_.depth;
        eachVector<V>(shape_.depth, [&](auto w, std::int64_t d) {
          V total = w.load(row + d);
          for (std::int64_t p = 1; p < pieces; ++p) total = total + w.load(row + p * stride + d);
          w.store(out + d, total * scale);
        });
      }
    }
  }

 private:
  void block(Visible<S>& visible, const Scratch<S>& x, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t n, std::int64_t from,
             std::int64_t to, S* dq) {
    BlockRanges ranges;
    ranges.find(visible, b, t, n, from, to);
    if (ranges.first >= ranges.last) return;
    x.rows.template load<T>(call_, shape_, options_, b, h, t, n);
    scoreProduct(ranges, n, from, to, x.rows.q, width_, x.keyPanels, from, x.scores);
    scoreProduct(ranges, n, from, to, x.rows.dout, width_, x.valuePanels, from, x.slopes);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t begin = ranges.begin[i], end = ranges.end[i];
      S *const p = x.scores + i * kScoreRow - from, *const ds = x.slopes + i * kScoreRow - from;
      if (begin < end) {
        scoreGradients<T, false>(visible, shape_, options_, operands_, b, h, t + i, begin, end, x.rows.lse[i], x.rows.delta[i], p, ds,
                                 x.factor - begin);
      }
      clearOutside(p, begin, end, ranges.first, ranges.last);
      clearOutside(ds, begin, end, ranges.first, ranges.last);
    }
    mixProduct(ranges, n, from, to, x.slopes, x.keys, width_, from, dq);
    for (std::int64_t j = ranges.first; j < ranges.last; j += kBlockRows) {
      const std::int64_t m = std::min<std::int64_t>(kBlockRows, ranges.last - j);
      // Rows that see none of these columns hold zeros; where ranges rise they are the first and the last ones.
      std::int64_t top = 0, bottom = n;
      if (ranges.rising) {
        while (top < n && ranges.end[top] <= j) ++top;
        while (bottom > top && ranges.begin[bottom - 1] >= j + m) --bottom;
      }
      const Operands<S> values{x.scores + (j - from), 1, kScoreRow, x.rows.dout, width_, x.dv + (j - from) * width_, width_};
      product<V>(static_cast<int>(m), width_ / V::kLanes, values, top, bottom, true);
      const Operands<S> keys{x.slopes + (j - from), 1, kScoreRow, x.rows.q, width_, x.dk + (j - from) * width_, width_};
      product<V>(static_cast<int>(m), width_ / V::kLanes, keys, top, bottom, true);
    }
  }

  void storeKeys(const S* rows, const View& out, std::int64_t b, std::int64_t group, std::int64_t from, std::int64_t n) const {
    for (std::int64_t j = 0; j < n; ++j) {
      T* to = out.as<T>() + ((b * shape_.keys + from + j) * shape_.keyHeads + group) * shape_.depth;
      eachVector<V>(shape_.depth, [&](auto w, std::int64_t d) { w.store(to + d, w.load(rows + j * width_ + d)); });
    }
  }

  const Call& call_;
  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const AttentionOperands operands_;
  const std::int64_t width_;
};

// Outputs dq, dk, dv.
class AttentionBackward final : public Kernel {
 public:
  explicit AttentionBackward(const Spec& spec) : options_(AttentionOptions::of(AttentionBackwardAttrs::decode(spec.attrs))) {
    shape_ = checkAttentionBackward(spec, options_);
    // Few heads: their keys are cut too, at the price of sums of dq for each piece.
    const std::int64_t heads = std::max<std::int64_t>(1, shape_.batch * shape_.keyHeads);
    pieces_ = std::clamp<std::int64_t>((16 + heads - 1) / heads, 1, std::max<std::int64_t>(1, shape_.keys / 128));
    byFloat(shape_.type, [&](auto t) {
      using S = typename VecOf<decltype(t)>::Scalar;
      const std::int64_t sums = shape_.share() * shape_.queries;
      partial_ = sums * shape_.paddedDepth<S>();
      bytes_ = Backward<decltype(t)>::bytes(shape_, options_, pieces_ > 1 ? 0 : sums);
      partialBytes_ = pieces_ > 1 ? static_cast<std::size_t>(pieces_ * shape_.batch * shape_.keyHeads * partial_) * sizeof(S) : 0;
    });
    partialBytes_ = (partialBytes_ + 63) / 64 * 64;
    workspace = partialBytes_ + bytes_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    byFloat(shape_.type, [&](auto type) {
      using S = typename VecOf<decltype(type)>::Scalar;
      Backward<decltype(type)> backward(call, shape_, options_);
      const std::int64_t groups = shape_.batch * shape_.keyHeads;
      const std::int64_t panels = (shape_.keys + kPanel<S> - 1) / kPanel<S>;
      S* const partials = reinterpret_cast<S*>(call.workspace);
      call.pool.run(groups * pieces_, [&](std::int64_t tile, int thread) {
        // The first keys first: under a causal mask most queries see them.
        const std::int64_t piece = tile / groups, at = tile % groups;
        const std::int64_t begin = panels * piece / pieces_ * kPanel<S>,
                           end = std::min(shape_.keys, panels * (piece + 1) / pieces_ * kPanel<S>);
        backward.run(at / shape_.keyHeads, at % shape_.keyHeads, begin, end, pieces_ > 1 ? partials + tile * partial_ : nullptr,
                     call.workspace + partialBytes_ + bytes_ * static_cast<std::size_t>(thread));
      });
      if (pieces_ == 1) return;
      call.pool.run(groups, [&](std::int64_t at, int) {
        backward.storeQueries(partials + at * partial_, groups * partial_, pieces_, at / shape_.keyHeads, at % shape_.keyHeads);
      });
    });
  }

 private:
  AttentionOptions options_;
  AttentionShape shape_;
  std::size_t bytes_ = 0, partialBytes_ = 0;
  std::int64_t pieces_ = 1, partial_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeAttentionBackward(const Spec& spec) { return std::make_unique<AttentionBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
