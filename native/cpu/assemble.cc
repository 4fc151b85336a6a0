// Kernels of `concat`, `pad` and `iota`.
#include "cpu/copy.h"
#include "attrs/concat.gen.h"
#include "attrs/iota.gen.h"
#include "attrs/pad.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using layout::ceilDiv;
using layout::check;

template <class T>
class Concat final : public Kernel {
 public:
  Concat(const Spec& spec, int axis) {
    for (const View& in : spec.in) {
      Part part{layout::loopsOf(in), layout::span(in, axis, in.rank), in.size(), width_, tiles_};
      width_ += part.width;
      tiles_ += ceilDiv(part.size, kTile);
      parts_.push_back(part);
    }
  }

  void run(const Call& call) const override {
    T* out = call.out[0].as<T>();
    call.pool.run(tiles_, [&](std::int64_t tile, int) {
      std::size_t i = parts_.size() - 1;
      while (parts_[i].tile > tile) --i;
      const Part& part = parts_[i];
      const T* in = call.in[i].as<T>();
      std::int64_t at = (tile - part.tile) * kTile;
      const std::int64_t end = std::min(part.size, at + kTile);
      while (at < end) {
        const std::int64_t row = at / part.width, column = at % part.width;
        const std::int64_t n = std::min(end - at, part.width - column);
        layout::copyRun(in, part.loops, at, n, out + row * width_ + part.offset + column);
        at += n;
      }
    });
  }

 private:
  static constexpr std::int64_t kTile = layout::kCopyTile / sizeof(T);
  struct Part {
    layout::Loops<1> loops;
    std::int64_t width, size;   // elements of a row (the axis and all inside of it), and of all
    std::int64_t offset, tile;  // where its rows begin in a row of the output; its first tile
  };
  std::vector<Part> parts_;
  std::int64_t width_ = 0, tiles_ = 0;
};

template <class T>
class Pad final : public Kernel {
 public:
  Pad(const Spec& spec, const PadAttrs& a) : loops_(layout::loopsOf(spec.in[0])), value_(layout::bitsOf<T>(a.value, spec.in[0].dtype)) {
    const View& in = spec.in[0];
    // Axes after the last padded one belong to the elements of a row.
    int last = 0;
    for (int i = 0; i < in.rank; ++i) {
      if (a.before[i] || a.after[i]) last = i;
    }
    const std::int64_t inner = layout::span(in, last + 1, in.rank);
    size_ = spec.out[0].size();
    if (in.rank == 0 || size_ == 0) return;
    n_ = in.shape[last] * inner;
    before_ = a.before[last] * inner;
    width_ = spec.out[0].shape[last] * inner;
    for (int i = 0; i < last; ++i) outer_[outers_++] = {in.shape[i], a.before[i], spec.out[0].shape[i]};
  }

  void run(const Call& call) const override {
    const T* in = call.in[0].as<T>();
    T* out = call.out[0].as<T>();
    if (width_ == 0) {
      if (size_ == 1) out[0] = in[0];
      return;
    }
    constexpr std::int64_t kTile = layout::kCopyTile / sizeof(T);
    call.pool.run(ceilDiv(size_, kTile), [&](std::int64_t tile, int) {
      std::int64_t at = tile * kTile;
      const std::int64_t end = std::min(size_, at + kTile);
      while (at < end) {
        const std::int64_t row = at / width_, from = at % width_, to = std::min(width_, from + end - at);
        const std::int64_t source = n_ ? sourceRow(row) : -1;
        T* p = out + row * width_;
        const std::int64_t first = source < 0 ? to : std::clamp(before_, from, to);
        const std::int64_t past = source < 0 ? to : std::clamp(before_ + n_, from, to);
        std::fill(p + from, p + first, value_);
        if (past > first) layout::copyRun(in, loops_, source * n_ + first - before_, past - first, p + first);
        std::fill(p + past, p + to, value_);
        at += to - from;
      }
    });
  }

 private:
  // The row of the input that lies in a row of the output; -1 where none does.
  std::int64_t sourceRow(std::int64_t row) const {
    std::int64_t source = 0, scale = 1;
    for (int i = outers_ - 1; i >= 0; --i) {
      const std::int64_t index = row % outer_[i].out - outer_[i].before;
      if (index < 0 || index >= outer_[i].in) return -1;
      source += index * scale;
      scale *= outer_[i].in;
      row /= outer_[i].out;
    }
    return source;
  }

  struct Outer {
    std::int64_t in, before, out;
  };
  layout::Loops<1> loops_;
  T value_;
  std::int64_t size_ = 0, n_ = 0, before_ = 0, width_ = 0;
  Outer outer_[kMaxRank];
  int outers_ = 0;
};

void iota(const Call& call, const IotaAttrs& a) {
  const View& out = call.out[0];
  layout::bySize(out.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr std::int64_t kTile = 16384;
    call.pool.run(ceilDiv(a.size, kTile), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(a.size, (tile + 1) * kTile);
      for (std::int64_t i = tile * kTile; i < end; ++i) {
        out.as<T>()[i] = layout::bitsOf<T>(a.start + static_cast<double>(i) * a.step, out.dtype);
      }
    });
  });
}

}  // namespace

std::unique_ptr<Kernel> makeConcat(const Spec& spec) {
  const ConcatAttrs a = ConcatAttrs::decode(spec.attrs);
  check(!spec.in.empty() && spec.out.size() == 1 && spec.out[0].contiguous(), "concat", "inputs, and one contiguous output");
  const View& out = spec.out[0];
  check(a.axis >= 0 && a.axis < out.rank, "concat", "axis of the output");
  const int axis = static_cast<int>(a.axis);
  std::int64_t total = 0;
  for (const View& in : spec.in) {
    check(in.rank == out.rank && in.dtype == out.dtype, "concat", "rank and dtype of the inputs");
    for (int i = 0; i < out.rank; ++i) check(i == axis || in.shape[i] == out.shape[i], "concat", "lengths other than the axis'");
    total += in.shape[axis];
  }
  check(total == out.shape[axis], "concat", "length of the output");
  return layout::bySize(out.dtype,
                        [&](auto zero) -> std::unique_ptr<Kernel> { return std::make_unique<Concat<decltype(zero)>>(spec, axis); });
}

std::unique_ptr<Kernel> makePad(const Spec& spec) {
  const PadAttrs a = PadAttrs::decode(spec.attrs);
  check(spec.in.size() == 1 && spec.out.size() == 1 && spec.out[0].contiguous(), "pad", "one input and one contiguous output");
  const View &in = spec.in[0], &out = spec.out[0];
  check(in.rank == out.rank && in.dtype == out.dtype, "pad", "rank and dtype");
  check(static_cast<int>(a.before.size()) == in.rank && static_cast<int>(a.after.size()) == in.rank, "pad", "one pair of widths per axis");
  for (int i = 0; i < in.rank; ++i) {
    check(a.before[i] >= 0 && a.before[i] <= out.shape[i] && out.shape[i] - a.before[i] - in.shape[i] == a.after[i] && a.after[i] >= 0,
          "pad", "widths and lengths");
  }
  return layout::bySize(out.dtype, [&](auto zero) -> std::unique_ptr<Kernel> { return std::make_unique<Pad<decltype(zero)>>(spec, a); });
}

std::unique_ptr<Kernel> makeIota(const Spec& spec) {
  const IotaAttrs a = IotaAttrs::decode(spec.attrs);
  check(spec.in.empty() && spec.out.size() == 1, "iota", "no input and one output");
  const View& out = spec.out[0];
  check(out.rank == 1 && out.shape[0] == a.size && out.dtype == a.dtype && out.contiguous(), "iota", "shape and dtype of the output");
  return std::make_unique<SimpleKernel<IotaAttrs, iota>>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL
