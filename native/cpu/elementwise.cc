// The elementwise instruction: a chain of steps over blocks of lanes that stay in the first-level cache.
//
// A block is computed step by step: each step is one loop over the block, from registers to a register. Operands that lie as a register
// does are read, and results written, where they lie. Blocks are gathered to tiles for the threads by the shape and the code alone.
#include <algorithm>

#include "cpu/elementwise_code.h"

namespace steepest::STEEPEST_LEVEL {

namespace ew {
namespace {

constexpr std::int64_t kCache = 24 * 1024;                                   // bytes of registers that stay near
constexpr std::int64_t kTileCost = 1 << 17;                                  // work of a tile, in additions
constexpr std::int64_t kNear = 1 << 20;                                      // bytes of operands that are likely in the second-level cache
constexpr std::int64_t kLongest = 1024, kLongestFar = 512, kShortest = 128;  // lanes of a block
// Lanes of a tile of a long chain, where that leaves enough tiles: memory gives more to long walks.
constexpr std::int64_t kTileLanes = 131072, kFewTiles = 128;
constexpr std::int64_t kPatchRows = 32;

// Registers have the same bytes as the dtype in memory.
bool plain(DType t) { return t == DType::float32 || t == DType::float64 || t == DType::int32; }

bool overlap(const View& a, const View& b) {
  if (!a.data || !b.data) return false;
  const auto reach = [](const View& v, std::int64_t& low, std::int64_t& high) {
    low = high = 0;
    for (int i = 0; i < v.rank; ++i) (v.strides[i] < 0 ? low : high) += (v.shape[i] - 1) * v.strides[i];
    const auto bytes = static_cast<std::int64_t>(sizeOf(v.dtype)), at = reinterpret_cast<std::int64_t>(v.data);
    low = at + low * bytes;
    high = at + (high + 1) * bytes;
  };
  std::int64_t al, ah, bl, bh;
  reach(a, al, ah);
  reach(b, bl, bh);
  return al < bh && bl < ah;
}

class Elementwise final : public Kernel {
 public:
  Elementwise(RunChain run, int threads)
      : chain_(std::move(run.chain)), loops_(std::move(run.loops)), constants_(std::move(run.constants)) {
    const std::int64_t lane = std::max<std::int64_t>(1, chain_.slots * chain_.width);
    std::int64_t bytes = 0;
    for (std::size_t i = 0; i < chain_.inputs.size(); ++i) {
      const Input& in = chain_.inputs[i];
      if (in.used && in.contiguous()) streams_.push_back({static_cast<int>(i), static_cast<std::int64_t>(sizeOf(in.dtype))});
      if (in.used && in.contiguous()) bytes += chain_.size * static_cast<std::int64_t>(sizeOf(in.dtype));
    }
    const bool far = bytes > kNear;
    if (!far) streams_.clear();
    block_ = std::clamp<std::int64_t>(kCache / lane / 16 * 16, kShortest, far ? kLongestFar : kLongest);
    if (chain_.patches.row >= 0) {
      const Patches& p = chain_.patches;
      patchCols_ = block_ / kPatchRows;
      across_ = layout::ceilDiv(p.shape[p.inner], patchCols_);
      down_ = layout::ceilDiv(p.shape[p.row], kPatchRows);
      blocks_ = chain_.size / (p.shape[p.inner] * p.shape[p.row]) * across_ * down_;
    } else if (chain_.row > 0) {
      // Rows are cut evenly.
      perRow_ = layout::ceilDiv(chain_.row, block_);
      block_ = layout::ceilDiv(layout::ceilDiv(chain_.row, perRow_), 16) * 16;
      perRow_ = layout::ceilDiv(chain_.row, block_);
      blocks_ = chain_.size / chain_.row * perRow_;
    } else {
      blocks_ = layout::ceilDiv(chain_.size, block_);
    }
    perTile_ = std::max<std::int64_t>(1, kTileCost / std::max<std::int64_t>(1, chain_.cost * block_));
    if (!chain_.steps.empty() && far && chain_.patches.row < 0)
      share_ = (block_ << 16) / static_cast<std::int64_t>(chain_.steps.size()) + 1;
    perTile_ = std::max(perTile_, std::min(kTileLanes, chain_.size / kFewTiles) / block_);
    tableBytes_ = align(static_cast<std::int64_t>(sizeof(Source)) * chain_.registers);
    uniformBytes_ = 64 * static_cast<std::int64_t>(chain_.inputs.size());
    slotBytes_ = block_ * chain_.width;
    perThread_ = tableBytes_ + uniformBytes_ + slotBytes_ * chain_.slots;
    workspace = static_cast<std::size_t>(perThread_ * threads);
  }

  void run(const Call& call) const override {
    if (chain_.size == 0) return;
    // A result goes straight to its place unless an input that lies there is still to be read.
    const auto direct = [&](const Output& o, const View& to) {
      if (o.step < 0 || !plain(o.dtype)) return false;
      if (chain_.steps[static_cast<std::size_t>(o.step)].last) return true;
      for (std::size_t i = 0; i < call.in.size(); ++i) {
        // What lies exactly there is read lane by lane, up to this step, before it is written.
        const bool read = call.in[i].data == to.data && chain_.inputs[i].contiguous() && call.in[i].dtype == to.dtype
                              ? chain_.inputs[i].lastRead > o.step
                              : overlap(call.in[i], to);
        if (read) return false;
      }
      return true;
    };
    const bool patched = chain_.patches.row >= 0;
    std::uint64_t straight = 0;
    for (std::size_t i = 0; !patched && i < chain_.outputs.size() && i < 64; ++i) {
      if (direct(chain_.outputs[i], call.out[i])) straight |= std::uint64_t{1} << i;
    }
    call.pool.run(layout::ceilDiv(blocks_, perTile_), [&](std::int64_t tile, int thread) {
      const Worker worker(*this, call, call.workspace + perThread_ * thread, straight);
      for (std::int64_t b = tile * perTile_, end = std::min(blocks_, b + perTile_); b < end; ++b) {
        if (patched) {
          worker.patch(b);
          continue;
        }
        const std::int64_t start = chain_.row > 0 ? b / perRow_ * chain_.row + b % perRow_ * block_ : b * block_;
        const std::int64_t limit = chain_.row > 0 ? (b / perRow_ + 1) * chain_.row : chain_.size;
        worker.block(start, std::min(block_, limit - start));
      }
    });
  }

 private:
  static std::int64_t align(std::int64_t n) { return layout::ceilDiv(n, 64) * 64; }

  // The registers of one thread.
  struct Worker {
    const Elementwise& kernel;
    const Call& call;
    Source* table;
    std::byte* uniforms;
    std::byte* slots;
    std::uint64_t straight;

    Worker(const Elementwise& k, const Call& c, std::byte* memory, std::uint64_t direct)
        : kernel(k),
          call(c),
          table(reinterpret_cast<Source*>(memory)),
          uniforms(memory + k.tableBytes_),
          slots(uniforms + k.uniformBytes_),
          straight(direct) {
      const Chain& chain = k.chain_;
      for (std::size_t i = 0; i < chain.constants.size(); ++i) table[chain.constantRegisters[i]] = {k.constants_[i].at, 0};
      for (std::size_t i = 0; i < chain.inputs.size(); ++i) {
        const Input& input = chain.inputs[i];
        if (!input.used || !input.uniform()) continue;
        spread(input.dtype, c.in[i].data, uniforms + 64 * i);
        table[i] = {uniforms + 64 * i, 0};
      }
    }

    void load(std::size_t i, std::int64_t start, std::int64_t n) const {
      const Input& input = kernel.chain_.inputs[i];
      const std::byte* data = call.in[i].data;
      std::byte* slot = slots + kernel.slotBytes_ * input.slot;
      const auto bytes = static_cast<std::int64_t>(sizeOf(input.dtype));
      std::int64_t offset = start, step = 1;
      if (!input.contiguous()) {
        step = 2;
        if (kernel.chain_.row > 0) {
          offset = layout::Walk<1>(input.loops, start).offset();
          step = input.loops.at[input.loops.rank - 1].step[0];
        }
      }
      if (step == 0) {
        spread(input.dtype, data + offset * bytes, uniforms + 64 * i);
        table[i] = {uniforms + 64 * i, 0};
      } else if (step == 1 && n % 16 == 0 && plain(input.dtype)) {
        table[i] = {data + offset * bytes, 1};
      } else {
        fetch(input, data, start, n, slot);
        table[i] = {slot, 1};
      }
    }

    void block(std::int64_t start, std::int64_t n) const {
      const Chain& chain = kernel.chain_;
      const std::int64_t padded = layout::ceilDiv(n, 16) * 16;
      for (std::size_t i = 0; i < chain.inputs.size(); ++i) {
        if (chain.inputs[i].used && !chain.inputs[i].uniform()) load(i, start, n);
      }
      for (const Step& step : chain.steps) table[step.target] = {slots + kernel.slotBytes_ * step.slot, 1};
      if (padded == n) {
        for (std::size_t k = 0; k < chain.outputs.size() && k < 64; ++k) {
          if (straight >> k & 1) table[chain.outputs[k].reg] = {place(k, start), 1};
        }
      }
      compute(padded, start + n);
      for (std::size_t k = 0; k < chain.outputs.size(); ++k) {
        std::byte* to = place(k, start);
        const Source from = table[chain.outputs[k].reg];
        if (from.at != to) put(chain.outputs[k].dtype, from, to, n);
      }
    }

    // While a block is computed, memory is asked for the next, a few lines with every step: a step reads one array, so that by itself it
    // would wait for that one alone. 20 M parameters of AdamW written in tensors, one thread of a Zen 5 EPYC: 15.2 ms without, 10.0 ms so.
    void compute(std::int64_t n, std::int64_t next) const {
      std::int64_t asked = 0, share = 0;
      for (std::size_t s = 0; s < kernel.loops_.size(); ++s) {
        const Step& step = kernel.chain_.steps[s];
        const RunStep& run = kernel.loops_[s];
        share += kernel.share_;
        for (const std::int64_t end = std::min(n, share >> 16); asked < end; asked += 16) {
          for (const auto [i, bytes] : kernel.streams_)
            __builtin_prefetch(call.in[static_cast<std::size_t>(i)].data + (next + asked) * bytes);
        }
        Source sources[kMostSources];
        for (int k = 0; k < step.arity; ++k) sources[k] = table[step.sources[k]];
        auto* to = const_cast<std::byte*>(table[step.target].at);
        run.loop(sources, to, n);
        if (run.narrow) run.narrow(&table[step.target], to, n);
      }
    }

    // A rectangle of rows and columns, among patches that go across first.
    void patch(std::int64_t index) const {
      const Chain& chain = kernel.chain_;
      const Patches& p = chain.patches;
      const std::int64_t col = index % kernel.across_ * kernel.patchCols_, row = index / kernel.across_ % kernel.down_ * kPatchRows;
      const std::int64_t cols = std::min(kernel.patchCols_, p.shape[p.inner] - col), rows = std::min(kPatchRows, p.shape[p.row] - row);
      std::int64_t at[kMaxRank] = {};
      std::int64_t rest = index / (kernel.across_ * kernel.down_);
      for (int d = p.inner - 1; d >= 0; --d) {
        if (d == p.row) continue;
        at[d] = rest % p.shape[d];
        rest /= p.shape[d];
      }
      at[p.row] = row;
      at[p.inner] = col;
      for (std::size_t i = 0; i < chain.inputs.size(); ++i) {
        const Input& input = chain.inputs[i];
        if (!input.used || input.uniform()) continue;
        std::int64_t offset = 0;
        for (int d = 0; d < p.rank; ++d) offset += at[d] * p.strides[i][static_cast<std::size_t>(d)];
        std::byte* slot = slots + kernel.slotBytes_ * input.slot;
        fetchPatch(input.dtype, call.in[i].data + offset * static_cast<std::int64_t>(sizeOf(input.dtype)),
                   p.strides[i][static_cast<std::size_t>(p.row)], p.strides[i][static_cast<std::size_t>(p.inner)], rows, cols, slot);
        table[i] = {slot, 1};
      }
      for (const Step& step : chain.steps) table[step.target] = {slots + kernel.slotBytes_ * step.slot, 1};
      compute(layout::ceilDiv(rows * cols, 16) * 16, 0);
      std::int64_t start = 0, stride = 1, rowStride = 1;
      for (int d = p.rank - 1; d >= 0; --d) {
        if (d == p.row) rowStride = stride;
        start += at[d] * stride;
        stride *= p.shape[d];
      }
      for (std::size_t k = 0; k < chain.outputs.size(); ++k) {
        const DType dtype = chain.outputs[k].dtype;
        const std::int64_t width = kindOf(dtype) == Kind::twice ? 8 : 4;
        Source from = table[chain.outputs[k].reg];
        for (std::int64_t r = 0; r < rows; ++r) {
          put(dtype, from, place(k, start + r * rowStride), cols);
          from.at += from.step * cols * width;
        }
      }
    }

    std::byte* place(std::size_t k, std::int64_t start) const {
      return call.out[k].data + start * static_cast<std::int64_t>(sizeOf(kernel.chain_.outputs[k].dtype));
    }
  };

  Chain chain_;
  std::vector<RunStep> loops_;
  std::vector<RunChain::Vector> constants_;
  std::int64_t block_, blocks_ = 0, perRow_ = 1, perTile_ = 1;
  std::int64_t patchCols_ = 0, across_ = 0, down_ = 0;
  // Inputs that are walked in order, and their bytes of a lane.
  struct Stream {
    int input;
    std::int64_t bytes;
  };
  std::vector<Stream> streams_;
  std::int64_t share_ = 0;  // lanes of the next block that are asked for with each step, in 1 / 65,536
  std::int64_t tableBytes_, uniformBytes_, slotBytes_, perThread_;
};

}  // namespace
}  // namespace ew

std::unique_ptr<Kernel> makeElementwise(const Spec& spec) {
  return std::make_unique<ew::Elementwise>(ew::compileChain(spec), spec.threads);
}

}  // namespace steepest::STEEPEST_LEVEL
