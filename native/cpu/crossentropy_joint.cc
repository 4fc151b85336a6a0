// Cross-entropy of a linear layer together with its gradients, where those of the losses are known beforehand: of one chunk of rows after
// another the logits, the losses, the gradients of the logits in their place, and what these add to the gradients of the operands. So
// logits are computed once, and what is held is one chunk of them (as Hsu et al., "Liger Kernel", 2024).
#include "cpu/crossentropy_linear.h"
#include "cpu/update_pack.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using namespace linear_loss;

// Bytes that the logits of a chunk may have, the rows that it may have, and the columns whose gradients are spread at a time. Rows of a
// chunk are few or many times what `dweight` is read and written for each chunk.
constexpr std::int64_t kChunkBytes = 16 << 20, kChunkRows = 2048, kBlock = 4096;
constexpr std::int64_t kUnit = 64;

// Inputs x, weight, labels, gradient of the losses, bias?; outputs losses, log-sum-exps, dx?, dweight?, dbias?.
class LinearCrossEntropyWithGradients final : public Kernel {
 public:
  explicit LinearCrossEntropyWithGradients(const Spec& spec)
      : LinearCrossEntropyWithGradients(spec, LinearCrossEntropyWithGradientsAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    byFloat(d_.type, [&](auto type) { runAs<decltype(type)>(call); });
  }

 private:
  LinearCrossEntropyWithGradients(const Spec& spec, const LinearCrossEntropyWithGradientsAttrs& a)
      : options_(CrossEntropyOptions::of(a)), bias_(a.bias), dx_(a.dx), dweight_(a.dweight), dbias_(a.dbias) {
    d_ = checkWithGradients(spec, a);
    cut();
    makeProducts();
    lay(spec.threads);
  }

  // Chunks of about equal length. The cut depends on the shape alone, not on what is asked for.
  void cut() {
    unit_ = static_cast<std::int64_t>(sizeOf(statistics(d_.type)));
    narrow_ = d_.type == DType::bfloat16;
    row_ = tilesOf(d_.columns, 16) * 16;
    const std::int64_t fit = kChunkBytes / (std::max<std::int64_t>(1, row_) * unit_) / kRows * kRows;
    const std::int64_t chunks = std::max<std::int64_t>(1, tilesOf(d_.rows, std::clamp(fit, kRows, kChunkRows)));
    chunk_ = std::max<std::int64_t>(1, std::min(d_.rows, tilesOf(tilesOf(d_.rows, chunks), kUnit) * kUnit));
    // In bfloat16 a sum over chunks has 16 more bits.
    sumsWeight_ = narrow_ && dweight_ && d_.rows > chunk_;
  }

  void lay(int threads) {
    std::int64_t at = 0;
    const auto take = [&](bool wanted, std::int64_t numbers, std::int64_t size) {
      const std::int64_t here = at;
      if (wanted) at += static_cast<std::int64_t>(aligned(static_cast<std::size_t>(numbers * size)));
      return here;
    };
    const std::int64_t block = std::min(kBlock, row_);
    logitsAt_ = take(true, chunk_ * row_, unit_);
    sumsAt_ = take(true, chunk_ * (3 * tilesOf(d_.columns, kColumns) + 1), unit_);
    narrowAt_ = take(narrow_, chunk_ * block, 2);
    dxAt_ = take(narrow_ && dx_, chunk_ * d_.width, unit_);
    lowAt_ = take(sumsWeight_, d_.columns * d_.width, 2);
    biasAt_ = take(dbias_, d_.columns, unit_);
    threadsAt_ = at;
    tile_ = sumsWeight_ ? aligned(static_cast<std::size_t>(kSide * kSide * unit_)) : 0;
    workspace = static_cast<std::size_t>(at) + static_cast<std::size_t>(threads) * (tile_ + products_.scratch());
  }

  std::int64_t gradientRow_() const { return narrow_ ? std::min(kBlock, row_) : row_; }
  GemmShape logits(std::int64_t rows, std::int64_t columns) const { return logitProduct(d_, rows, columns, row_); }
  // dx[r][c] (+)= Σ_j dlogits[r][j]·weight[j][c], over the columns j of a block
  GemmShape dxProduct(std::int64_t rows, std::int64_t side, std::int64_t columns, bool accumulate) const {
    return {rows, side, columns, gradientRow_(), 1, d_.width, 1, d_.width, d_.type, statistics(d_.type), accumulate};
  }
  // dweight[j][c] (+)= Σ_r dlogits[r][j]·x[r][c], over the rows r of a chunk
  GemmShape dweightProduct(std::int64_t columns, std::int64_t side, std::int64_t rows, bool accumulate) const {
    return {columns,
            side,
            rows,
            1,
            gradientRow_(),
            d_.width,
            1,
            sumsWeight_ ? side : d_.width,
            d_.type,
            sumsWeight_ ? statistics(d_.type) : d_.type,
            accumulate};
  }

  void makeProducts() {
    lengths(d_.rows, chunk_, [&](std::int64_t rows) {
      lengths(rows, kRows, [&](std::int64_t m) { lengths(d_.columns, kColumns, [&](std::int64_t n) { products_.add(logits(m, n)); }); });
      lengths(d_.columns, kBlock, [&](std::int64_t columns) {
        lengths(d_.width, kSide, [&](std::int64_t side) {
          for (const bool later : {false, true}) {
            if (dx_ && (!later || d_.columns > kBlock))
              lengths(rows, kRows, [&](std::int64_t m) { products_.add(dxProduct(m, side, columns, later)); });
            if (dweight_ && (!later || d_.rows > chunk_))
              lengths(columns, kSide, [&](std::int64_t m) { products_.add(dweightProduct(m, side, rows, later)); });
          }
        });
      });
    });
  }

  std::byte* scratchOf(const Call& call, int thread) const {
    return call.workspace + threadsAt_ + static_cast<std::int64_t>(static_cast<std::size_t>(thread) * (tile_ + products_.scratch()));
  }

  template <class T>
  void runAs(const Call& call) const {
    std::size_t at = 2;
    T* const dx = dx_ ? call.out[at++].template as<T>() : nullptr;
    T* const dweight = dweight_ ? call.out[at++].template as<T>() : nullptr;
    T* const dbias = dbias_ ? call.out[at++].template as<T>() : nullptr;
    if (!d_.rows || !d_.columns) {
      if (dx) zeroRow(dx, d_.rows * d_.width);
      if (dweight) zeroRow(dweight, d_.columns * d_.width);
      if (dbias) zeroRow(dbias, d_.columns);
    }
    using S = typename VecOf<T>::Scalar;
    S* const biasSums = reinterpret_cast<S*>(call.workspace + biasAt_);
    if (dbias) std::fill(biasSums, biasSums + d_.columns, S(0));
    for (std::int64_t r0 = 0; r0 < d_.rows; r0 += chunk_) {
      const Chunk<T> chunk{r0, std::min(chunk_, d_.rows - r0), r0 > 0, dx ? dx + r0 * d_.width : nullptr, dweight};
      losses(call, chunk);
      if (!d_.columns) continue;
      for (std::int64_t c0 = 0; c0 < d_.columns; c0 += kBlock) {
        const std::int64_t columns = std::min(kBlock, d_.columns - c0);
        gradients(call, chunk, c0, columns);
        spread(call, chunk, c0, columns);
      }
      if (narrow_ && dx) toNearest(call.pool, reinterpret_cast<const S*>(call.workspace + dxAt_), chunk.rows * d_.width, chunk.dx);
    }
    if (dbias && d_.rows) toNearest(call.pool, biasSums, d_.columns, dbias);
  }

  template <class T>
  struct Chunk {
    std::int64_t first, rows;
    bool later;
    T* dx;  // of its first row
    T* dweight;
  };

  template <class T, class S = typename VecOf<T>::Scalar>
  S* logitsOf(const Call& call) const {
    return reinterpret_cast<S*>(call.workspace + logitsAt_);
  }
  // The gradients of the logits of a block, which begins at column c0, rows of gradientRow_().
  template <class T>
  T* blockOf(const Call& call, std::int64_t c0) const {
    return narrow_ ? reinterpret_cast<T*>(call.workspace + narrowAt_) : reinterpret_cast<T*>(call.workspace + logitsAt_) + c0;
  }

  template <class T>
  void losses(const Call& call, const Chunk<T>& chunk) const {
    using S = typename VecOf<T>::Scalar;
    const std::int64_t rowTiles = tilesOf(chunk.rows, kRows), columnTiles = tilesOf(d_.columns, kColumns);
    auto* const sums = reinterpret_cast<RowSums<S>*>(call.workspace + sumsAt_);
    S* const picked = reinterpret_cast<S*>(sums + chunk_ * columnTiles);
    const std::int32_t* const labels = call.in[2].template as<std::int32_t>() + chunk.first;
    const T* const bias = bias_ ? call.in[4].template as<T>() : nullptr;
    call.pool.run(rowTiles * columnTiles, [&](std::int64_t tile, int thread) {
      const std::int64_t r = tile % rowTiles * kRows, rows = std::min(kRows, chunk.rows - r);
      const std::int64_t c = tile / rowTiles * kColumns, columns = std::min(kColumns, d_.columns - c);
      S* const target = logitsOf<T>(call) + r * row_ + c;
      products_.of(logits(rows, columns))
          .run(call.in[0].template as<T>() + (chunk.first + r) * d_.width, call.in[1].template as<T>() + c * d_.width, target,
               scratchOf(call, thread) + tile_);
      addBias(target, rows, columns, row_, bias ? bias + c : nullptr);
      tileSums(target, rows, row_, c, columns, columnTiles, labels + r, sums + r * columnTiles, picked + r, options_);
    });
    rowLosses<S>(call, chunk.first, chunk.rows, d_.columns, sums, picked, options_);
  }

  template <class T>
  void gradients(const Call& call, const Chunk<T>& chunk, std::int64_t c0, std::int64_t columns) const {
    using S = typename VecOf<T>::Scalar;
    const S* const from = logitsOf<T>(call) + c0;
    T* const to = blockOf<T>(call, c0);
    eachRow(call.pool, chunk.rows, columns, [&](std::int64_t r) {
      const std::int64_t row = chunk.first + r;
      const std::int32_t label = call.in[2].template as<std::int32_t>()[row];
      T* const out = to + r * gradientRow_();
      if (judge(label, d_.columns, options_) != Label::column)
        zeroRow(out, columns);
      else
        gradientRow(from + r * row_, out, columns, label - c0, d_.columns, call.out[1].template as<S>()[row],
                    call.in[3].template as<S>()[row], options_);
    });
  }

  // What a block of the chunk adds to dweight, dbias and dx.
  template <class T>
  void spread(const Call& call, const Chunk<T>& chunk, std::int64_t c0, std::int64_t columns) const {
    using S = typename VecOf<T>::Scalar;
    const std::int64_t sides = tilesOf(d_.width, kSide), columnTiles = tilesOf(columns, kSide);
    const std::int64_t xTiles = dx_ ? tilesOf(chunk.rows, kRows) * sides : 0;
    const std::int64_t weightTiles = dweight_ ? columnTiles * sides : 0, biasTiles = dbias_ ? columnTiles : 0;
    const T* const block = blockOf<T>(call, c0);
    // The longest products first.
    call.pool.run(xTiles + weightTiles + biasTiles, [&](std::int64_t tile, int thread) {
      std::byte* const mine = scratchOf(call, thread);
      if (tile < xTiles) {
        const std::int64_t r = tile / sides * kRows, side = tile % sides * kSide;
        void* const out = narrow_ ? static_cast<void*>(reinterpret_cast<S*>(call.workspace + dxAt_) + r * d_.width + side)
                                  : static_cast<void*>(chunk.dx + r * d_.width + side);
        products_.of(dxProduct(std::min(kRows, chunk.rows - r), std::min(kSide, d_.width - side), columns, c0 > 0))
            .run(block + r * gradientRow_(), call.in[1].template as<T>() + c0 * d_.width + side, out, mine + tile_);
        return;
      }
      tile -= xTiles;
      if (tile < weightTiles) return weightTile(call, chunk, block, c0, columns, tile / sides * kSide, tile % sides * kSide, mine);
      biasTile<T>(call, chunk.rows, block, c0, columns, (tile - weightTiles) * kSide);
    });
  }

  template <class T>
  void weightTile(const Call& call, const Chunk<T>& chunk, const T* block, std::int64_t c0, std::int64_t columns, std::int64_t c,
                  std::int64_t side, std::byte* mine) const {
    const std::int64_t m = std::min(kSide, columns - c), n = std::min(kSide, d_.width - side), at = (c0 + c) * d_.width + side;
    const Gemm& product = products_.of(dweightProduct(m, n, chunk.rows, chunk.later));
    const T* const a = block + c;
    const T* const b = call.in[0].template as<T>() + chunk.first * d_.width + side;
    if constexpr (std::is_same_v<T, bf16>) {
      if (sumsWeight_) {
        float* const sums = reinterpret_cast<float*>(mine);
        std::uint8_t* const low0 = reinterpret_cast<std::uint8_t*>(call.workspace + lowAt_);
        std::uint8_t* const low1 = low0 + d_.columns * d_.width;
        const auto each = [&](auto move) {
          for (std::int64_t i = 0; i < m; ++i) move(sums + i * n, at + i * d_.width);
        };
        if (chunk.later) each([&](float* s, std::int64_t i) { unpackMaster(chunk.dweight + i, low0 + i, low1 + i, s, n); });
        product.run(a, b, sums, mine + tile_);
        each([&](const float* s, std::int64_t i) { packMaster(s, chunk.dweight + i, low0 + i, low1 + i, n); });
        return;
      }
    }
    product.run(a, b, chunk.dweight + at, mine + tile_);
  }

  template <class T>
  void biasTile(const Call& call, std::int64_t rows, const T* block, std::int64_t c0, std::int64_t columns, std::int64_t c) const {
    using V = VecOf<T>;
    auto* const sums = reinterpret_cast<typename V::Scalar*>(call.workspace + biasAt_) + c0 + c;
    eachVector<V>(std::min(kSide, columns - c), [&](auto w, std::int64_t i) {
      V total = w.load(sums + i);
      for (std::int64_t r = 0; r < rows; ++r) total = total + w.load(block + r * gradientRow_() + c + i);
      w.store(sums + i, total);
    });
  }

  CrossEntropyOptions options_;
  bool bias_, dx_, dweight_, dbias_, narrow_ = false, sumsWeight_ = false;
  Dims d_{};
  std::int64_t unit_ = 4, row_ = 0, chunk_ = 1;
  std::int64_t logitsAt_ = 0, sumsAt_ = 0, narrowAt_ = 0, dxAt_ = 0, lowAt_ = 0, biasAt_ = 0, threadsAt_ = 0;
  std::size_t tile_ = 0;
  Products products_;
};

}  // namespace

std::unique_ptr<Kernel> makeLinearCrossEntropyWithGradients(const Spec& spec) {
  return std::make_unique<LinearCrossEntropyWithGradients>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL
