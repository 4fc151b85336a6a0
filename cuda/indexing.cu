// Kernels of `take`, `takeScaled`, `gather`, `scatterAdd`, `dynamicSlice`, `dynamicUpdateSlice` and `putRecords`.
#include "attrs/dynamicSlice.gen.h"
#include "attrs/dynamicUpdateSlice.gen.h"
#include "attrs/gather.gen.h"
#include "attrs/scatterAdd.gen.h"
#include "attrs/take.gen.h"
#include "cpu/sampling_checks.h"
#include "cuda/copy.cuh"

namespace steepest::cuda {

namespace {

using indexing::Along;
using indexing::Slices;
using indexing::Window;
using layout::check;

__device__ inline bool fits(std::int64_t index, std::int64_t n, int* fault) {
  if (index >= 0 && index < n) return true;
  raise(fault, kIndexFault);
  return false;
}
template <class T>
__device__ inline T zeroOf() {
  T zero;
  memset(&zero, 0, sizeof zero);
  return zero;
}

// Rows whose index is out of range are zeros. `inner` is in units of T.
template <class T>
__global__ void __launch_bounds__(kThreads) takeRows(const T* x, const std::int32_t* indices, T* y, Slices s, int* fault) {
  const std::int64_t size = s.batch * s.outer * s.m * s.inner;
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    const std::int64_t row = i / s.inner, column = i % s.inner, o = row / s.m;
    const std::int64_t index = indices[o / s.outer * s.m + row % s.m];
    y[i] = fits(index, s.n, fault) ? x[(o * s.n + index) * s.inner + column] : zeroOf<T>();
  }
}

class Take final : public Kernel {
 public:
  explicit Take(const Slices& s) : s_(s) {}
  void run(const Call& call) const override {
    const std::size_t bytes = sizeOf(call.out[0].dtype);
    const std::byte* x = call.in[0].data;
    std::byte* y = call.out[0].data;
    const auto line = static_cast<std::size_t>(s_.inner) * bytes;
    const std::size_t unit = unitOf({address(x), address(y), line}, bytes);
    Slices s = s_;
    s.inner = static_cast<std::int64_t>(line / unit);
    byUnit(unit, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(takeRows<T>, gridFor(s.batch * s.outer * s.m * s.inner), kThreads, 0, call, reinterpret_cast<const T*>(x),
                      call.in[1].as<std::int32_t>(), reinterpret_cast<T*>(y), s, call.deviceFault);
    });
  }

 private:
  Slices s_;
};

// x [batch, n, width] with any strides, indices and weights [batch, m], y [batch, m, width].
struct Scaled {
  layout::Loops<1> batches;
  std::int64_t batch, n, m, width, row, step;
};
template <class T>
__global__ void __launch_bounds__(kThreads) takeScaled(const T* x, const std::int32_t* indices, const ComputeOf<T>* weights, T* y,
                                                       const __grid_constant__ Scaled s, bool wide, int* fault) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t row = threadOf() / kWarp; row < s.batch * s.m; row += threads() / kWarp) {
    const std::int64_t index = indices[row];
    const bool good = index >= 0 && index < s.n;
    if (!good && lane == 0) raise(fault, kIndexFault);
    const ComputeOf<T> w = weights[row];
    const T* from = x + offsetOf(s.batches, row / s.m) + (good ? index : 0) * s.row;
    T* to = y + row * s.width;
    if (!good)
      fillOf<kWarp>(to, s.width, false, lane, [](int, std::int64_t) { return ComputeOf<T>(0); });
    else if (s.step == 1)
      fillOf<kWarp>(to, s.width, wide, lane, [&](int, std::int64_t, ComputeOf<T> v) { return v * w; }, from);
    else
      fillOf<kWarp>(to, s.width, false, lane, [&](int, std::int64_t i) { return read(from + i * s.step) * w; });
  }
}

class TakeScaled final : public Kernel {
 public:
  TakeScaled(const View& x, std::int64_t m) : s_{{}, layout::span(x, 0, x.rank - 2), x.dim(-2), m, x.dim(-1), x.stride(-2), x.stride(-1)} {
    for (int i = 0; i < x.rank - 2; ++i) {
      s_.batches.add(x.shape[i], {x.strides[i]});
      even_ = even_ && x.strides[i] * static_cast<std::int64_t>(sizeOf(x.dtype)) % 16 == 0;
    }
  }
  void run(const Call& call) const override {
    const std::int64_t rows = s_.batch * s_.m;
    if (rows == 0 || s_.width == 0) return;
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
      const bool wide =
          even_ && s_.row * bytes % 16 == 0 && s_.width * bytes % 16 == 0 && aligned16(call.in[0].data) && aligned16(call.out[0].data);
      STEEPEST_LAUNCH(takeScaled<T>, gridFor(rows, kThreads / kWarp), kThreads, 0, call, call.in[0].as<T>(), call.in[1].as<std::int32_t>(),
                      call.in[2].as<ComputeOf<T>>(), call.out[0].as<T>(), s_, wide, call.deviceFault);
    });
  }

 private:
  Scaled s_;
  bool even_ = true;
};

template <class T>
__global__ void __launch_bounds__(kThreads) gatherAlong(const T* x, const std::int32_t* indices, T* y, Along s, int* fault) {
  const std::int64_t size = s.outer * s.m * s.inner;
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    const std::int64_t index = indices[i], column = i % s.inner, o = i / s.inner / s.m;
    y[i] = fits(index, s.n, fault) ? x[(o * s.n + index) * s.inner + column] : T(0);
  }
}

class Gather final : public Kernel {
 public:
  explicit Gather(const Along& s) : s_(s) {}
  void run(const Call& call) const override {
    layout::bySize(call.out[0].dtype, [&](auto zero) {
      using T = decltype(zero);
      STEEPEST_LAUNCH(gatherAlong<T>, gridFor(s_.outer * s_.m * s_.inner), kThreads, 0, call, call.in[0].as<T>(),
                      call.in[1].as<std::int32_t>(), call.out[0].as<T>(), s_, call.deviceFault);
    });
  }

 private:
  Along s_;
};

// A block owns the column of one outer index: its warps look through pieces of the updates one after another, in their order, so that what
// lands on an element lands in the order of the updates. Within 32 updates the lanes tell each other who comes first.
template <class T>
__global__ void __launch_bounds__(kWarp) addAlong(const T* x, const std::int32_t* indices, const T* updates, T* y, Along s, int* fault) {
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t task = blockIdx.x; task < s.outer * s.inner; task += gridDim.x) {
    const std::int64_t o = task / s.inner, column = task % s.inner;
    T* own = y + o * s.n * s.inner + column;
    if (x != y) {
      for (std::int64_t r = lane; r < s.n; r += kWarp) own[r * s.inner] = x[(o * s.n + r) * s.inner + column];
    }
    __syncwarp();
    for (std::int64_t begin = 0; begin < s.m; begin += kWarp) {
      const std::int64_t j = begin + lane, at = (o * s.m + j) * s.inner + column;
      std::int32_t index = j < s.m ? indices[at] : -1;
      if (j < s.m && !fits(index, s.n, fault)) index = -1;
      const T value = j < s.m ? updates[at] : T(0);
      // The lowest lane of an index adds for all that have it.
      bool first = index >= 0;
      T total = first ? own[index * s.inner] : T(0);
      for (int k = 0; k < kWarp; ++k) {
        const std::int32_t other = __shfl_sync(kAllLanes, index, k);
        const T add = __shfl_sync(kAllLanes, value, k);
        if (other != index) continue;
        if (k < lane) first = false;
        total += add;
      }
      if (first) own[index * s.inner] = total;
      __syncwarp();
    }
  }
}

class ScatterAdd final : public Kernel {
 public:
  explicit ScatterAdd(const Along& s) : s_(s) {}
  void run(const Call& call) const override {
    const auto launch = [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(addAlong<T>, gridFor(s_.outer * s_.inner, 1), kWarp, 0, call, call.in[0].as<T>(), call.in[1].as<std::int32_t>(),
                      call.in[2].as<T>(), call.out[0].as<T>(), s_, call.deviceFault);
    };
    if (call.out[0].dtype == DType::float32)
      launch(float{});
    else if (call.out[0].dtype == DType::float64)
      launch(double{});
    else
      launch(std::uint32_t{});
  }

 private:
  Along s_;
};

// Copies a window out of values, or into them; `inner` is in units of T.
template <class T, bool Into>
__global__ void __launch_bounds__(kThreads) moveWindow(const T* from, const std::int32_t* starts, T* to, Window w, int* fault) {
  const std::int64_t width = w.size * w.inner, size = w.batch * w.outer * width;
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    const std::int64_t row = i / width, start = starts[row / w.outer];
    const std::int64_t there = (row * w.n + start) * w.inner + i % width;
    const bool good = fits(start, w.n - w.size + 1, fault);
    if constexpr (Into) {
      if (good) to[there] = from[i];
    } else {
      to[i] = good ? from[there] : zeroOf<T>();
    }
  }
}
template <class T>
__global__ void __launch_bounds__(kThreads) copyAll(const T* from, T* to, std::int64_t n) {
  for (std::int64_t i = threadOf(); i < n; i += threads()) to[i] = from[i];
}

void copyBytes(const Call& call, const std::byte* from, std::byte* to, std::size_t bytes) {
  if (from == to) return;
  const std::size_t unit = unitOf({address(from), address(to), bytes}, 1);
  byUnit(unit, [&](auto type) {
    using T = decltype(type);
    const auto n = static_cast<std::int64_t>(bytes / unit);
    STEEPEST_LAUNCH(copyAll<T>, gridFor(n), kThreads, 0, call, reinterpret_cast<const T*>(from), reinterpret_cast<T*>(to), n);
  });
}

template <bool Into>
void runWindow(const Call& call, const Window& w, const std::byte* from, const View& start, std::byte* to) {
  const std::size_t unit = unitOf({address(from), address(to), static_cast<std::uintptr_t>(w.inner)}, 1);
  Window units = w;
  units.inner /= static_cast<std::int64_t>(unit);
  byUnit(unit, [&](auto type) {
    using T = decltype(type);
    STEEPEST_LAUNCH((moveWindow<T, Into>), gridFor(units.batch * units.outer * units.size * units.inner), kThreads, 0, call,
                    reinterpret_cast<const T*>(from), start.as<std::int32_t>(), reinterpret_cast<T*>(to), units, call.deviceFault);
  });
}

class DynamicSlice final : public Kernel {
 public:
  explicit DynamicSlice(const Window& w) : w_(w) {}
  void run(const Call& call) const override { runWindow<false>(call, w_, call.in[0].data, call.in[1], call.out[0].data); }

 private:
  Window w_;
};

class DynamicUpdateSlice final : public Kernel {
 public:
  explicit DynamicUpdateSlice(const Window& w) : w_(w) {}
  void run(const Call& call) const override {
    copyBytes(call, call.in[0].data, call.out[0].data, call.out[0].bytes());
    runWindow<true>(call, w_, call.in[1].data, call.in[2], call.out[0].data);
  }

 private:
  Window w_;
};

// Of records for one place the last stays: a record is left out where a later one has its place.
template <class T>
__global__ void __launch_bounds__(kThreads) putRecords(const std::int32_t* slots, const T* records, T* out, std::int64_t count,
                                                       std::int64_t width, std::int64_t places, int* fault) {
  // All of a block or none: another one may raise a fault meanwhile.
  if (__syncthreads_or(faulted(fault))) return;
  for (std::int64_t r = blockIdx.x; r < count; r += gridDim.x) {
    const std::int32_t slot = slots[r];
    int later = 0;
    for (std::int64_t k = r + 1 + threadIdx.x; k < count; k += blockDim.x) later |= slots[k] == slot;
    later = blockReduce(later, 0, [](int a, int b) { return a | b; });
    const bool good = slot >= 0 && slot < places;
    if (!good && threadIdx.x == 0) raise(fault, kIndexFault);
    if (!good || later) continue;
    for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) out[slot * width + i] = records[r * width + i];
  }
}

class PutRecords final : public Kernel {
 public:
  explicit PutRecords(const Spec& spec) : cells_(spec.in[0].size()), records_(spec.in[2].shape[0]), width_(spec.in[2].shape[1]) {}
  void run(const Call& call) const override {
    copyBytes(call, call.in[0].data, call.out[0].data, call.out[0].bytes());
    if (width_ == 0) return;
    layout::bySize(call.out[0].dtype, [&](auto zero) {
      using T = decltype(zero);
      STEEPEST_LAUNCH(putRecords<T>, gridFor(records_, 1), kThreads, 0, call, call.in[1].as<std::int32_t>(), call.in[2].as<T>(),
                      call.out[0].as<T>(), records_, width_, cells_ / width_, call.deviceFault);
    });
  }

 private:
  std::int64_t cells_, records_, width_;
};

}  // namespace

std::unique_ptr<Kernel> makeTake(const Spec& spec) {
  const TakeAttrs a = TakeAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "take", "two inputs and one output");
  return std::make_unique<Take>(indexing::slicesOf(spec.in[0], spec.in[1], spec.out[0], a.axis, a.batchDims, "take"));
}

std::unique_ptr<Kernel> makeTakeScaled(const Spec& spec) {
  checkTakeScaled(spec);
  return std::make_unique<TakeScaled>(spec.in[0], spec.in[1].dim(-1));
}

std::unique_ptr<Kernel> makeGather(const Spec& spec) {
  const GatherAttrs a = GatherAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "gather", "two inputs and one output");
  const View& y = spec.out[0];
  check(layout::sameShape(y, spec.in[1]) && y.dtype == spec.in[0].dtype && y.contiguous(), "gather",
        "the output has the shape of the indices");
  return std::make_unique<Gather>(indexing::alongOf(spec.in[0], spec.in[1], a.axis, "gather"));
}

std::unique_ptr<Kernel> makeScatterAdd(const Spec& spec) {
  const ScatterAddAttrs a = ScatterAddAttrs::decode(spec.attrs);
  check(spec.in.size() == 3 && spec.out.size() == 1, "scatterAdd", "three inputs and one output");
  const View &x = spec.in[0], &updates = spec.in[2], &y = spec.out[0];
  check(layout::sameShape(x, y) && layout::sameShape(updates, spec.in[1]), "scatterAdd", "shapes");
  check(x.dtype == y.dtype && x.dtype == updates.dtype && updates.contiguous() && y.contiguous(), "scatterAdd", "one dtype, contiguous");
  check(x.dtype == DType::float32 || x.dtype == DType::float64 || x.dtype == DType::int32, "scatterAdd", "float32, float64 or int32");
  return std::make_unique<ScatterAdd>(indexing::alongOf(x, spec.in[1], a.axis, "scatterAdd"));
}

std::unique_ptr<Kernel> makeDynamicSlice(const Spec& spec) {
  const DynamicSliceAttrs a = DynamicSliceAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "dynamicSlice", "two inputs and one output");
  const Window w = indexing::windowOf(spec.in[0], spec.out[0], spec.in[1], a.axis, a.batchDims, "dynamicSlice");
  check(w.size == a.size, "dynamicSlice", "length of the part");
  return std::make_unique<DynamicSlice>(w);
}

std::unique_ptr<Kernel> makeDynamicUpdateSlice(const Spec& spec) {
  const DynamicUpdateSliceAttrs a = DynamicUpdateSliceAttrs::decode(spec.attrs);
  check(spec.in.size() == 3 && spec.out.size() == 1, "dynamicUpdateSlice", "three inputs and one output");
  const View& y = spec.out[0];
  check(layout::sameShape(y, spec.in[0]) && y.dtype == spec.in[0].dtype && y.contiguous(), "dynamicUpdateSlice",
        "the output is like the values");
  return std::make_unique<DynamicUpdateSlice>(
      indexing::windowOf(spec.in[0], spec.in[1], spec.in[2], a.axis, a.batchDims, "dynamicUpdateSlice"));
}

std::unique_ptr<Kernel> makePutRecords(const Spec& spec) {
  checkPutRecords(spec);
  return std::make_unique<PutRecords>(spec);
}

}  // namespace steepest::cuda
