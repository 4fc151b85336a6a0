// Kernels of `cumsum` and `linearRecurrence`: what is carried along an axis is float64 (int64 for int32).
#include "cpu/layout.h"
#include "cpu/reduce_pack.h"
#include "attrs/cumsum.gen.h"
#include "attrs/linearRecurrence.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using layout::ceilDiv;
using reduction::plain;

constexpr std::int64_t kPiece = 16384;  // elements of a long line that are one task
constexpr int kWidth = 64;              // neighbouring lines that are walked together
constexpr int kLines = 8;               // far lines that are walked together, so that their latencies overlap
constexpr std::int64_t kEnough = 64;    // lines that keep any number of threads busy

template <class T>
using Carry = std::conditional_t<std::is_integral_v<T>, std::uint64_t, double>;

template <class T, class C>
inline void assign(T& to, C x) {
  if constexpr (std::is_same_v<T, bf16>) {
    const float f = static_cast<float>(x);
    std::uint32_t bits;
    std::memcpy(&bits, &f, sizeof bits);
    const bool nan = f != f;
    bits = nan ? bits | 0x400000u : bits + 0x7fffu + ((bits >> 16) & 1u);
    to.bits = static_cast<std::uint16_t>(bits >> 16);
  } else if constexpr (std::is_integral_v<T>) {
    to = static_cast<T>(static_cast<std::uint32_t>(x));
  } else {
    to = static_cast<T>(x);
  }
}

// The axis among what is outside and inside of it, for contiguous data.
struct Line {
  std::int64_t outer, n, inner;
  Line(const View& v, std::int64_t axis)
      : outer(layout::span(v, 0, static_cast<int>(axis))), n(v.shape[axis]), inner(layout::span(v, static_cast<int>(axis) + 1, v.rank)) {}
  std::int64_t pieces() const { return inner == 1 && outer < kEnough && n > 4 * kPiece ? ceilDiv(n, kPiece) : 1; }
};

template <class T>
class Cumsum final : public Kernel {
  using C = Carry<T>;

 public:
  Cumsum(const Line& line, bool reverse, bool exclusive) : line_(line), reverse_(reverse), exclusive_(exclusive), pieces_(line.pieces()) {
    if (pieces_ > 1) workspace = static_cast<std::size_t>(line.outer * pieces_) * sizeof(C);
  }

  void run(const Call& call) const override {
    const T* x = call.in[0].as<T>();
    T* y = call.out[0].as<T>();
    if (line_.inner == 0) return;
    if (line_.inner > 1)
      beside(call, x, y);
    else if (pieces_ == 1)
      lines(call, x, y);
    else
      inPieces(call, x, y);
  }

 private:
  C walk(const T* x, T* y, std::int64_t n, C carry) const {
    const std::int64_t step = reverse_ ? -1 : 1;
    std::int64_t at = reverse_ ? n - 1 : 0;
    for (std::int64_t i = 0; i < n; ++i, at += step) {
      const C next = carry + static_cast<C>(plain(x[at]));
      assign(y[at], exclusive_ ? carry : next);
      carry = next;
    }
    return carry;
  }

  void lines(const Call& call, const T* x, T* y) const {
    const std::int64_t group = std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, line_.n));
    call.pool.run(ceilDiv(line_.outer, group), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(line_.outer, (tile + 1) * group);
      for (std::int64_t o = tile * group; o < end; ++o) walk(x + o * line_.n, y + o * line_.n, line_.n, C(0));
    });
  }

  // A long line: the sum of each piece, then what comes before each piece, then the pieces.
  void inPieces(const Call& call, const T* x, T* y) const {
    C* before = reinterpret_cast<C*>(call.workspace);
    const auto pieceOf = [&](std::int64_t tile, auto body) {
      const std::int64_t from = tile % pieces_ * kPiece;
      body(tile / pieces_ * line_.n + from, std::min(kPiece, line_.n - from));
    };
    call.pool.run(line_.outer * pieces_, [&](std::int64_t tile, int) {
      pieceOf(tile, [&](std::int64_t at, std::int64_t n) {
        C part[kLines] = {};
        for (std::int64_t i = 0; i < n; ++i) part[i % kLines] += static_cast<C>(plain(x[at + i]));
        before[tile] = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
      });
    });
    for (std::int64_t o = 0; o < line_.outer; ++o) {
      C carry = 0;
      for (std::int64_t i = 0; i < pieces_; ++i) {
        C& piece = before[o * pieces_ + (reverse_ ? pieces_ - 1 - i : i)];
        const C own = piece;
        piece = carry;
        carry += own;
      }
    }
    call.pool.run(line_.outer * pieces_, [&](std::int64_t tile, int) {
      pieceOf(tile, [&](std::int64_t at, std::int64_t n) { walk(x + at, y + at, n, before[tile]); });
    });
  }

  void beside(const Call& call, const T* x, T* y) const {
    const std::int64_t tiles = ceilDiv(line_.inner, kWidth);
    call.pool.run(line_.outer * tiles, [&](std::int64_t tile, int) {
      const std::int64_t from = tile % tiles * kWidth;
      const int width = static_cast<int>(std::min<std::int64_t>(kWidth, line_.inner - from));
      const std::int64_t base = tile / tiles * line_.n * line_.inner + from;
      C carry[kWidth] = {};
      for (std::int64_t i = 0; i < line_.n; ++i) {
        const std::int64_t at = base + (reverse_ ? line_.n - 1 - i : i) * line_.inner;
        if (exclusive_) {
          for (int c = 0; c < width; ++c) {
            const C own = static_cast<C>(plain(x[at + c]));
            assign(y[at + c], carry[c]);
            carry[c] += own;
          }
        } else {
          for (int c = 0; c < width; ++c) {
            carry[c] += static_cast<C>(plain(x[at + c]));
            assign(y[at + c], carry[c]);
          }
        }
      }
    });
  }

  Line line_;
  bool reverse_, exclusive_;
  std::int64_t pieces_;
};

template <class T>
class Recurrence final : public Kernel {
 public:
  Recurrence(const Line& line, bool reverse) : line_(line), reverse_(reverse) {}

  void run(const Call& call) const override {
    const T* a = call.in[0].as<T>();
    const T* b = call.in[1].as<T>();
    T* h = call.out[0].as<T>();
    if (line_.inner == 0) return;
    if (line_.inner > 1) {
      const std::int64_t tiles = ceilDiv(line_.inner, kWidth);
      call.pool.run(line_.outer * tiles, [&](std::int64_t tile, int) {
        const std::int64_t from = tile % tiles * kWidth;
        walk<kWidth>(a, b, h, tile / tiles * line_.n * line_.inner + from, 1,
                     static_cast<int>(std::min<std::int64_t>(kWidth, line_.inner - from)));
      });
      return;
    }
    const std::int64_t groups = ceilDiv(line_.outer, kLines);
    const std::int64_t share = std::max<std::int64_t>(1, kPiece / std::max<std::int64_t>(1, line_.n * kLines));
    call.pool.run(ceilDiv(groups, share), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(groups, (tile + 1) * share);
      for (std::int64_t g = tile * share; g < end; ++g) {
        const int count = static_cast<int>(std::min<std::int64_t>(kLines, line_.outer - g * kLines));
        walk<kLines>(a, b, h, g * kLines * line_.n, line_.n, count);
      }
    });
  }

 private:
  template <int Most>
  void walk(const T* a, const T* b, T* h, std::int64_t base, std::int64_t apart, int count) const {
    double carry[Most] = {};
    for (std::int64_t i = 0; i < line_.n; ++i) {
      const std::int64_t at = base + (reverse_ ? line_.n - 1 - i : i) * line_.inner;
      for (int c = 0; c < count; ++c) {
        const std::int64_t k = at + c * apart;
        // What comes before the first element is nothing, whatever its factor.
        const double kept = i == 0 ? 0 : static_cast<double>(plain(a[k])) * carry[c];
        carry[c] = kept + static_cast<double>(plain(b[k]));
        assign(h[k], carry[c]);
      }
    }
  }

  Line line_;
  bool reverse_;
};

}  // namespace

std::unique_ptr<Kernel> makeCumsum(const Spec& spec) {
  const CumsumAttrs a = CumsumAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "cumsum", "one input and one output");
  const View& x = spec.in[0];
  layout::check(layout::sameShape(x, spec.out[0]) && x.dtype == spec.out[0].dtype, "cumsum", "the output is like the input");
  layout::check(x.contiguous() && spec.out[0].contiguous(), "cumsum", "operands are contiguous");
  layout::check(a.axis >= 0 && a.axis < x.rank, "cumsum", "axis of the input");
  const Line line(x, a.axis);
  switch (x.dtype) {
    case DType::float32:
      return std::make_unique<Cumsum<float>>(line, a.reverse, a.exclusive);
    case DType::bfloat16:
      return std::make_unique<Cumsum<bf16>>(line, a.reverse, a.exclusive);
    case DType::float64:
      return std::make_unique<Cumsum<double>>(line, a.reverse, a.exclusive);
    case DType::int32:
      return std::make_unique<Cumsum<std::int32_t>>(line, a.reverse, a.exclusive);
    default:
      throw Error("PROGRAM", "cumsum: floats or int32");
  }
}

std::unique_ptr<Kernel> makeLinearRecurrence(const Spec& spec) {
  const LinearRecurrenceAttrs a = LinearRecurrenceAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 2 && spec.out.size() == 1, "linearRecurrence", "two inputs and one output");
  for (const View* v : {&spec.in[1], &spec.out[0]}) {
    layout::check(layout::sameShape(spec.in[0], *v) && spec.in[0].dtype == v->dtype, "linearRecurrence", "operands are alike");
  }
  layout::check(spec.in[0].contiguous() && spec.in[1].contiguous() && spec.out[0].contiguous(), "linearRecurrence",
                "operands are contiguous");
  layout::check(a.axis >= 0 && a.axis < spec.in[0].rank, "linearRecurrence", "axis of the input");
  const Line line(spec.in[0], a.axis);
  switch (spec.in[0].dtype) {
    case DType::float32:
      return std::make_unique<Recurrence<float>>(line, a.reverse);
    case DType::bfloat16:
      return std::make_unique<Recurrence<bf16>>(line, a.reverse);
    case DType::float64:
      return std::make_unique<Recurrence<double>>(line, a.reverse);
    default:
      throw Error("PROGRAM", "linearRecurrence: floats");
  }
}

}  // namespace steepest::STEEPEST_LEVEL
