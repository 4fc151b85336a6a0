// Cross-entropy of a linear layer, x·Wᵀ + b, that never holds all its logits: the forward pass keeps sums of rows, the backward pass
// computes the logits of one chunk of rows and columns after another again (as Wijmans et al., "Cut your losses", 2024).
#include "cpu/crossentropy_linear.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using namespace linear_loss;

// Rows of a chunk of gradients of logits, and the bytes that it may have.
constexpr std::int64_t kChunkRows = 2048, kChunkBytes = 16 << 20;

class LinearCrossEntropy final : public Kernel {
 public:
  explicit LinearCrossEntropy(const Spec& spec) : LinearCrossEntropy(spec, LinearCrossEntropyAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    byFloat(d_.type, [&](auto type) { runAs<decltype(type)>(call); });
  }

 private:
  LinearCrossEntropy(const Spec& spec, const LinearCrossEntropyAttrs& attrs) : options_(CrossEntropyOptions::of(attrs)), bias_(attrs.bias) {
    d_ = checkLosses(spec, attrs);
    lengths(d_.rows, kRows, [&](std::int64_t m) {
      lengths(d_.columns, kColumns, [&](std::int64_t n) { products_.add(logitProduct(d_, m, n, kColumns)); });
    });
    const std::size_t unit = sizeOf(statistics(d_.type));
    // Sums of every row over every tile of columns, and its logit at the label.
    sums_ = aligned(static_cast<std::size_t>(d_.rows * (3 * tilesOf(d_.columns, kColumns) + 1)) * unit);
    tile_ = static_cast<std::size_t>(kRows * kColumns) * unit;
    workspace = sums_ + static_cast<std::size_t>(spec.threads) * (tile_ + products_.scratch());
  }

  template <class T>
  void runAs(const Call& call) const {
    using V = VecOf<T>;
    using S = typename V::Scalar;
    const std::int64_t rowTiles = tilesOf(d_.rows, kRows), columnTiles = tilesOf(d_.columns, kColumns);
    auto* const sums = reinterpret_cast<RowSums<S>*>(call.workspace);
    S* const picked = reinterpret_cast<S*>(sums + d_.rows * columnTiles);
    const std::int32_t* const labels = call.in[2].template as<std::int32_t>();
    const T* const bias = bias_ ? call.in[3].template as<T>() : nullptr;
    call.pool.run(rowTiles * columnTiles, [&](std::int64_t tile, int thread) {
      const std::int64_t r0 = tile % rowTiles * kRows, rows = std::min(kRows, d_.rows - r0);
      const std::int64_t c = tile / rowTiles, c0 = c * kColumns, columns = std::min(kColumns, d_.columns - c0);
      std::byte* const mine = call.workspace + sums_ + static_cast<std::size_t>(thread) * (tile_ + products_.scratch());
      S* const logits = reinterpret_cast<S*>(mine);
      products_.of(logitProduct(d_, rows, columns, kColumns))
          .run(call.in[0].template as<T>() + r0 * d_.width, call.in[1].template as<T>() + c0 * d_.width, logits, mine + tile_);
      addBias(logits, rows, columns, kColumns, bias ? bias + c0 : nullptr);
      tileSums(logits, rows, kColumns, c0, columns, columnTiles, labels + r0, sums + r0 * columnTiles, picked + r0, options_);
    });
    rowLosses<S>(call, 0, d_.rows, d_.columns, sums, picked, options_);
  }

  CrossEntropyOptions options_;
  bool bias_;
  Dims d_{};
  Products products_;
  std::size_t sums_ = 0, tile_ = 0;
};

// Inputs x, weight, labels, lse, gradient of the losses, bias?; outputs dx?, dweight?, dbias?.
class LinearCrossEntropyBackward final : public Kernel {
 public:
  explicit LinearCrossEntropyBackward(const Spec& spec)
      : LinearCrossEntropyBackward(spec, LinearCrossEntropyBackwardAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    byFloat(d_.type, [&](auto type) { runAs<decltype(type)>(call); });
  }

 private:
  LinearCrossEntropyBackward(const Spec& spec, const LinearCrossEntropyBackwardAttrs& a)
      : options_(CrossEntropyOptions::of(a)), bias_(a.bias), dx_(a.dx), dweight_(a.dweight), dbias_(a.dbias) {
    d_ = checkBackward(spec, a);
    // One chunk of rows needs no sums of dweight beside the output; in bfloat16 sums are in float32.
    narrow_ = d_.type == DType::bfloat16;
    const std::int64_t unit = static_cast<std::int64_t>(sizeOf(statistics(d_.type)));
    chunkRows_ = std::max<std::int64_t>(1, std::min(d_.rows, kChunkRows));
    sumsWeight_ = narrow_ && dweight_ && d_.rows > chunkRows_;
    const std::int64_t perColumn = chunkRows_ * static_cast<std::int64_t>(sizeOf(d_.type)) + (sumsWeight_ ? d_.width * unit : 0);
    chunkColumns_ = std::clamp<std::int64_t>(kChunkBytes / perColumn / kColumns * kColumns, kColumns,
                                             tilesOf(std::max<std::int64_t>(1, d_.columns), kColumns) * kColumns);

    const auto bytes = [](std::int64_t n, std::int64_t size) { return aligned(static_cast<std::size_t>(n * size)); };
    gradientsAt_ = 0;
    xSumsAt_ = bytes(chunkRows_ * chunkColumns_, static_cast<std::int64_t>(sizeOf(d_.type)));
    weightSumsAt_ = xSumsAt_ + (narrow_ && dx_ ? bytes(d_.rows * d_.width, unit) : 0);
    biasSumsAt_ = weightSumsAt_ + (sumsWeight_ ? bytes(chunkColumns_ * d_.width, unit) : 0);
    threadsAt_ = biasSumsAt_ + (dbias_ ? bytes(d_.columns, unit) : 0);
    tile_ = narrow_ ? static_cast<std::size_t>(kRows * kColumns * unit) : 0;
    makeProducts();
    workspace = threadsAt_ + static_cast<std::size_t>(spec.threads) * (tile_ + products_.scratch());
  }

  // Rows of logits go straight into the chunk unless that is bfloat16.
  GemmShape logits(std::int64_t rows, std::int64_t columns) const {
    return logitProduct(d_, rows, columns, narrow_ ? kColumns : chunkColumns_);
  }
  // dx[r][c] (+)= Σ_j dlogits[r][j]·weight[j][c]
  GemmShape dxProduct(std::int64_t rows, std::int64_t side, std::int64_t columns, bool accumulate) const {
    return {rows, side, columns, chunkColumns_, 1, d_.width, 1, d_.width, d_.type, statistics(d_.type), accumulate};
  }
  // dweight[j][c] (+)= Σ_r dlogits[r][j]·x[r][c]
  GemmShape dweightProduct(std::int64_t columns, std::int64_t side, std::int64_t rows, bool accumulate) const {
    return {columns,   side, rows,     1,       chunkColumns_,
            d_.width,  1,    d_.width, d_.type, sumsWeight_ || !narrow_ ? statistics(d_.type) : d_.type,
            accumulate};
  }

  void makeProducts() {
    lengths(d_.rows, chunkRows_, [&](std::int64_t rows) {
      lengths(d_.columns, chunkColumns_, [&](std::int64_t columns) {
        lengths(rows, kRows, [&](std::int64_t m) { lengths(columns, kColumns, [&](std::int64_t n) { products_.add(logits(m, n)); }); });
        lengths(d_.width, kSide, [&](std::int64_t side) {
          if (dx_) {
            lengths(rows, kRows, [&](std::int64_t m) {
              products_.add(dxProduct(m, side, columns, false));
              if (d_.columns > chunkColumns_) products_.add(dxProduct(m, side, columns, true));
            });
          }
          if (dweight_) {
            lengths(columns, kSide, [&](std::int64_t m) {
              products_.add(dweightProduct(m, side, rows, false));
              if (d_.rows > chunkRows_) products_.add(dweightProduct(m, side, rows, true));
            });
          }
        });
      });
    });
  }

  template <class T>
  struct Buffers {
    using S = typename VecOf<T>::Scalar;
    T* gradients;
    S* dx;          // sums in S, the output itself where that is S
    void* dweight;  // of the chunk of columns
    S* dbias;
  };

  template <class T>
  void runAs(const Call& call) const {
    using V = VecOf<T>;
    using S = typename V::Scalar;
    std::size_t at = 0;
    T* const dx = dx_ ? call.out[at++].template as<T>() : nullptr;
    T* const dweight = dweight_ ? call.out[at++].template as<T>() : nullptr;
    T* const dbias = dbias_ ? call.out[at++].template as<T>() : nullptr;
    if (!d_.rows || !d_.columns) {
      if (dx) zeroRow(dx, d_.rows * d_.width);
      if (dweight) zeroRow(dweight, d_.columns * d_.width);
      if (dbias) zeroRow(dbias, d_.columns);
      return;
    }
    Buffers<T> b;
    b.gradients = reinterpret_cast<T*>(call.workspace + gradientsAt_);
    b.dx = narrow_ ? reinterpret_cast<S*>(call.workspace + xSumsAt_) : reinterpret_cast<S*>(dx);
    b.dbias = reinterpret_cast<S*>(call.workspace + biasSumsAt_);
    if (dbias) std::fill(b.dbias, b.dbias + d_.columns, S(0));
    for (std::int64_t c0 = 0; c0 < d_.columns; c0 += chunkColumns_) {
      const std::int64_t columns = std::min(chunkColumns_, d_.columns - c0);
      T* const out = dweight ? dweight + c0 * d_.width : nullptr;
      S* const sums = reinterpret_cast<S*>(call.workspace + weightSumsAt_);
      b.dweight = sumsWeight_ ? static_cast<void*>(sums) : out;
      for (std::int64_t r0 = 0; r0 < d_.rows; r0 += chunkRows_) {
        const std::int64_t rows = std::min(chunkRows_, d_.rows - r0);
        gradients<T>(call, b, r0, rows, c0, columns);
        spread<T>(call, b, r0, rows, c0, columns);
      }
      if (sumsWeight_) toNearest(call.pool, sums, columns * d_.width, out);
    }
    if (narrow_ && dx) toNearest(call.pool, b.dx, d_.rows * d_.width, dx);
    if (dbias) toNearest(call.pool, b.dbias, d_.columns, dbias);
  }

  // The gradients of the logits of one chunk.
  template <class T>
  void gradients(const Call& call, const Buffers<T>& b, std::int64_t r0, std::int64_t rows, std::int64_t c0, std::int64_t columns) const {
    using S = typename VecOf<T>::Scalar;
    const std::int64_t rowTiles = tilesOf(rows, kRows);
    const T* const bias = bias_ ? call.in[5].template as<T>() + c0 : nullptr;
    call.pool.run(rowTiles * tilesOf(columns, kColumns), [&](std::int64_t tile, int thread) {
      const std::int64_t r = tile % rowTiles * kRows, m = std::min(kRows, rows - r);
      const std::int64_t c = tile / rowTiles * kColumns, n = std::min(kColumns, columns - c);
      std::byte* const mine = call.workspace + threadsAt_ + static_cast<std::size_t>(thread) * (tile_ + products_.scratch());
      T* const target = b.gradients + r * chunkColumns_ + c;
      S* const raw = narrow_ ? reinterpret_cast<S*>(mine) : reinterpret_cast<S*>(target);
      const std::int64_t rawRow = narrow_ ? kColumns : chunkColumns_;
      products_.of(logits(m, n))
          .run(call.in[0].template as<T>() + (r0 + r) * d_.width, call.in[1].template as<T>() + (c0 + c) * d_.width, raw, mine + tile_);
      addBias(raw, m, n, rawRow, bias ? bias + c : nullptr);
      for (std::int64_t i = 0; i < m; ++i) {
        const std::int64_t row = r0 + r + i;
        const std::int32_t label = call.in[2].template as<std::int32_t>()[row];
        T* const out = target + i * chunkColumns_;
        if (judge(label, d_.columns, options_) != Label::column)
          zeroRow(out, n);
        else
          gradientRow(raw + i * rawRow, out, n, label - c0 - c, d_.columns, call.in[3].template as<S>()[row],
                      call.in[4].template as<S>()[row], options_);
      }
    });
  }

  // What the chunk adds to dweight, dbias and dx.
  template <class T>
  void spread(const Call& call, const Buffers<T>& b, std::int64_t r0, std::int64_t rows, std::int64_t c0, std::int64_t columns) const {
    using V = VecOf<T>;
    using S = typename V::Scalar;
    const std::int64_t sides = tilesOf(d_.width, kSide), columnTiles = tilesOf(columns, kSide);
    const std::int64_t weightTiles = dweight_ ? columnTiles * sides : 0, biasTiles = dbias_ ? columnTiles : 0;
    const std::int64_t xTiles = dx_ ? tilesOf(rows, kRows) * sides : 0;
    call.pool.run(weightTiles + biasTiles + xTiles, [&](std::int64_t tile, int thread) {
      std::byte* const scratch = call.workspace + threadsAt_ + static_cast<std::size_t>(thread) * (tile_ + products_.scratch()) + tile_;
      if (tile < weightTiles) {
        const std::int64_t c = tile / sides * kSide, side = tile % sides * kSide;
        const Gemm& product = products_.of(dweightProduct(std::min(kSide, columns - c), std::min(kSide, d_.width - side), rows, r0 > 0));
        std::byte* const out =
            static_cast<std::byte*>(b.dweight) + static_cast<std::size_t>(c * d_.width + side) * sizeOf(product.shape().out);
        product.run(b.gradients + c, call.in[0].template as<T>() + r0 * d_.width + side, out, scratch);
        return;
      }
      tile -= weightTiles;
      if (tile < biasTiles) {
        const std::int64_t c = tile * kSide;
        S* const sums = b.dbias + c0 + c;
        eachVector<V>(std::min(kSide, columns - c), [&](auto w, std::int64_t i) {
          V total = w.load(sums + i);
          for (std::int64_t r = 0; r < rows; ++r) total = total + w.load(b.gradients + r * chunkColumns_ + c + i);
          w.store(sums + i, total);
        });
        return;
      }
      tile -= biasTiles;
      const std::int64_t r = tile / sides * kRows, side = tile % sides * kSide;
      products_.of(dxProduct(std::min(kRows, rows - r), std::min(kSide, d_.width - side), columns, c0 > 0))
          .run(b.gradients + r * chunkColumns_, call.in[1].template as<T>() + c0 * d_.width + side, b.dx + (r0 + r) * d_.width + side,
               scratch);
    });
  }

  CrossEntropyOptions options_;
  bool bias_, dx_, dweight_, dbias_, narrow_ = false, sumsWeight_ = false;
  Dims d_{};
  std::int64_t chunkRows_ = 1, chunkColumns_ = kColumns;
  std::size_t gradientsAt_ = 0, xSumsAt_ = 0, weightSumsAt_ = 0, biasSumsAt_ = 0, threadsAt_ = 0, tile_ = 0;
  Products products_;
};

}  // namespace

std::unique_ptr<Kernel> makeLinearCrossEntropy(const Spec& spec) { return std::make_unique<LinearCrossEntropy>(spec); }
std::unique_ptr<Kernel> makeLinearCrossEntropyBackward(const Spec& spec) { return std::make_unique<LinearCrossEntropyBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
