// A chain of elementwise steps as a kernel argument, and the kernel that interprets it.
//
// A thread takes kLanes neighbours through all steps. A register is a place in shared memory that belongs to the thread alone, in halves of
// 16 bytes, so that neighbouring threads meet no bank conflict. All threads of a launch go through the same steps: nothing diverges.
#pragma once

#include "cpu/elementwise_tables.h"
#include "cuda/device.cuh"

namespace steepest::cuda::ew {

using namespace ::steepest::STEEPEST_LEVEL::ew;

constexpr int kLanes = 8;
constexpr int kMostInputs = 32, kMostOutputs = 32, kMostSteps = 96, kMostConstants = 64;

// Nested loops of an input, outermost first; rank 0 is one number for all.
struct Operand {
  const std::byte* data;
  std::int64_t n[kMaxRank], step[kMaxRank];
  std::int8_t rank;
  DType dtype;
  bool wide;  // contiguous, and aligned to 16 bytes
};

// An instruction: a step, or (op kEws) the loading of input `a` into slot `to`.
struct Code {
  std::int16_t op;
  std::int16_t a, b, c;  // slots; constants are -1 - index
  std::int16_t to;
  DType from, dtype;
  bool narrows;
};

struct Result {
  std::byte* data;
  std::int16_t slot;
  DType dtype;
  bool wide;
};

struct Bytecode {
  std::int64_t size;
  int steps, results;
  Code code[kMostSteps + kMostInputs];
  Operand inputs[kMostInputs];
  Result outputs[kMostOutputs];
  double constants[kMostConstants];
};

// Registers of a thread. `Width` is 4, or 8 where some step is in float64.
template <int Width>
struct Registers {
  std::byte* base;
  const double* constants;

  // Lanes come in groups of 16 bytes; those of all threads lie side by side.
  template <class S>
  __device__ S* at(int slot, int lane) const {
    constexpr int perGroup = 16 / Width, groups = kLanes / perGroup;
    const int group = slot * groups + lane / perGroup;
    return reinterpret_cast<S*>(base + (static_cast<std::size_t>(group) * blockDim.x + threadIdx.x) * 16 + lane % perGroup * Width);
  }
  template <class S>
  __device__ S get(int slot, int lane) const {
    return slot < 0 ? static_cast<S>(constants[-1 - slot]) : *at<S>(slot, lane);
  }
  template <class S>
  __device__ void put(int slot, int lane, S x) const {
    *at<S>(slot, lane) = x;
  }
};

__device__ inline vf roundToBf16(vf x) { return widenBf16(narrowBf16(x.v)); }
__device__ inline vf wrapToByte(vf x) { return static_cast<float>(toInt(select(isFinite(x), x, vf(0))).v & 0xff); }

template <class F>
constexpr bool kHeavy = takesVector<F, vf>() && !takesVector<F, vi>();

template <class F, class V, int W>
__device__ void step(const Code& c, const Registers<W>& r) {
  using S = typename V::Scalar;
  const auto one = [&](int lane) {
    const auto give = [&](auto y) {
      if constexpr (std::is_same_v<decltype(y), V>) {
        if constexpr (std::is_same_v<V, vf>) {
          if (c.narrows) y = c.dtype == DType::bfloat16 ? roundToBf16(y) : wrapToByte(y);
        }
        r.put(c.to, lane, y.v);
      } else {
        r.put(c.to, lane, y.v ? 1.0f : 0.0f);
      }
    };
    if constexpr (F::kArity == 1)
      give(F::apply(V(r.template get<S>(c.a, lane))));
    else if constexpr (F::kArity == 2)
      give(F::apply(V(r.template get<S>(c.a, lane)), V(r.template get<S>(c.b, lane))));
    else
      give(F::apply(OneMask(r.template get<float>(c.a, lane) != 0), V(r.template get<S>(c.b, lane)), V(r.template get<S>(c.c, lane))));
  };
  // Long formulas are there once, and so is all that float64 (rare on a GPU) comes with.
  if constexpr (kHeavy<F> || W == 8) {
#pragma unroll 1
    for (int lane = 0; lane < kLanes; ++lane) one(lane);
  } else {
#pragma unroll 4
    for (int lane = 0; lane < kLanes; ++lane) one(lane);
  }
}

// As the CPU casts: toward zero, out of range INT_MIN; to bytes the low bits of that.
template <int W>
__device__ void cast(const Code& c, const Registers<W>& r) {
  const Kind from = kindOf(c.from), to = kindOf(c.dtype);
#pragma unroll 1
  for (int lane = 0; lane < kLanes; ++lane) {
    double wide = 0;
    float single = 0;
    std::int32_t whole = 0;
    if (from == Kind::single)
      single = r.template get<float>(c.a, lane);
    else if (from == Kind::whole)
      whole = r.template get<std::int32_t>(c.a, lane);
    else
      wide = r.template get<double>(c.a, lane);
    if (to == Kind::twice) {
      r.put(c.to, lane, from == Kind::single ? static_cast<double>(single) : from == Kind::whole ? static_cast<double>(whole) : wide);
    } else if (to == Kind::whole || c.dtype == DType::uint8) {
      if (from == Kind::single) whole = truncToInt(vf(single)).v;
      if (from == Kind::twice) {
        const bool fits = wide > -2147483649.0 && wide < 2147483648.0;
        whole = fits ? static_cast<std::int32_t>(wide) : std::numeric_limits<std::int32_t>::min();
      }
      if (c.dtype == DType::uint8)
        r.put(c.to, lane, static_cast<float>(whole & 0xff));
      else
        r.put(c.to, lane, whole);
    } else {
      if (from == Kind::whole) single = static_cast<float>(whole);
      if (from == Kind::twice) single = static_cast<float>(wide);
      r.put(c.to, lane, c.dtype == DType::bfloat16 && c.from != DType::bfloat16 ? roundToBf16(vf(single)).v : single);
    }
  }
}

// f(a value of the dtype's storage type).
template <class F>
__device__ void byStorage(DType t, F&& f) {
  switch (t) {
    case DType::float32:
      return f(float{});
    case DType::bfloat16:
      return f(bf16{});
    case DType::float64:
      return f(double{});
    case DType::int32:
      return f(std::int32_t{});
    default:
      return f(std::uint8_t{});
  }
}
template <class T>
using RegisterOf =
    std::conditional_t<std::is_same_v<T, double>, double, std::conditional_t<std::is_same_v<T, std::int32_t>, std::int32_t, float>>;
template <class T>
__device__ inline RegisterOf<T> widened(T x) {
  if constexpr (std::is_same_v<T, bf16>)
    return toFloat(x);
  else
    return static_cast<RegisterOf<T>>(x);
}

// kLanes elements of storage T as words that one thread moves at once.
template <class T>
struct alignas(kLanes * sizeof(T) < 16 ? kLanes * sizeof(T) : 16) Lanes {
  T v[kLanes];
};
template <class T>
__device__ inline void copyLanes(const Lanes<T>* from, Lanes<T>* to) {
  if constexpr (sizeof(Lanes<T>) < 16) {
    *reinterpret_cast<uint2*>(to) = *reinterpret_cast<const uint2*>(from);
  } else {
#pragma unroll
    for (std::size_t i = 0; i < sizeof(Lanes<T>) / 16; ++i) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
  }
}

template <int W>
__device__ void load(const Operand& in, std::int64_t start, int count, int slot, const Registers<W>& r) {
  byStorage(in.dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (W == 8 || !std::is_same_v<T, double>) {
      const T* from = reinterpret_cast<const T*>(in.data);
      if (in.rank == 0) {
        const auto x = widened(from[0]);
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) r.put(slot, lane, x);
      } else if (in.wide && count == kLanes) {
        Lanes<T> x;
        copyLanes(reinterpret_cast<const Lanes<T>*>(from + start), &x);
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) r.put(slot, lane, widened(x.v[lane]));
      } else {
        std::int64_t at[kMaxRank], offset = 0, rest = start;
        for (int d = in.rank - 1; d >= 0; --d) {
          at[d] = d == 0 ? rest : rest % in.n[d];
          rest /= in.n[d];
          offset += at[d] * in.step[d];
        }
        for (int lane = 0; lane < kLanes; ++lane) {
          r.put(slot, lane, lane < count ? widened(from[offset]) : RegisterOf<T>(0));
          for (int d = in.rank - 1; d >= 0; --d) {
            offset += in.step[d];
            if (++at[d] < in.n[d] || d == 0) break;
            offset -= in.n[d] * in.step[d];
            at[d] = 0;
          }
          if (lane + 1 >= count) offset = 0;
        }
      }
    }
  });
}

template <int W>
__device__ void save(const Result& out, std::int64_t start, int count, const Registers<W>& r) {
  byStorage(out.dtype, [&](auto type) {
    using T = decltype(type);
    if constexpr (W == 8 || !std::is_same_v<T, double>) {
      T* to = reinterpret_cast<T*>(out.data) + start;
      const auto value = [&](int lane) -> T {
        const auto x = r.template get<RegisterOf<T>>(out.slot, lane);
        if constexpr (std::is_same_v<T, bf16>)
          return toBf16(x);
        else if constexpr (std::is_same_v<T, std::uint8_t>)
          return static_cast<std::uint8_t>(toInt(vf(x)).v);
        else
          return x;
      };
      if (out.wide && count == kLanes) {
        Lanes<T> x;
#pragma unroll
        for (int lane = 0; lane < kLanes; ++lane) x.v[lane] = value(lane);
        copyLanes(&x, reinterpret_cast<Lanes<T>*>(to));
      } else {
        for (int lane = 0; lane < count; ++lane) to[lane] = value(lane);
      }
    }
  });
}

template <int W>
__device__ void perform(const Code& c, const Registers<W>& r) {
  const Kind kind = kindOf(c.from);
  switch (static_cast<Ew>(c.op)) {
#define ROW(name)                                                \
  case Ew::name##_:                                              \
    if constexpr (Ew::name##_ != Ew::cast_) {                    \
      if constexpr (takesVector<name##_, vd>() && W == 8) {      \
        if (kind == Kind::twice) return step<name##_, vd>(c, r); \
      }                                                          \
      if constexpr (takesVector<name##_, vi>()) {                \
        if (kind == Kind::whole) return step<name##_, vi>(c, r); \
      }                                                          \
      return step<name##_, vf>(c, r);                            \
    } else {                                                     \
      return cast(c, r);                                         \
    }
    STEEPEST_ELEMENTWISE(ROW)
#undef ROW
  }
}

template <int W>
__global__ void __launch_bounds__(128) run(const __grid_constant__ Bytecode chain, const int* fault) {
  // An update that is written in tensors writes over the state.
  if (faulted(fault)) return;
  STEEPEST_SHARED(std::byte, shared);
  const Registers<W> r{shared, chain.constants};
  for (std::int64_t group = threadOf(); group * kLanes < chain.size; group += threads()) {
    const std::int64_t start = group * kLanes, left = chain.size - start;
    const int count = left < kLanes ? static_cast<int>(left) : kLanes;
    for (int i = 0; i < chain.steps; ++i) {
      const Code& c = chain.code[i];
      if (c.op == kEws)
        load(chain.inputs[c.a], start, count, c.to, r);
      else
        perform(c, r);
    }
    for (int i = 0; i < chain.results; ++i) save(chain.outputs[i], start, count, r);
  }
}

}  // namespace steepest::cuda::ew
