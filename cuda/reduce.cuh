// Reductions of strided operands. An Op says how elements become a partial result:
//
//   Part                      what is kept of an output
//   none()                    of nothing
//   add(Part&, x, i)          takes in element i
//   join(Part&, Part)         two partial results
//   finish(Part)              the number that is stored
//
// Teams, pieces and their order follow from the shape alone.
#pragma once

#include "cpu/reduce_geometry.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

template <class T>
using ElementOf = std::conditional_t<std::is_integral_v<T>, std::int64_t, std::conditional_t<std::is_same_v<T, double>, double, float>>;
template <class T>
__device__ inline ElementOf<T> element(T x) {
  if constexpr (std::is_same_v<T, bf16>)
    return toFloat(x);
  else
    return static_cast<ElementOf<T>>(x);
}

struct Target {
  std::byte* data;
  DType dtype;
  template <class X>
  __device__ void put(std::int64_t at, X x) const {
    switch (dtype) {
      case DType::float32:
        reinterpret_cast<float*>(data)[at] = static_cast<float>(x);
        return;
      case DType::bfloat16:
        reinterpret_cast<bf16*>(data)[at] = toBf16(static_cast<float>(x));
        return;
      case DType::float64:
        reinterpret_cast<double*>(data)[at] = static_cast<double>(x);
        return;
      case DType::int32:
        reinterpret_cast<std::int32_t*>(data)[at] = static_cast<std::int32_t>(static_cast<std::int64_t>(x));
        return;
      default:
        data[at] = static_cast<std::byte>(static_cast<std::int64_t>(x));
    }
  }
};

struct Walked {
  layout::Loops<2> kept;
  layout::Loops<1> reduced;
  layout::Loop<2> column;  // of length 1 where rows are reduced
  std::int64_t outputs, length, pieces, pieceLength;
  bool even;  // reduced elements lie side by side

  __device__ std::int64_t at(std::int64_t i) const {
    std::int64_t offset = 0;
    for (int d = reduced.rank - 1; d >= 0; --d) {
      offset += (d ? i % reduced.at[d].n : i) * reduced.at[d].step[0];
      i /= reduced.at[d].n;
    }
    return offset;
  }
  // Of output o: where it begins in the input, and where it goes.
  __device__ void place(std::int64_t o, std::int64_t& from, std::int64_t& to) const {
    from = o % column.n * column.step[0];
    to = o % column.n * column.step[1];
    o /= column.n;
    for (int d = kept.rank - 1; d >= 0; --d) {
      const std::int64_t i = d ? o % kept.at[d].n : o;
      from += i * kept.at[d].step[0];
      to += i * kept.at[d].step[1];
      o /= kept.at[d].n;
    }
  }
};

template <int Size, class Op>
__device__ typename Op::Part joinParts(const Op& op, typename Op::Part part) {
  using Part = typename Op::Part;
  __shared__ Part parts[kThreads];
  const int lane = static_cast<int>(threadIdx.x) % Size;
  Part* const own = parts + threadIdx.x;
  *own = part;
  for (int half = Size / 2; half > 0; half /= 2) {
    if constexpr (Size == kWarp)
      __syncwarp();
    else
      __syncthreads();
    if (lane < half) op.join(*own, own[half]);
  }
  part = *own;
  if constexpr (Size == kWarp)
    __syncwarp();
  else
    __syncthreads();
  return part;
}

// A team takes a piece of an output.
template <class T, class Op, int Size>
__global__ void __launch_bounds__(kThreads)
    reduceRows(const T* in, Target out, typename Op::Part* parts, const __grid_constant__ Walked w, Op op) {
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  const std::int64_t tasks = w.outputs * w.pieces;
  for (std::int64_t task = std::int64_t{blockIdx.x} * kTeams + team; task < tasks; task += std::int64_t{gridDim.x} * kTeams) {
    const std::int64_t o = task % w.outputs, piece = task / w.outputs, begin = piece * w.pieceLength;
    const std::int64_t rest = w.length - begin, n = rest < w.pieceLength ? rest : w.pieceLength;
    std::int64_t from, to;
    w.place(o, from, to);
    typename Op::Part part = op.none();
    if (w.even) {
      const T* x = in + from + begin;
      std::int64_t i = lane;
      if constexpr (sizeof(T) < 16) {
        const bool wide = reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
        if (wide) {
          constexpr int G = kGroup<T>;
          const std::int64_t groups = n / G;
          for (std::int64_t g = lane; g < groups; g += Size) {
            const Group<T> v = readGroup(x + g * G);
#pragma unroll
            for (int j = 0; j < G; ++j) op.add(part, element(v.v[j]), begin + g * G + j);
          }
          i += groups * G;
        }
      }
      for (; i < n; i += Size) op.add(part, element(x[i]), begin + i);
    } else {
      for (std::int64_t i = lane; i < n; i += Size) op.add(part, element(in[from + w.at(begin + i)]), begin + i);
    }
    part = joinParts<Size>(op, part);
    if (lane != 0) continue;
    if (w.pieces > 1)
      parts[piece * w.outputs + to] = part;
    else
      out.put(to, op.finish(part));
  }
}

// A thread takes a piece of an output; neighbours take neighbouring columns.
template <class T, class Op>
__global__ void __launch_bounds__(kThreads)
    reduceColumns(const T* in, Target out, typename Op::Part* parts, const __grid_constant__ Walked w, Op op) {
  for (std::int64_t task = threadOf(); task < w.outputs * w.pieces; task += threads()) {
    const std::int64_t o = task % w.outputs, piece = task / w.outputs, begin = piece * w.pieceLength;
    const std::int64_t end = begin + w.pieceLength < w.length ? begin + w.pieceLength : w.length;
    std::int64_t from, to;
    w.place(o, from, to);
    typename Op::Part part = op.none();
    if (w.reduced.rank <= 1) {
      const std::int64_t step = w.reduced.rank ? w.reduced.at[0].step[0] : 0;
#pragma unroll 4
      for (std::int64_t i = begin; i < end; ++i) op.add(part, element(in[from + i * step]), i);
    } else {
      for (std::int64_t i = begin; i < end; ++i) op.add(part, element(in[from + w.at(i)]), i);
    }
    if (w.pieces > 1)
      parts[piece * w.outputs + to] = part;
    else
      out.put(to, op.finish(part));
  }
}

template <class Op>
__global__ void __launch_bounds__(kThreads)
    joinPieces(const typename Op::Part* parts, Target out, std::int64_t outputs, std::int64_t pieces, Op op) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t o = threadOf() / kWarp; o < outputs; o += threads() / kWarp) {
    typename Op::Part part = op.none();
    for (std::int64_t p = lane; p < pieces; p += kWarp) op.join(part, parts[p * outputs + o]);
    part = joinParts<kWarp>(op, part);
    if (lane == 0) out.put(o, op.finish(part));
  }
}

template <class Op>
__global__ void fillNone(Target out, std::int64_t outputs, Op op) {
  for (std::int64_t o = threadOf(); o < outputs; o += threads()) out.put(o, op.finish(op.none()));
}

template <class T, class Op>
class Reducer final : public Kernel {
  using Part = typename Op::Part;

 public:
  Reducer(const reduction::Geometry& g, Op op) : op_(op), columns_(g.byColumns) {
    w_ = {g.kept, g.reduced, g.column, g.outputs, g.length, 1, g.length, false};
    w_.even = g.reduced.rank == 0 || (g.reduced.rank == 1 && g.reduced.at[0].step[0] == 1);
    if (w_.outputs == 0 || w_.length == 0) return;
    const std::int64_t least = columns_ ? 32 : 4096, wanted = columns_ ? 1 << 17 : 1024;
    if (w_.outputs < wanted && w_.length > 2 * least) {
      const std::int64_t pieces = std::min(ceilDiv(w_.length, least), ceilDiv(wanted, w_.outputs));
      // A multiple of 16, so that pieces of aligned rows are aligned.
      w_.pieceLength = ceilDiv<std::int64_t>(ceilDiv(w_.length, pieces), 16) * 16;
      w_.pieces = ceilDiv(w_.length, w_.pieceLength);
    }
    if (w_.pieces > 1) workspace = static_cast<std::size_t>(w_.pieces * w_.outputs) * sizeof(Part);
  }

  void run(const Call& call) const override {
    if (w_.outputs == 0) return;
    const Target out{call.out[0].data, call.out[0].dtype};
    const T* in = call.in[0].as<T>();
    auto* parts = reinterpret_cast<Part*>(call.workspace);
    const std::int64_t tasks = w_.outputs * w_.pieces;
    if (w_.length == 0) {
      STEEPEST_LAUNCH(fillNone<Op>, gridFor(w_.outputs), kThreads, 0, call, out, w_.outputs, op_);
      return;
    }
    if (columns_)
      STEEPEST_LAUNCH((reduceColumns<T, Op>), gridFor(tasks), kThreads, 0, call, in, out, parts, w_, op_);
    else if (w_.pieceLength <= 1024)
      STEEPEST_LAUNCH((reduceRows<T, Op, kWarp>), gridFor(tasks, kThreads / kWarp), kThreads, 0, call, in, out, parts, w_, op_);
    else
      STEEPEST_LAUNCH((reduceRows<T, Op, kThreads>), gridFor(tasks, 1), kThreads, 0, call, in, out, parts, w_, op_);
    if (w_.pieces > 1)
      STEEPEST_LAUNCH(joinPieces<Op>, gridFor(w_.outputs, kThreads / kWarp), kThreads, 0, call, parts, out, w_.outputs, w_.pieces, op_);
  }

 private:
  Op op_;
  bool columns_;
  Walked w_{};
};

// f(a value of the storage type).
template <class F>
std::unique_ptr<Kernel> byStorageType(DType t, F&& f) {
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

}  // namespace steepest::cuda
