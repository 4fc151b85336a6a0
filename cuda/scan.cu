// Kernels of `cumsum` and `linearRecurrence` (what is carried along an axis is float64, int64 for int32), and of `hadamard`.
#include "attrs/cumsum.gen.h"
#include "attrs/hadamard.gen.h"
#include "attrs/linearRecurrence.gen.h"
#include "cpu/layout.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

namespace {

template <class T>
using Carry = std::conditional_t<std::is_integral_v<T>, std::uint64_t, double>;

template <class T>
__device__ inline Carry<T> carried(T x) {
  if constexpr (std::is_same_v<T, bf16>)
    return toFloat(x);
  else
    return static_cast<Carry<T>>(x);
}
template <class T>
__device__ inline void put(T* to, Carry<T> x) {
  if constexpr (std::is_same_v<T, bf16>)
    *to = toBf16(static_cast<float>(x));
  else if constexpr (std::is_integral_v<T>)
    *to = static_cast<T>(static_cast<std::uint32_t>(x));
  else
    *to = static_cast<T>(x);
}

// The axis among what is outside and inside of it, for contiguous data.
struct Line {
  std::int64_t outer, n, inner;
  Line(const View& v, std::int64_t axis)
      : outer(layout::span(v, 0, static_cast<int>(axis))), n(v.shape[axis]), inner(layout::span(v, static_cast<int>(axis) + 1, v.rank)) {}
  std::int64_t lines() const { return outer * inner; }
};

// h = a h + b from one element to the next; a is 1 in a plain sum. What comes before the first element is nothing, whatever its factor.
template <class C>
struct Step {
  C a, b;
  __device__ Step after(Step before) const { return {a * before.a, a * before.b + b}; }
};

// A warp takes a line, 32 elements at a time: each lane joins what its left neighbours have.
template <class T, bool Factors>
__global__ void __launch_bounds__(kThreads) scanLines(const T* factors, const T* in, T* out, Line line, bool reverse, bool exclusive) {
  using C = Carry<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t l = threadOf() / kWarp; l < line.outer * line.inner; l += threads() / kWarp) {
    const std::int64_t base = l / line.inner * line.n * line.inner + l % line.inner;
    C carry = 0;
    for (std::int64_t first = 0; first < line.n; first += kWarp) {
      const std::int64_t i = first + lane, at = base + (reverse ? line.n - 1 - i : i) * line.inner;
      const bool there = i < line.n;
      Step<C> s{C(1), C(0)};
      if (there) {
        s.b = carried(in[at]);
        if constexpr (Factors) {
          if (i == 0)
            s.a = 0;
          else
            s.a = carried(factors[at]);
        }
      }
      for (int apart = 1; apart < kWarp; apart *= 2) {
        const C a = __shfl_up_sync(kAllLanes, s.a, apart), b = __shfl_up_sync(kAllLanes, s.b, apart);
        if (lane >= apart) s = s.after({a, b});
      }
      const C total = s.a * carry + s.b;
      // Not taken back from the sum, which would round.
      const C before = __shfl_up_sync(kAllLanes, total, 1);
      if (there) put(out + at, exclusive ? (lane == 0 ? carry : before) : total);
      carry = __shfl_sync(kAllLanes, total, kWarp - 1);
    }
  }
}

// A thread takes a line; its neighbours are beside it.
template <class T, bool Factors>
__global__ void __launch_bounds__(kThreads) scanBeside(const T* factors, const T* in, T* out, Line line, bool reverse, bool exclusive) {
  using C = Carry<T>;
  for (std::int64_t l = threadOf(); l < line.outer * line.inner; l += threads()) {
    const std::int64_t base = l / line.inner * line.n * line.inner + l % line.inner;
    C carry = 0;
    for (std::int64_t i = 0; i < line.n; ++i) {
      const std::int64_t at = base + (reverse ? line.n - 1 - i : i) * line.inner;
      const C own = carried(in[at]);
      C next = carry + own;
      if constexpr (Factors) next = i == 0 ? own : carried(factors[at]) * carry + own;
      put(out + at, exclusive ? carry : next);
      carry = next;
    }
  }
}

template <class T, bool Factors>
void scan(const Call& call, const Line& line, bool reverse, bool exclusive) {
  const T* factors = Factors ? call.in[0].as<T>() : nullptr;
  const T* in = call.in[Factors ? 1 : 0].as<T>();
  T* out = call.out[0].as<T>();
  if (line.n == 0) return;
  if (line.inner >= kWarp)
    STEEPEST_LAUNCH((scanBeside<T, Factors>), gridFor(line.lines()), kThreads, 0, call, factors, in, out, line, reverse, exclusive);
  else
    STEEPEST_LAUNCH((scanLines<T, Factors>), gridFor(line.lines(), kThreads / kWarp), kThreads, 0, call, factors, in, out, line, reverse,
                    exclusive);
}

class Cumsum final : public Kernel {
 public:
  Cumsum(const Line& line, const CumsumAttrs& a) : line_(line), reverse_(a.reverse), exclusive_(a.exclusive) {}
  void run(const Call& call) const override {
    if (call.in[0].dtype == DType::int32) return scan<std::int32_t, false>(call, line_, reverse_, exclusive_);
    byFloat(call.in[0].dtype, [&](auto type) { scan<decltype(type), false>(call, line_, reverse_, exclusive_); });
  }

 private:
  Line line_;
  bool reverse_, exclusive_;
};

class Recurrence final : public Kernel {
 public:
  Recurrence(const Line& line, bool reverse) : line_(line), reverse_(reverse) {}
  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto type) { scan<decltype(type), true>(call, line_, reverse_, false); });
  }

 private:
  Line line_;
  bool reverse_;
};

// Rows that fit shared memory are transformed there; of longer ones a pass over memory does one stage.
template <class T>
__global__ void __launch_bounds__(kThreads) hadamardRows(const T* in, T* out, std::int64_t rows, int n, ComputeOf<T> scale) {
  STEEPEST_SHARED(ComputeOf<T>, x);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) x[i] = read(in + row * n + i);
    for (int h = 1; h < n; h *= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < n / 2; i += kThreads) {
        const int at = i / h * 2 * h + i % h;
        const auto a = x[at], b = x[at + h];
        x[at] = a + b;
        x[at + h] = a - b;
      }
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) write(out + row * n + i, x[i] * scale);
    __syncthreads();
  }
}
template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    hadamardStage(const From* in, To* out, std::int64_t pairs, std::int64_t h, ComputeOf<From> scale) {
  for (std::int64_t i = threadOf(); i < pairs; i += threads()) {
    const std::int64_t at = i / h * 2 * h + i % h;
    const auto a = read(in + at), b = read(in + at + h);
    write(out + at, (a + b) * scale);
    write(out + at + h, (a - b) * scale);
  }
}

constexpr std::int64_t kMostShared = 4096;

class Hadamard final : public Kernel {
 public:
  Hadamard(const View& x, bool normalized) : n_(x.dim(-1)), scale_(normalized ? 1 / std::sqrt(static_cast<double>(n_)) : 1) {
    if (n_ > kMostShared && x.dtype == DType::bfloat16) workspace = static_cast<std::size_t>(x.size()) * sizeof(float);
  }
  void run(const Call& call) const override {
    const std::int64_t size = call.in[0].size();
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const T* in = call.in[0].as<T>();
      T* out = call.out[0].as<T>();
      if (n_ <= kMostShared) {
        STEEPEST_LAUNCH(hadamardRows<T>, gridFor(size / n_, 1), kThreads, static_cast<std::size_t>(n_) * sizeof(S), call, in, out,
                        size / n_, static_cast<int>(n_), static_cast<S>(scale_));
        return;
      }
      // All but the first and the last stage are in place, in the type that computes.
      S* const between = std::is_same_v<T, S> ? reinterpret_cast<S*>(out) : reinterpret_cast<S*>(call.workspace);
      STEEPEST_LAUNCH((hadamardStage<T, S>), gridFor(size / 2), kThreads, 0, call, in, between, size / 2, std::int64_t{1}, S(1));
      for (std::int64_t h = 2; h < n_ / 2; h *= 2)
        STEEPEST_LAUNCH((hadamardStage<S, S>), gridFor(size / 2), kThreads, 0, call, between, between, size / 2, h, S(1));
      STEEPEST_LAUNCH((hadamardStage<S, T>), gridFor(size / 2), kThreads, 0, call, between, out, size / 2, n_ / 2, static_cast<S>(scale_));
    });
  }

 private:
  std::int64_t n_;
  double scale_;
};

}  // namespace

std::unique_ptr<Kernel> makeCumsum(const Spec& spec) {
  const CumsumAttrs a = CumsumAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "cumsum", "one input and one output");
  const View& x = spec.in[0];
  layout::check(layout::sameShape(x, spec.out[0]) && x.dtype == spec.out[0].dtype, "cumsum", "the output is like the input");
  layout::check(x.contiguous() && spec.out[0].contiguous(), "cumsum", "operands are contiguous");
  layout::check(a.axis >= 0 && a.axis < x.rank, "cumsum", "axis of the input");
  layout::check(isFloat(x.dtype) || x.dtype == DType::int32, "cumsum", "floats or int32");
  return std::make_unique<Cumsum>(Line(x, a.axis), a);
}

std::unique_ptr<Kernel> makeLinearRecurrence(const Spec& spec) {
  const LinearRecurrenceAttrs a = LinearRecurrenceAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 2 && spec.out.size() == 1, "linearRecurrence", "two inputs and one output");
  for (const View* v : {&spec.in[1], &spec.out[0]}) {
    layout::check(layout::sameShape(spec.in[0], *v) && spec.in[0].dtype == v->dtype, "linearRecurrence", "operands are alike");
  }
  layout::check(spec.in[0].contiguous() && spec.in[1].contiguous() && spec.out[0].contiguous(), "linearRecurrence",
                "operands are contiguous");
  layout::check(a.axis >= 0 && a.axis < spec.in[0].rank && isFloat(spec.in[0].dtype), "linearRecurrence", "axis of the input, floats");
  return std::make_unique<Recurrence>(Line(spec.in[0], a.axis), a.reverse);
}

std::unique_ptr<Kernel> makeHadamard(const Spec& spec) {
  const HadamardAttrs attrs = HadamardAttrs::decode(spec.attrs);
  bool fine = spec.in.size() == 1 && spec.out.size() == 1;
  if (fine) {
    const View &x = spec.in[0], &y = spec.out[0];
    fine = x.rank >= 1 && x.dim(-1) > 0 && (x.dim(-1) & (x.dim(-1) - 1)) == 0 && isFloat(x.dtype) && x.dtype == y.dtype &&
           sameShape(x, y) && x.contiguous() && y.contiguous();
  }
  if (!fine) throw Error("PROGRAM", "hadamard takes and gives contiguous float rows, a power of two long");
  return std::make_unique<Hadamard>(spec.in[0], attrs.normalized);
}

}  // namespace steepest::cuda
