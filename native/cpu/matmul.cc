// Row `matmul`: activation(scale·a·b + bias) + residual over matrices in the last two axes. Cut into tiles by shape; each tile is one
// product on one thread, followed by its epilogue.
#include <cstring>
#include <optional>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/matmul_epilogue.h"
#include "cpu/matmul_grid.h"
#include "cpu/matmul_operands.h"
#include "attrs/matmul.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

class Matmul final : public Kernel {
 public:
  explicit Matmul(const Spec& spec) : attrs_(MatmulAttrs::decode(spec.attrs)) {
    checkMatmul(spec, attrs_);
    const View &a = spec.in[0], &b = spec.in[1];
    in_ = a.dtype;
    sum_ = in_ == DType::float64 ? DType::float64 : DType::float32;
    m_ = a.dim(-2);
    k_ = a.dim(-1);
    n_ = b.dim(-1);
    a_ = Batched(a);
    b_ = Batched(b);
    for (int i = 0; i < a_.axes; ++i) batch_ *= a.shape[i];
    if (attrs_.residual) residual_ = Batched(spec.in.back());
    if (batch_ * m_ * n_ == 0) return;
    a_.settle(m_);
    residual_.settle(m_);
    if (batch_ > 1 && b_.repeats() && a_.stacks(m_) && (!attrs_.residual || residual_.stacks(m_))) {
      m_ *= batch_;
      batch_ = 1;
      a_.axes = b_.axes = residual_.axes = 0;
    }
    grid_.emplace(batch_, m_, n_, k_);
    plan(spec);
  }

  void run(const Call& call) const override {
    if (!grid_) return;
    const std::byte* bias = attrs_.bias ? call.in[2].data : nullptr;
    if (biasBytes_) {
      const std::size_t unit = sizeOf(in_);
      for (std::int64_t j = 0; j < n_; ++j) std::memcpy(call.workspace + biasAt_ + j * unit, bias + j * biasStep_ * unit, unit);
      bias = call.workspace + biasAt_;
    }
    const MatmulGrid& grid = *grid_;
    const std::int64_t pm = grid.m.count(), pn = grid.n.count(), pk = grid.k.count();
    const auto inTasks = [&](std::int64_t tiles, auto&& body) {
      const std::int64_t each = grid.tilesPerTask();
      call.pool.run((tiles + each - 1) / each, [&](std::int64_t task, int thread) {
        std::byte* const scratch = call.workspace + threadBytes_ * static_cast<std::size_t>(thread);
        for (std::int64_t t = task * each; t < std::min(tiles, (task + 1) * each); ++t) body(t, scratch);
      });
    };
    // Rows of tiles come first: neighbours in time share a panel of b.
    inTasks(batch_ * pk * pm * pn, [&](std::int64_t t, std::byte* scratch) {
      const std::int64_t i = t % pm, j = t / pm % pn, piece = t / (pm * pn) % pk, batch = t / (pm * pn * pk);
      product(call, batch, i, j, piece, scratch);
      if (finishes_ && pk == 1) finish(call, batch, i, j, bias, scratch);
    });
    if (pk > 1) {
      inTasks(batch_ * pm * pn,
              [&](std::int64_t t, std::byte* scratch) { finish(call, t / (pm * pn), t % pm, t / pm % pn, bias, scratch); });
    }
  }

 private:
  // Library code for every tile shape that occurs, and the workspace:
  // per thread [scratch of the product | sums of one tile | one row of the residual], then [bias | partial sums].
  void plan(const Spec& spec) {
    const MatmulGrid& grid = *grid_;
    const bool split = grid.k.count() > 1;
    finishes_ = split || attrs_.scale != 1 || attrs_.bias || attrs_.residual || attrs_.preactivation ||
                attrs_.activation != MatmulAttrs::Activation::kNone;
    // Sums go where the output will be, if its dtype can hold them.
    staged_ = finishes_ && !split && attrs_.outDtype != sum_;
    sumRow_ = staged_ ? std::min(grid.n.each, n_) : n_;
    std::size_t scratch = 0;
    for (int kind = 0; kind < 8; ++kind) {
      const std::int64_t i = kind & 1 ? grid.m.count() - 1 : 0, j = kind & 2 ? grid.n.count() - 1 : 0,
                         p = kind & 4 ? grid.k.count() - 1 : 0;
      if (kindOf(i, j, p) != kind) continue;
      gemms_[kind] = Gemm({grid.m.size(i), grid.n.size(j), grid.k.size(p), a_.row, a_.col, b_.row, b_.col, sumRow_, in_,
                           finishes_ ? sum_ : attrs_.outDtype, false});
      scratch = std::max(scratch, gemms_[kind].scratch());
    }
    tileAt_ = align(scratch);
    rowAt_ = tileAt_ + (staged_ ? align(static_cast<std::size_t>(grid.m.each * sumRow_) * sizeOf(sum_)) : 0);
    const bool gathers = attrs_.residual && residual_.col != 1 && n_ > 1;
    threadBytes_ = rowAt_ + (gathers ? align(static_cast<std::size_t>(grid.n.each) * sizeOf(attrs_.outDtype)) : 0);
    gathers_ = gathers;
    biasAt_ = threadBytes_ * static_cast<std::size_t>(spec.threads);
    if (attrs_.bias) biasStep_ = spec.in[2].strides[0];
    biasBytes_ = attrs_.bias && biasStep_ != 1 && n_ > 1 ? align(static_cast<std::size_t>(n_) * sizeOf(in_)) : 0;
    partialsAt_ = biasAt_ + biasBytes_;
    workspace = partialsAt_ + (split ? static_cast<std::size_t>(grid.k.count() * batch_ * m_ * n_) * sizeOf(sum_) : 0);
    epilogue_ = epilogueFor(in_, attrs_.outDtype, attrs_.activation);
  }

  int kindOf(std::int64_t i, std::int64_t j, std::int64_t piece) const {
    return (grid_->m.isLast(i) ? 1 : 0) | (grid_->n.isLast(j) ? 2 : 0) | (grid_->k.isLast(piece) ? 4 : 0);
  }

  // Where the sums of a tile lie; pieces are batch_·m_·n_ elements apart.
  std::byte* sumsOf(const Call& call, std::int64_t batch, std::int64_t i, std::int64_t j, std::int64_t piece, std::byte* scratch) const {
    if (staged_) return scratch + tileAt_;
    const std::int64_t within = (batch * m_ + grid_->m.begin(i)) * n_ + grid_->n.begin(j);
    if (grid_->k.count() == 1) return call.out[0].data + within * sizeOf(attrs_.outDtype);
    return call.workspace + partialsAt_ + (piece * batch_ * m_ * n_ + within) * sizeOf(sum_);
  }

  void product(const Call& call, std::int64_t batch, std::int64_t i, std::int64_t j, std::int64_t piece, std::byte* scratch) const {
    const std::int64_t row = grid_->m.begin(i), column = grid_->n.begin(j), depth = grid_->k.begin(piece);
    const std::int64_t unit = static_cast<std::int64_t>(sizeOf(in_));
    gemms_[kindOf(i, j, piece)].run(call.in[0].data + (a_.at(batch) + row * a_.row + depth * a_.col) * unit,
                                    call.in[1].data + (b_.at(batch) + depth * b_.row + column * b_.col) * unit,
                                    sumsOf(call, batch, i, j, piece, scratch), scratch);
  }

  void finish(const Call& call, std::int64_t batch, std::int64_t i, std::int64_t j, const std::byte* bias, std::byte* scratch) const {
    const std::int64_t columns = grid_->n.size(j), column = grid_->n.begin(j);
    const std::size_t outUnit = sizeOf(attrs_.outDtype);
    const std::byte* const sums = sumsOf(call, batch, i, j, 0, scratch);
    const std::byte* const residual =
        attrs_.residual ? call.in.back().data + residual_.at(batch) * static_cast<std::int64_t>(outUnit) : nullptr;
    for (std::int64_t r = 0; r < grid_->m.size(i); ++r) {
      const std::int64_t row = grid_->m.begin(i) + r;
      const std::size_t at = static_cast<std::size_t>((batch * m_ + row) * n_ + column) * outUnit;
      const std::byte* added =
          residual ? residual + (row * residual_.row + column * residual_.col) * static_cast<std::int64_t>(outUnit) : nullptr;
      if (added && gathers_) {
        for (std::int64_t c = 0; c < columns; ++c) {
          std::memcpy(scratch + rowAt_ + c * outUnit, added + c * residual_.col * static_cast<std::int64_t>(outUnit), outUnit);
        }
        added = scratch + rowAt_;
      }
      epilogue_({sums + r * sumRow_ * sizeOf(sum_), grid_->k.count(), batch_ * m_ * n_, attrs_.scale,
                 bias ? bias + column * sizeOf(in_) : nullptr, added, attrs_.preactivation ? call.out[1].data + at : nullptr,
                 call.out[0].data + at, columns});
    }
  }

  MatmulAttrs attrs_;
  DType in_ = DType::float32, sum_ = DType::float32;
  std::int64_t batch_ = 1, m_ = 0, n_ = 0, k_ = 0;
  Batched a_, b_, residual_;
  std::optional<MatmulGrid> grid_;  // none where the output is empty
  Gemm gemms_[8];                   // by which of the tile's cuts is the last
  Epilogue epilogue_ = nullptr;
  bool finishes_ = false, staged_ = false, gathers_ = false;
  std::int64_t sumRow_ = 0, biasStep_ = 1;
  std::size_t tileAt_ = 0, rowAt_ = 0, threadBytes_ = 0, biasAt_ = 0, biasBytes_ = 0, partialsAt_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeMatmul(const Spec& spec) { return std::make_unique<Matmul>(spec); }

}  // namespace steepest::STEEPEST_LEVEL
