// Cross-entropy of a linear layer, x·Wᵀ + b, that never holds all its logits: products make those of a chunk of rows and columns, which is
// folded into sums of the rows, or becomes gradients and is multiplied once more (Wijmans et al., "Cut your losses", 2024). Losses and
// gradients at once take chunks of whole rows, whose logits are made once (Hsu et al., "Liger Kernel", 2024).
#include "cuda/crossentropy_linear.cuh"

#include "cpu/crossentropy_linear_checks.h"
#include "cuda/product.h"

namespace steepest::cuda {

namespace {

#ifdef STEEPEST_FIBERS
// So small that small shapes have several chunks.
constexpr std::int64_t kChunkRows = 32, kChunkColumns = 40, kWholeBytes = 4 << 10, kWholeRows = 24;
#else
// Of a chunk; logits in float32 take 32 MB, which stays in the second-level cache of a large device.
constexpr std::int64_t kChunkRows = 2048, kChunkColumns = 4096;
// Of a chunk of whole rows: bytes of logits and, in bfloat16, of their gradients beside them; and rows at least.
constexpr std::int64_t kWholeBytes = 128 << 20, kWholeRows = 256;
#endif

Batched matrix(std::int64_t row, std::int64_t column) {
  Batched at;
  at.row = row, at.col = column;
  return at;
}

// What the kernels share: sizes, the logits of a chunk, and what the gradients of logits add to those of the operands.
class LinearLoss : public Kernel {
 protected:
  LinearLoss(const CrossEntropyOptions& options, const linear_loss::Dims& d, bool bias)
      : options_(options), d_(d), bias_(bias), narrow_(d.type == DType::bfloat16), unit_(sizeOf(statistics(d.type))) {}

  // Scratch, piece by piece.
  std::size_t take(std::int64_t n, std::size_t unit) {
    const std::size_t here = workspace;
    workspace += (static_cast<std::size_t>(n) * unit + 63) / 64 * 64;
    return here;
  }

  // f(first, count) for pieces of n; at least one, which may be empty, where `once`.
  template <class F>
  static void pieces(std::int64_t n, std::int64_t each, bool once, F&& f) {
    for (std::int64_t i = 0; i < n || (once && i == 0); i += std::max<std::int64_t>(1, each)) f(i, std::min(each, n - i));
  }

  struct Chunk {
    std::int64_t row, rows, column, columns;
  };

  template <class T>
  void logits(const Call& call, const Chunk& c, const T* bias, void* out) const {
    Product p;
    p.m = c.rows, p.n = c.columns, p.k = d_.width;
    p.in = d_.type, p.outDtype = statistics(d_.type);
    p.a = call.in[0].template as<T>() + c.row * d_.width, p.aAt = matrix(d_.width, 1);
    p.b = call.in[1].template as<T>() + c.column * d_.width, p.bAt = matrix(1, d_.width);
    if (bias) p.bias = bias + c.column;
    p.out = out;
    product(call, p);
  }

  // Logits become gradients, `lse` and `given` are those of all rows.
  template <class T, class S = ComputeOf<T>>
  void slopesOf(const Call& call, const Chunk& c, const S* chunk, T* gradients, const S* lse, const S* given) const {
    STEEPEST_LAUNCH((slopes<T, S>), gridFor(c.rows, 1), kThreads, 0, call, chunk, gradients, call.in[2].template as<std::int32_t>() + c.row,
                    lse + c.row, given + c.row, c.rows, c.column, c.columns, d_.columns, CapOf<S>(options_.softCap), LossOptions(options_));
  }
  // dx (+)= gradients·weight
  template <class T>
  void toInput(const Call& call, const Chunk& c, const T* gradients, void* dx, DType type, bool more) const {
    Product p;
    p.m = c.rows, p.k = c.columns;
    p.a = gradients, p.aAt = matrix(c.columns, 1);
    p.b = call.in[1].template as<T>() + c.column * d_.width, p.bAt = matrix(d_.width, 1);
    add(call, p, dx, type, more);
  }
  // dweight (+)= gradientsᵀ·x
  template <class T>
  void toWeight(const Call& call, const Chunk& c, const T* gradients, void* dweight, DType type, bool more) const {
    Product p;
    p.m = c.columns, p.k = c.rows;
    p.a = gradients, p.aAt = matrix(1, c.columns);
    p.b = call.in[0].template as<T>() + c.row * d_.width, p.bAt = matrix(d_.width, 1);
    add(call, p, dweight, type, more);
  }
  template <class T, class S = ComputeOf<T>>
  void toBias(const Call& call, const Chunk& c, const T* gradients, S* sums) const {
    STEEPEST_LAUNCH((columnSums<T, S>), blocksFor(c.columns, kAcross), kThreads, 0, call, gradients, sums + c.column, c.rows, c.columns,
                    c.row > 0);
  }
  void narrow(const Call& call, const void* from, void* to, std::int64_t n) const {
    STEEPEST_LAUNCH(narrowed, gridFor(n, 4 * kThreads), kThreads, 0, call, static_cast<const float*>(from), static_cast<bf16*>(to), n,
                    groups(to));
  }
  static bool groups(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 8 == 0; }

  // Zeros in the outputs from `at` on.
  static void clear(const Call& call, std::size_t at) {
    for (const View& out : call.out.subspan(at))
      STEEPEST_LAUNCH(zeros, gridFor(static_cast<std::int64_t>(out.bytes())), kThreads, 0, call, out.as<std::uint8_t>(),
                      static_cast<std::int64_t>(out.bytes()));
  }

  CrossEntropyOptions options_;
  linear_loss::Dims d_;
  bool bias_, narrow_;
  std::size_t unit_;  // bytes of a number that is computed with

 private:
  void add(const Call& call, Product p, void* out, DType type, bool more) const {
    p.in = d_.type, p.n = d_.width, p.out = out, p.outDtype = type;
    if (more) p.residual = out, p.residualAt = matrix(d_.width, 1);
    product(call, p);
  }
};

class LinearCrossEntropy final : public LinearLoss {
 public:
  LinearCrossEntropy(const Spec& spec, const LinearCrossEntropyAttrs& a)
      : LinearLoss(CrossEntropyOptions::of(a), linear_loss::checkLosses(spec, a), a.bias),
        rows_(std::min(d_.rows, kChunkRows)),
        columns_(std::min(d_.columns, kChunkColumns)),
        logits_(take(rows_ * columns_, unit_)),
        states_(take(rows_ * 4, unit_)) {}

  void run(const Call& call) const override {
    byFloat(d_.type, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      S* const chunk = reinterpret_cast<S*>(call.workspace + logits_);
      pieces(d_.rows, rows_, false, [&](std::int64_t row, std::int64_t rows) {
        pieces(d_.columns, columns_, true, [&](std::int64_t column, std::int64_t columns) {
          logits<T>(call, {row, rows, column, columns}, bias_ ? call.in[3].template as<T>() : nullptr, chunk);
          STEEPEST_LAUNCH(absorb<S>, gridFor(rows, 1), kThreads, 0, call, chunk, call.in[2].template as<std::int32_t>() + row,
                          reinterpret_cast<RowState<S>*>(call.workspace + states_), call.out[0].template as<S>() + row,
                          call.out[1].template as<S>() + row, rows, column, columns, d_.columns, CapOf<S>(options_.softCap),
                          LossOptions(options_), call.deviceFault);
        });
      });
    });
  }

 private:
  std::int64_t rows_, columns_;  // of a chunk
  std::size_t logits_, states_;
};

// Inputs x, weight, labels, lse, gradient of the losses, bias?; outputs dx?, dweight?, dbias?. Sums of bfloat16 are in float32, beside the
// outputs; one chunk of rows needs none of dweight.
class LinearCrossEntropyBackward final : public LinearLoss {
 public:
  LinearCrossEntropyBackward(const Spec& spec, const LinearCrossEntropyBackwardAttrs& a)
      : LinearLoss(CrossEntropyOptions::of(a), linear_loss::checkBackward(spec, a), a.bias),
        dx_(a.dx),
        dweight_(a.dweight),
        dbias_(a.dbias),
        rows_(std::min(d_.rows, kChunkRows)),
        columns_(std::min(d_.columns, kChunkColumns)) {
    sumsWeight_ = narrow_ && dweight_ && d_.rows > rows_;
    logits_ = take(rows_ * columns_, unit_);
    gradients_ = narrow_ ? take(rows_ * columns_, sizeOf(d_.type)) : logits_;
    if (narrow_ && dx_) xSums_ = take(d_.rows * d_.width, unit_);
    if (sumsWeight_) weightSums_ = take(columns_ * d_.width, unit_);
    if (narrow_ && dbias_) biasSums_ = take(d_.columns, unit_);
  }

  void run(const Call& call) const override {
    if (d_.rows == 0 || d_.columns == 0) return clear(call, 0);
    byFloat(d_.type, [&](auto type) { runAs<decltype(type)>(call); });
  }

 private:
  template <class T>
  void runAs(const Call& call) const {
    using S = ComputeOf<T>;
    std::size_t at = 0;
    T* const dx = dx_ ? call.out[at++].template as<T>() : nullptr;
    T* const dweight = dweight_ ? call.out[at++].template as<T>() : nullptr;
    T* const dbias = dbias_ ? call.out[at++].template as<T>() : nullptr;
    const auto place = [&](std::size_t offset) { return reinterpret_cast<S*>(call.workspace + offset); };
    T* const gradients = reinterpret_cast<T*>(call.workspace + gradients_);
    S* const xSums = narrow_ ? place(xSums_) : reinterpret_cast<S*>(dx);
    S* const biasSums = narrow_ ? place(biasSums_) : reinterpret_cast<S*>(dbias);
    pieces(d_.columns, columns_, false, [&](std::int64_t column, std::int64_t columns) {
      T* const weightOut = dweight ? dweight + column * d_.width : nullptr;
      pieces(d_.rows, rows_, false, [&](std::int64_t row, std::int64_t rows) {
        const Chunk c{row, rows, column, columns};
        logits<T>(call, c, bias_ ? call.in[5].template as<T>() : nullptr, place(logits_));
        slopesOf<T>(call, c, place(logits_), gradients, call.in[3].template as<S>(), call.in[4].template as<S>());
        if (dx) toInput(call, c, gradients, xSums + row * d_.width, statistics(d_.type), column > 0);
        if (dweight && sumsWeight_)
          toWeight(call, c, gradients, place(weightSums_), statistics(d_.type), row > 0);
        else if (dweight)
          toWeight(call, c, gradients, weightOut, d_.type, row > 0);
        if (dbias) toBias(call, c, gradients, biasSums);
      });
      if (sumsWeight_) narrow(call, place(weightSums_), weightOut, columns * d_.width);
    });
    if (dx && narrow_) narrow(call, xSums, dx, d_.rows * d_.width);
    if (dbias && narrow_) narrow(call, biasSums, dbias, d_.columns);
  }

  bool dx_, dweight_, dbias_, sumsWeight_;
  std::int64_t rows_, columns_;  // of a chunk
  std::size_t logits_, gradients_, xSums_ = 0, weightSums_ = 0, biasSums_ = 0;
};

// Inputs x, weight, labels, gradient of the losses, bias?; outputs losses, log-sum-exps, dx?, dweight?, dbias?.
class LinearCrossEntropyWithGradients final : public LinearLoss {
 public:
  LinearCrossEntropyWithGradients(const Spec& spec, const LinearCrossEntropyWithGradientsAttrs& a)
      : LinearLoss(CrossEntropyOptions::of(a), linear_loss::checkWithGradients(spec, a), a.bias),
        dx_(a.dx),
        dweight_(a.dweight),
        dbias_(a.dbias) {
    const std::int64_t bytes = std::max<std::int64_t>(1, d_.columns) * static_cast<std::int64_t>(unit_ + (narrow_ ? sizeOf(d_.type) : 0));
    rows_ = std::min(d_.rows, std::max(kWholeRows, kWholeBytes / bytes / 128 * 128));
    sumsWeight_ = narrow_ && dweight_ && d_.rows > rows_;
    logits_ = take(rows_ * d_.columns, unit_);
    gradients_ = narrow_ ? take(rows_ * d_.columns, sizeOf(d_.type)) : logits_;
    if (sumsWeight_) {
      part_ = take(std::min(d_.columns, kChunkColumns) * d_.width, unit_);
      low_ = take(d_.columns * d_.width, sizeof(std::uint16_t));
    }
    if (narrow_ && dbias_) biasSums_ = take(d_.columns, unit_);
  }

  void run(const Call& call) const override {
    byFloat(d_.type, [&](auto type) { runAs<decltype(type)>(call); });
  }

 private:
  template <class T>
  void runAs(const Call& call) const {
    using S = ComputeOf<T>;
    std::size_t at = 2;
    T* const dx = dx_ ? call.out[at++].template as<T>() : nullptr;
    T* const dweight = dweight_ ? call.out[at++].template as<T>() : nullptr;
    T* const dbias = dbias_ ? call.out[at++].template as<T>() : nullptr;
    if (d_.rows == 0 || d_.columns == 0) clear(call, 2);
    S* const chunk = reinterpret_cast<S*>(call.workspace + logits_);
    T* const gradients = reinterpret_cast<T*>(call.workspace + gradients_);
    S* const biasSums = narrow_ ? reinterpret_cast<S*>(call.workspace + biasSums_) : reinterpret_cast<S*>(dbias);
    S *const losses = call.out[0].template as<S>(), *const lse = call.out[1].template as<S>();
    pieces(d_.rows, rows_, false, [&](std::int64_t row, std::int64_t rows) {
      const Chunk c{row, rows, 0, d_.columns};
      logits<T>(call, c, bias_ ? call.in[4].template as<T>() : nullptr, chunk);
      STEEPEST_LAUNCH(absorb<S>, gridFor(rows, 1), kThreads, 0, call, chunk, call.in[2].template as<std::int32_t>() + row, nullptr,
                      losses + row, lse + row, rows, std::int64_t{0}, d_.columns, d_.columns, CapOf<S>(options_.softCap),
                      LossOptions(options_), call.deviceFault);
      if (d_.columns == 0) return;
      slopesOf<T>(call, c, chunk, gradients, lse, call.in[3].template as<S>());
      if (dx) toInput(call, c, gradients, dx + row * d_.width, d_.type, false);
      if (dweight && sumsWeight_)
        addWeight(call, c, gradients, dweight);
      else if (dweight)
        toWeight(call, c, gradients, dweight, d_.type, row > 0);
      if (dbias) toBias(call, c, gradients, biasSums);
    });
    if (dbias && narrow_ && d_.rows > 0) narrow(call, biasSums, dbias, d_.columns);
  }

  // By columns, so that what is not yet in halves is small.
  template <class T>
  void addWeight(const Call& call, const Chunk& c, const T* gradients, T* dweight) const {
    float* const part = reinterpret_cast<float*>(call.workspace + part_);
    std::uint16_t* const low = reinterpret_cast<std::uint16_t*>(call.workspace + low_);
    pieces(d_.columns, kChunkColumns, false, [&](std::int64_t column, std::int64_t columns) {
      Product p;
      p.in = d_.type, p.outDtype = DType::float32;
      p.m = columns, p.n = d_.width, p.k = c.rows;
      p.a = gradients + column, p.aAt = matrix(1, d_.columns);
      p.b = call.in[0].template as<T>() + c.row * d_.width, p.bAt = matrix(d_.width, 1);
      p.out = part;
      product(call, p);
      const std::int64_t n = columns * d_.width, first = column * d_.width;
      void* const to = dweight + first;
      STEEPEST_LAUNCH(addHalves, gridFor(n, 4 * kThreads), kThreads, 0, call, part, static_cast<bf16*>(to), low + first, n,
                      groups(to) && groups(low + first), c.row == 0, c.row + c.rows == d_.rows);
    });
  }

  bool dx_, dweight_, dbias_, sumsWeight_ = false;
  std::int64_t rows_ = 0;  // of a chunk
  std::size_t logits_ = 0, gradients_ = 0, part_ = 0, low_ = 0, biasSums_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeLinearCrossEntropy(const Spec& spec) {
  return std::make_unique<LinearCrossEntropy>(spec, LinearCrossEntropyAttrs::decode(spec.attrs));
}
std::unique_ptr<Kernel> makeLinearCrossEntropyBackward(const Spec& spec) {
  return std::make_unique<LinearCrossEntropyBackward>(spec, LinearCrossEntropyBackwardAttrs::decode(spec.attrs));
}
std::unique_ptr<Kernel> makeLinearCrossEntropyWithGradients(const Spec& spec) {
  return std::make_unique<LinearCrossEntropyWithGradients>(spec, LinearCrossEntropyWithGradientsAttrs::decode(spec.attrs));
}

}  // namespace steepest::cuda
