// Kernels of `take`, `gather` and `scatterAdd`.
#include "cpu/indexing.h"

#include <cstring>

#include "cpu/copy.h"
#include "attrs/gather.gen.h"
#include "attrs/scatterAdd.gen.h"
#include "attrs/take.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using indexing::Along;
using indexing::alongOf;
using indexing::kIndexFault;
using indexing::Slices;
using layout::ceilDiv;
using layout::check;

template <class T>
class Take final : public Kernel {
 public:
  explicit Take(const Slices& s) : s_(s) {}

  void run(const Call& call) const override {
    const T* x = call.in[0].as<T>();
    const std::int32_t* indices = call.in[1].as<std::int32_t>();
    T* y = call.out[0].as<T>();
    if (s_.inner == 0) return;
    const std::int64_t rows = s_.batch * s_.outer * s_.m;
    const std::int64_t group = std::max<std::int64_t>(1, indexing::kTile / static_cast<std::int64_t>(sizeof(T)) / s_.inner);
    call.pool.run(ceilDiv(rows, group), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(rows, (tile + 1) * group);
      std::int64_t row = tile * group;
      while (row < end) {
        const std::int64_t o = row / s_.m, from = row % s_.m, n = std::min(end - row, s_.m - from);
        if (!copy(x + o * s_.n * s_.inner, indices + o / s_.outer * s_.m + from, n, y + row * s_.inner)) call.fault.store(kIndexFault);
        row += n;
      }
    });
  }

 private:
  // Rows whose index is out of range are zeros.
  bool copy(const T* x, const std::int32_t* indices, std::int64_t count, T* y) const {
    bool whole = true;
    for (std::int64_t j = 0; j < count; ++j, y += s_.inner) {
      const std::int64_t index = indices[j];
      if (index < 0 || index >= s_.n) {
        whole = false;
        std::fill_n(y, s_.inner, T(0));
        continue;
      }
      const T* from = x + index * s_.inner;
      if (s_.inner < 16) {
        for (std::int64_t i = 0; i < s_.inner; ++i) y[i] = from[i];
      } else {
        std::memcpy(y, from, static_cast<std::size_t>(s_.inner) * sizeof(T));
      }
    }
    return whole;
  }

  Slices s_;
};

template <class T>
class Gather final : public Kernel {
 public:
  explicit Gather(const Along& s) : s_(s) {}

  void run(const Call& call) const override {
    const std::int64_t rows = s_.outer * s_.m;
    if (s_.inner == 0) return;
    const std::int64_t group = std::max<std::int64_t>(1, 16384 / s_.inner);
    call.pool.run(ceilDiv(rows, group), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(rows, (tile + 1) * group);
      bool whole = true;
      for (std::int64_t row = tile * group; row < end; ++row) {
        const T* x = call.in[0].as<T>() + row / s_.m * s_.n * s_.inner;
        const std::int32_t* indices = call.in[1].as<std::int32_t>() + row * s_.inner;
        T* y = call.out[0].as<T>() + row * s_.inner;
        for (std::int64_t i = 0; i < s_.inner; ++i) {
          const std::int64_t index = indices[i];
          const bool good = index >= 0 && index < s_.n;
          whole &= good;
          y[i] = good ? x[index * s_.inner + i] : T(0);
        }
      }
      if (!whole) call.fault.store(kIndexFault);
    });
  }

 private:
  Along s_;
};

template <class T>
class ScatterAdd final : public Kernel {
 public:
  explicit ScatterAdd(const Along& s) : s_(s) {}

  // A task owns some outer rows, or some columns of one: whatever lands on an element lands in the order of its updates.
  void run(const Call& call) const override {
    const T* x = call.in[0].as<T>();
    const std::int32_t* indices = call.in[1].as<std::int32_t>();
    const T* updates = call.in[2].as<T>();
    T* y = call.out[0].as<T>();
    if (s_.inner == 0 || s_.n == 0) {
      if (s_.n == 0 && s_.outer * s_.m * s_.inner > 0) call.fault.store(kIndexFault);
      return;
    }
    constexpr std::int64_t kColumns = 64;
    const std::int64_t blocks = ceilDiv(s_.inner, kColumns);
    const std::int64_t group = std::max<std::int64_t>(1, 16384 / ((s_.n + s_.m) * std::min(s_.inner, kColumns)));
    const std::int64_t all = s_.outer * blocks;
    call.pool.run(ceilDiv(all, group), [&](std::int64_t tile, int) {
      bool whole = true;
      for (std::int64_t k = tile * group; k < std::min(all, (tile + 1) * group); ++k) {
        const std::int64_t o = k / blocks, from = k % blocks * kColumns, to = std::min(s_.inner, from + kColumns);
        T* own = y + o * s_.n * s_.inner;
        if (y != x) {
          for (std::int64_t r = 0; r < s_.n; ++r)
            std::copy(x + (o * s_.n + r) * s_.inner + from, x + (o * s_.n + r) * s_.inner + to, own + r * s_.inner + from);
        }
        for (std::int64_t j = 0; j < s_.m; ++j) {
          const std::int64_t at = (o * s_.m + j) * s_.inner;
          for (std::int64_t i = from; i < to; ++i) {
            const std::int64_t index = indices[at + i];
            const bool good = index >= 0 && index < s_.n;
            whole &= good;
            if (good) own[index * s_.inner + i] += updates[at + i];
          }
        }
      }
      if (!whole) call.fault.store(kIndexFault);
    });
  }

 private:
  Along s_;
};

}  // namespace

std::unique_ptr<Kernel> makeTake(const Spec& spec) {
  const TakeAttrs a = TakeAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "take", "two inputs and one output");
  const Slices s = indexing::slicesOf(spec.in[0], spec.in[1], spec.out[0], a.axis, a.batchDims, "take");
  return layout::bySize(spec.out[0].dtype, [&](auto zero) -> std::unique_ptr<Kernel> { return std::make_unique<Take<decltype(zero)>>(s); });
}

std::unique_ptr<Kernel> makeGather(const Spec& spec) {
  const GatherAttrs a = GatherAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "gather", "two inputs and one output");
  const View& y = spec.out[0];
  check(layout::sameShape(y, spec.in[1]) && y.dtype == spec.in[0].dtype && y.contiguous(), "gather",
        "the output has the shape of the indices");
  const Along s = alongOf(spec.in[0], spec.in[1], a.axis, "gather");
  return layout::bySize(y.dtype, [&](auto zero) -> std::unique_ptr<Kernel> { return std::make_unique<Gather<decltype(zero)>>(s); });
}

std::unique_ptr<Kernel> makeScatterAdd(const Spec& spec) {
  const ScatterAddAttrs a = ScatterAddAttrs::decode(spec.attrs);
  check(spec.in.size() == 3 && spec.out.size() == 1, "scatterAdd", "three inputs and one output");
  const View &x = spec.in[0], &updates = spec.in[2], &y = spec.out[0];
  check(layout::sameShape(x, y) && layout::sameShape(updates, spec.in[1]), "scatterAdd", "shapes");
  check(x.dtype == y.dtype && x.dtype == updates.dtype && updates.contiguous() && y.contiguous(), "scatterAdd", "one dtype, contiguous");
  const Along s = alongOf(x, spec.in[1], a.axis, "scatterAdd");
  switch (x.dtype) {
    case DType::float32:
      return std::make_unique<ScatterAdd<float>>(s);
    case DType::float64:
      return std::make_unique<ScatterAdd<double>>(s);
    case DType::int32:
      return std::make_unique<ScatterAdd<std::uint32_t>>(s);
    default:
      throw Error("PROGRAM", "scatterAdd: float32, float64 or int32");
  }
}

}  // namespace steepest::STEEPEST_LEVEL
