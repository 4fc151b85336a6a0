// Rotary positions, and signs of activations in single bits.
#include "attrs/maskBySigns.gen.h"
#include "attrs/packSigns.gen.h"
#include "attrs/rotary.gen.h"
#include "cpu/layout.h"
#include "cuda/device.cuh"

#include <vector>

namespace steepest::cuda {

namespace {

constexpr int kMostPairs = 256;

struct Turn {
  double frequencies[kMostPairs];
  std::int64_t tables, time, pairs, offset;
  bool inverse;
};

// Cosines, then sines, of every position and pair.
template <class S>
__global__ void __launch_bounds__(kThreads) fillTables(const __grid_constant__ Turn t, const std::int32_t* positions, S* cosines) {
  const std::int64_t size = t.tables * t.time * t.pairs;
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    const std::int64_t row = i / t.pairs;
    const vd angle(t.frequencies[i % t.pairs] * static_cast<double>((positions ? positions[row] : row) + t.offset));
    cosines[i] = static_cast<S>(cos(angle).v);
    const double s = sin(angle).v;
    cosines[size + i] = static_cast<S>(t.inverse ? 0 - s : s);
  }
}

struct Heads {
  std::int64_t time, heads, depth, pairs;
  std::int64_t strides[4];
  bool interleaved, each;  // a table for each example
};

// A thread takes a pair, or a component behind all pairs.
template <class T>
__global__ void __launch_bounds__(kThreads) turnPairs(const T* x, T* y, const ComputeOf<T>* cosines, const ComputeOf<T>* sines,
                                                      const __grid_constant__ Heads h, std::int64_t size) {
  using S = ComputeOf<T>;
  const std::int64_t per = h.depth - h.pairs;
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    const std::int64_t k = i % per, head = i / per % h.heads, row = i / per / h.heads, step = row % h.time;
    const T* from = x + row / h.time * h.strides[0] + step * h.strides[1] + head * h.strides[2];
    T* to = y + (row * h.heads + head) * h.depth;
    if (k >= h.pairs) {
      const std::int64_t at = k + h.pairs;
      to[at] = from[at * h.strides[3]];
      continue;
    }
    const std::int64_t first = h.interleaved ? 2 * k : k, second = h.interleaved ? first + 1 : k + h.pairs;
    const std::int64_t at = (h.each ? row : step) * h.pairs + k;
    const S c = cosines[at], s = sines[at], a = read(from + first * h.strides[3]), b = read(from + second * h.strides[3]);
    write(to + first, std::fma(-b, s, a * c));
    write(to + second, std::fma(a, s, b * c));
  }
}

class Rotary final : public Kernel {
 public:
  explicit Rotary(const Spec& spec) {
    const RotaryAttrs a = RotaryAttrs::decode(spec.attrs);
    require(spec.in.size() == 1u + a.positions && spec.out.size() == 1, "rotary: wrong number of operands");
    const View& x = spec.in[0];
    turn_.pairs = static_cast<std::int64_t>(a.frequencies.size());
    require(isFloat(x.dtype) && x.rank == 4 && 2 * turn_.pairs <= x.shape[3], "rotary: wrong input or number of frequencies");
    require(turn_.pairs <= kMostPairs, "rotary: at most 256 frequencies on a GPU");
    turn_.tables = 1;
    if (a.positions) {
      const View& p = spec.in[1];
      const bool each = p.rank == 2 && p.shape[0] == x.shape[0];
      require((p.rank == 1 || each) && p.dim(-1) == x.shape[1] && p.dtype == DType::int32 && p.contiguous(), "rotary: wrong positions");
      turn_.tables = each ? x.shape[0] : 1;
    }
    require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "rotary: wrong output");
    std::copy(a.frequencies.begin(), a.frequencies.end(), turn_.frequencies);
    turn_.time = x.shape[1];
    turn_.offset = a.offset;
    turn_.inverse = a.inverse;
    positions_ = a.positions;
    heads_ = {x.shape[1], x.shape[2], x.shape[3], turn_.pairs, {}, a.interleaved, turn_.tables > 1};
    std::copy(x.strides, x.strides + 4, heads_.strides);
    workspace = static_cast<std::size_t>(2 * turn_.tables * turn_.time * turn_.pairs) * sizeOf(statistics(x.dtype));
  }

  void run(const Call& call) const override {
    const View& x = call.in[0];
    if (!x.size()) return;
    byFloat(x.dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      S* const cosines = reinterpret_cast<S*>(call.workspace);
      const std::int64_t table = turn_.tables * turn_.time * turn_.pairs, size = x.size() / heads_.depth * (heads_.depth - turn_.pairs);
      STEEPEST_LAUNCH(fillTables<S>, gridFor(table), kThreads, 0, call, turn_, positions_ ? call.in[1].as<std::int32_t>() : nullptr,
                      cosines);
      STEEPEST_LAUNCH(turnPairs<T>, gridFor(size), kThreads, 0, call, x.as<T>(), call.out[0].as<T>(), cosines, cosines + table, heads_,
                      size);
    });
  }

 private:
  Turn turn_{};
  Heads heads_{};
  bool positions_ = false;
};

// A thread makes a byte out of eight elements of a row.
template <class T>
__global__ void __launch_bounds__(kThreads) packed(const T* x, std::uint8_t* y, std::int64_t rows, std::int64_t width, std::int64_t bytes) {
  for (std::int64_t i = threadOf(); i < rows * bytes; i += threads()) {
    const std::int64_t begin = i % bytes * 8, n = width - begin < 8 ? width - begin : 8;
    unsigned mask = 0;
    for (int k = 0; k < n; ++k) mask |= read(x + i / bytes * width + begin + k) > 0 ? 1u << k : 0u;
    y[i] = static_cast<std::uint8_t>(mask);
  }
}
template <class T>
__global__ void __launch_bounds__(kThreads)
    masked(const T* g, const std::uint8_t* signs, T* y, std::int64_t rows, std::int64_t width, std::int64_t bytes) {
  for (std::int64_t i = threadOf(); i < rows * width; i += threads()) {
    const std::int64_t column = i % width;
    y[i] = signs[i / width * bytes + column / 8] >> (column % 8) & 1 ? g[i] : T{};
  }
}

void checkSigns(const View& x, const View& signs, const char* op) {
  layout::check(isFloat(x.dtype) && x.rank >= 1 && x.contiguous(), op, "contiguous floats");
  layout::check(signs.dtype == DType::uint8 && signs.contiguous() && signs.rank == x.rank && signs.dim(-1) == (x.dim(-1) + 7) / 8, op,
                "signs");
  for (int i = 0; i < x.rank - 1; ++i) layout::check(signs.shape[i] == x.shape[i], op, "signs");
}

void runPack(const Call& call, const PackSignsAttrs&) {
  const View& x = call.in[0];
  const std::int64_t rows = layout::span(x, 0, x.rank - 1), width = x.dim(-1), bytes = (width + 7) / 8;
  byFloat(x.dtype, [&](auto type) {
    using T = decltype(type);
    STEEPEST_LAUNCH(packed<T>, gridFor(rows * bytes), kThreads, 0, call, x.as<T>(), call.out[0].as<std::uint8_t>(), rows, width, bytes);
  });
}

void runMask(const Call& call, const MaskBySignsAttrs&) {
  const View& g = call.in[0];
  const std::int64_t rows = layout::span(g, 0, g.rank - 1), width = g.dim(-1);
  byFloat(g.dtype, [&](auto type) {
    using T = decltype(type);
    STEEPEST_LAUNCH(masked<T>, gridFor(rows * width), kThreads, 0, call, g.as<T>(), call.in[1].as<std::uint8_t>(), call.out[0].as<T>(),
                    rows, width, (width + 7) / 8);
  });
}

}  // namespace

std::unique_ptr<Kernel> makeRotary(const Spec& spec) { return std::make_unique<Rotary>(spec); }

std::unique_ptr<Kernel> makePackSigns(const Spec& spec) {
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "packSigns", "one input and one output");
  checkSigns(spec.in[0], spec.out[0], "packSigns");
  return std::make_unique<SimpleKernel<PackSignsAttrs, runPack>>(spec);
}

std::unique_ptr<Kernel> makeMaskBySigns(const Spec& spec) {
  layout::check(spec.in.size() == 2 && spec.out.size() == 1, "maskBySigns", "two inputs and one output");
  const View &g = spec.in[0], &y = spec.out[0];
  checkSigns(g, spec.in[1], "maskBySigns");
  layout::check(layout::sameShape(g, y) && y.dtype == g.dtype && y.contiguous(), "maskBySigns", "the output is like the input");
  return std::make_unique<SimpleKernel<MaskBySignsAttrs, runMask>>(spec);
}

}  // namespace steepest::cuda
