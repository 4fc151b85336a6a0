// Kernels of `spmm` and `sddmm`: entries are brought into the order of their rows, and what belongs to a row is added up in it.
#include "cpu/sparse_checks.h"
#include "cuda/sort.cuh"

namespace steepest::cuda {

namespace {

constexpr int kStrip = 4;  // columns of a lane

// What lies outside comes after all rows.
__global__ void __launch_bounds__(kThreads) rowKeys(const std::int32_t* rows, const std::int32_t* columns, std::uint32_t* keys,
                                                    std::int32_t* order, std::int64_t entries, std::int64_t size, std::int64_t width) {
  for (std::int64_t e = threadOf(); e < entries; e += threads()) {
    const bool inside = rows[e] >= 0 && rows[e] < size && columns[e] >= 0 && columns[e] < width;
    keys[e] = static_cast<std::uint32_t>(inside ? rows[e] : size);
    order[e] = static_cast<std::int32_t>(e);
  }
}

// A warp takes a row and a strip of its columns.
template <class T>
__global__ void __launch_bounds__(kThreads)
    addRows(const std::uint32_t* keys, const std::int32_t* order, const std::int32_t* columns, const T* values, const T* dense, T* out,
            std::int64_t entries, std::int64_t size, std::int64_t n) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t strips = (n + kStrip * kWarp - 1) / (kStrip * kWarp);
  for (std::int64_t task = threadOf() / kWarp; task < size * strips; task += threads() / kWarp) {
    const std::int64_t row = task / strips, first = task % strips * kStrip * kWarp + lane;
    const std::int64_t edge = lane < 2 ? lowerBound(keys, entries, static_cast<std::uint32_t>(row + lane)) : 0;
    const std::int64_t begin = __shfl_sync(kAllLanes, edge, 0), end = __shfl_sync(kAllLanes, edge, 1);
    S sum[kStrip] = {};
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int32_t e = order[i];
      const S value = read(values + e);
      const T* x = dense + columns[e] * n;
#pragma unroll
      for (int k = 0; k < kStrip; ++k) {
        const std::int64_t c = first + k * kWarp;
        if (c < n) sum[k] = std::fma(value, read(x + c), sum[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < kStrip; ++k) {
      const std::int64_t c = first + k * kWarp;
      if (c < n) write(out + row * n + c, sum[k]);
    }
  }
}

class Spmm final : public Kernel {
 public:
  explicit Spmm(const Spec& spec)
      : entries_(spec.in[0].size()), width_(spec.in[3].shape[0]), n_(spec.in[3].shape[1]), size_(spec.out[0].shape[0]) {
    while (passes_ < 4 && size_ >> (8 * passes_)) ++passes_;
    workspace = Sorting<std::uint32_t>::bytes(1, entries_);
  }
  void run(const Call& call) const override {
    if (size_ == 0 || n_ == 0) return;
    const std::int32_t* columns = call.in[1].as<std::int32_t>();
    Sorting<std::uint32_t> sorting(call.workspace, 1, entries_);
    STEEPEST_LAUNCH(rowKeys, gridFor(entries_), kThreads, 0, call, call.in[0].as<std::int32_t>(), columns, sorting.keys, sorting.order,
                    entries_, size_, width_);
    sorting.run(call, passes_);
    byFloat(call.out[0].dtype, [&](auto type) {
      using T = decltype(type);
      STEEPEST_LAUNCH(addRows<T>, gridFor(size_ * ceilDiv<std::int64_t>(n_, kStrip * kWarp), kThreads / kWarp), kThreads, 0, call,
                      sorting.keys, sorting.order, columns, call.in[2].as<T>(), call.in[3].as<T>(), call.out[0].as<T>(), entries_, size_,
                      n_);
    });
  }

 private:
  std::int64_t entries_, width_, n_, size_;
  int passes_ = 0;
};

// A warp takes an entry.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sampledProducts(const std::int32_t* rows, const std::int32_t* columns, const T* a, const T* b, T* out, std::int64_t entries,
                    std::int64_t m, std::int64_t c, std::int64_t n, bool wide) {
  using S = ComputeOf<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t e = threadOf() / kWarp; e < entries; e += threads() / kWarp) {
    S sum = 0;
    const std::int64_t row = rows[e], column = columns[e];
    if (row >= 0 && row < m && column >= 0 && column < c)
      eachOf<kWarp>(n, wide, lane, [&](int, std::int64_t, S x, S y) { sum = std::fma(x, y, sum); }, a + row * n, b + column * n);
    sum = warpSum(sum);
    if (lane == 0) write(out + e, sum);
  }
}

class Sddmm final : public Kernel {
 public:
  void run(const Call& call) const override {
    const std::int64_t entries = call.in[0].size(), n = call.in[2].shape[1];
    byFloat(call.out[0].dtype, [&](auto type) {
      using T = decltype(type);
      const bool wide = aligned16(call.in[2].data) && aligned16(call.in[3].data) && n * static_cast<std::int64_t>(sizeof(T)) % 16 == 0;
      STEEPEST_LAUNCH(sampledProducts<T>, gridFor(entries, kThreads / kWarp), kThreads, 0, call, call.in[0].as<std::int32_t>(),
                      call.in[1].as<std::int32_t>(), call.in[2].as<T>(), call.in[3].as<T>(), call.out[0].as<T>(), entries,
                      call.in[2].shape[0], call.in[3].shape[0], n, wide);
    });
  }
};

}  // namespace

std::unique_ptr<Kernel> makeSpmm(const Spec& spec) {
  checkSpmm(spec);
  return std::make_unique<Spmm>(spec);
}

std::unique_ptr<Kernel> makeSddmm(const Spec& spec) {
  checkSddmm(spec);
  return std::make_unique<Sddmm>();
}

}  // namespace steepest::cuda
