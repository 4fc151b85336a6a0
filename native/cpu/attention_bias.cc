// The gradient of attention's additive bias: the gradients of the scores, summed over the batch and the heads that share a bias.
// A tile owns one block of query rows of one bias and walks over chunks of keys, so nothing but the result has its size.
#include "cpu/attention_gradient.h"

#include "attrs/attentionBiasBackward.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

template <class S>
struct Scratch {
  QueryRows<S> rows;
  S *keyPanels, *valuePanels, *panelRows, *scores, *slopes, *factor, *sums;

  Scratch(const AttentionShape& s, const AttentionOptions& o, Layout& layout) : rows(s, layout) {
    const std::int64_t width = s.paddedDepth<S>(), chunk = std::min(kKeyChunk, roundUp(s.keys, kPanel<S>));
    keyPanels = layout.take<S>(chunk * width);
    valuePanels = layout.take<S>(chunk * width);
    panelRows = layout.take<S>(kPanel<S> * width);
    scores = layout.take<S>(kQueryBlock * kScoreRow);
    slopes = layout.take<S>(kQueryBlock * kScoreRow);
    sums = layout.take<S>(kQueryBlock * kScoreRow);
    factor = layout.take<S>(o.dropout ? kKeyChunk : 0);
  }
};

template <class T, class W>
class BiasGradient {
  using V = VecOf<T>;
  using S = typename V::Scalar;

 public:
  BiasGradient(const Call& call, const AttentionShape& shape, const AttentionOptions& options)
      : call_(call), shape_(shape), options_(options), operands_(call.in, kGradientOperands, options) {}

  static std::size_t bytes(const AttentionShape& shape, const AttentionOptions& options) {
    Layout layout(nullptr);
    Scratch<S> scratch(shape, options, layout);
    const AttentionOperands none({}, 0, {});
    Visible<S> visible(shape, options, none, layout);
    return layout.used();
  }

  // Rows [t, t + n) of the bias of (b, h), either of which stands for all where the bias has one.
  void run(std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t n, std::byte* memory) {
    Layout layout(memory);
    Scratch<S> x(shape_, options_, layout);
    Visible<S> visible(shape_, options_, operands_, layout);
    const View& out = call_.out[0];
    const std::int64_t lastB = out.shape[0] == 1 ? shape_.batch : b + 1, lastH = out.shape[1] == 1 ? shape_.heads : h + 1;
    for (std::int64_t from = 0; from < shape_.keys; from += kKeyChunk) {
      const std::int64_t to = std::min(from + kKeyChunk, shape_.keys);
      for (std::int64_t i = 0; i < n; ++i) std::fill(x.sums + i * kScoreRow, x.sums + i * kScoreRow + (to - from), S(0));
      for (std::int64_t bb = b; bb < lastB; ++bb) {
        for (std::int64_t hh = h; hh < lastH; ++hh) addBlock(visible, x, bb, hh, t, n, from, to);
      }
      for (std::int64_t i = 0; i < n; ++i) {
        W* row = out.as<W>() + ((b * out.shape[1] + h) * shape_.queries + t + i) * shape_.keys + from;
        eachVector<V>(to - from, [&](auto w, std::int64_t j) { w.store(row + j, w.load(x.sums + i * kScoreRow + j)); });
      }
    }
  }

 private:
  void addBlock(Visible<S>& visible, const Scratch<S>& x, std::int64_t b, std::int64_t h, std::int64_t t, std::int64_t n, std::int64_t from,
                std::int64_t to) {
    BlockRanges ranges;
    ranges.find(visible, b, t, n, from, to);
    if (ranges.first >= ranges.last) return;
    const std::int64_t width = shape_.paddedDepth<S>(), group = h / shape_.share();
    packPanels<T>(call_.in[1], b, group, from, to, width, x.panelRows, x.keyPanels);
    packPanels<T>(call_.in[2], b, group, from, to, width, x.panelRows, x.valuePanels);
    x.rows.template load<T>(call_, shape_, options_, b, h, t, n);
    scoreProduct(ranges, n, from, to, x.rows.q, width, x.keyPanels, from, x.scores);
    scoreProduct(ranges, n, from, to, x.rows.dout, width, x.valuePanels, from, x.slopes);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t begin = ranges.begin[i], end = ranges.end[i];
      if (begin >= end) continue;
      S* const slopes = x.slopes + i * kScoreRow - from;
      scoreGradients<T, true>(visible, shape_, options_, operands_, b, h, t + i, begin, end, x.rows.lse[i], x.rows.delta[i],
                              x.scores + i * kScoreRow - from, slopes, x.factor - begin);
      S* const sums = x.sums + i * kScoreRow - from;
      eachVector<V>(end - begin,
                    [&](auto w, std::int64_t j) { w.store(sums + begin + j, w.load(sums + begin + j) + w.load(slopes + begin + j)); });
    }
  }

  const Call& call_;
  const AttentionShape& shape_;
  const AttentionOptions& options_;
  const AttentionOperands operands_;
};

template <class F>
void byTypes(DType type, DType bias, F&& body) {
  switch (type) {
    case DType::float32:
      return body(float{}, float{});
    case DType::float64:
      return body(double{}, double{});
    default:
      return bias == DType::float32 ? body(bf16{}, float{}) : body(bf16{}, bf16{});
  }
}

class AttentionBiasBackward final : public Kernel {
 public:
  explicit AttentionBiasBackward(const Spec& spec) : options_(AttentionOptions::of(AttentionBiasBackwardAttrs::decode(spec.attrs))) {
    shape_ = checkAttentionBiasBackward(spec, options_);
    byTypes(shape_.type, spec.out[0].dtype,
            [&](auto t, auto w) { bytes_ = BiasGradient<decltype(t), decltype(w)>::bytes(shape_, options_); });
    workspace = bytes_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    const View& out = call.out[0];
    const std::int64_t blocks = (shape_.queries + kQueryBlock - 1) / kQueryBlock;
    byTypes(shape_.type, out.dtype, [&](auto t, auto w) {
      BiasGradient<decltype(t), decltype(w)> gradient(call, shape_, options_);
      call.pool.run(out.shape[0] * out.shape[1] * blocks, [&](std::int64_t tile, int thread) {
        const std::int64_t row = tile % blocks * kQueryBlock;
        gradient.run(tile / blocks / out.shape[1], tile / blocks % out.shape[1], row, std::min(kQueryBlock, shape_.queries - row),
                     call.workspace + bytes_ * static_cast<std::size_t>(thread));
      });
    });
  }

 private:
  AttentionOptions options_;
  AttentionShape shape_;
  std::size_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeAttentionBiasBackward(const Spec& spec) { return std::make_unique<AttentionBiasBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
