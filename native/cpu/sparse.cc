// Sparse times dense, and the sampled product that is its derivative. Rows of the output belong to one tile each.
#include <algorithm>

#include "cpu/sparse_checks.h"
#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

// Dense columns are summed in strips that stay in registers.
template <class V>
constexpr int kStrip = 4 * V::kLanes;

template <class T>
class Spmm final : public Kernel {
  using V = VecOf<T>;

 public:
  explicit Spmm(const Spec& spec)
      : entries_(spec.in[0].size()), columns_(spec.in[3].shape[0]), n_(spec.in[3].shape[1]), size_(spec.out[0].shape[0]) {
    workspace = static_cast<std::size_t>(size_ + entries_) * 4;
  }

  void run(const Call& call) const override {
    if (size_ == 0 || n_ == 0) return;
    const std::int32_t* rows = call.in[0].as<std::int32_t>();
    const std::int32_t* columns = call.in[1].as<std::int32_t>();
    std::int32_t* ends = reinterpret_cast<std::int32_t*>(call.workspace);
    std::int32_t* order = ends + size_;
    const bool sorted = arrange(rows, columns, ends, order);
    const std::int64_t work = n_ * (entries_ / size_ + 1), per = std::max<std::int64_t>(1, 32768 / work);
    const T* values = call.in[2].as<T>();
    const T* dense = call.in[3].as<T>();
    T* out = call.out[0].as<T>();
    call.pool.run((size_ + per - 1) / per, [&](std::int64_t tile, int) {
      for (std::int64_t row = tile * per; row < std::min(size_, (tile + 1) * per); ++row) {
        const std::int32_t begin = row == 0 ? 0 : ends[row - 1], end = ends[row];
        std::int64_t at = 0;
        for (; at + kStrip<V> <= n_; at += kStrip<V>) {
          V sum[4] = {V(0), V(0), V(0), V(0)};
          for (std::int32_t i = begin; i < end; ++i) {
            const std::int32_t e = sorted ? i : order[i];
            const V value = broadcast(values[e]);
            const T* x = dense + columns[e] * n_ + at;
            for (int k = 0; k < 4; ++k) sum[k] = fma(value, V::load(x + k * V::kLanes), sum[k]);
          }
          for (int k = 0; k < 4; ++k) store(out + row * n_ + at + k * V::kLanes, sum[k]);
        }
        for (; at < n_; at += V::kLanes) {
          const int lanes = static_cast<int>(std::min<std::int64_t>(V::kLanes, n_ - at));
          V sum(0);
          for (std::int32_t i = begin; i < end; ++i) {
            const std::int32_t e = sorted ? i : order[i];
            sum = fma(broadcast(values[e]), V::load(dense + columns[e] * n_ + at, lanes), sum);
          }
          store(out + row * n_ + at, sum, lanes);
        }
      }
    });
  }

 private:
  static V broadcast(const T& x) {
    if constexpr (std::is_same_v<T, bf16>) {
      const std::uint32_t wide = std::uint32_t{x.bits} << 16;
      float f;
      std::memcpy(&f, &wide, 4);
      return V(f);
    } else {
      return V(x);
    }
  }

  // Entries by row in their order (a counting sort): row r has those from ends[r - 1] to ends[r]. True where they lie so already.
  bool arrange(const std::int32_t* rows, const std::int32_t* columns, std::int32_t* ends, std::int32_t* order) const {
    std::fill(ends, ends + size_, 0);
    bool sorted = true;
    std::int32_t last = 0;
    for (std::int64_t e = 0; e < entries_; ++e) {
      if (!counts(rows[e], columns[e])) {
        sorted = false;
        continue;
      }
      sorted = sorted && rows[e] >= last;
      last = rows[e];
      ++ends[rows[e]];
    }
    std::int32_t at = 0;
    for (std::int64_t r = 0; r < size_; ++r) {
      const std::int32_t here = ends[r];
      ends[r] = sorted ? at + here : at;
      at += here;
    }
    if (sorted) return true;
    for (std::int64_t e = 0; e < entries_; ++e) {
      if (counts(rows[e], columns[e])) order[ends[rows[e]]++] = static_cast<std::int32_t>(e);
    }
    return false;
  }
  bool counts(std::int32_t row, std::int32_t column) const { return row >= 0 && row < size_ && column >= 0 && column < columns_; }

  std::int64_t entries_, columns_, n_, size_;
};

template <class T>
class Sddmm final : public Kernel {
  using V = VecOf<T>;

 public:
  void run(const Call& call) const override {
    const std::int32_t* rows = call.in[0].as<std::int32_t>();
    const std::int32_t* columns = call.in[1].as<std::int32_t>();
    const std::int64_t entries = call.in[0].size(), m = call.in[2].shape[0], c = call.in[3].shape[0], n = call.in[2].shape[1];
    const T* a = call.in[2].as<T>();
    const T* b = call.in[3].as<T>();
    T* out = call.out[0].as<T>();
    const std::int64_t per = std::max<std::int64_t>(1, 32768 / (n + 1));
    call.pool.run((entries + per - 1) / per, [&](std::int64_t tile, int) {
      for (std::int64_t e = tile * per; e < std::min(entries, (tile + 1) * per); ++e) {
        V sum[2] = {V(0), V(0)};
        if (rows[e] >= 0 && rows[e] < m && columns[e] >= 0 && columns[e] < c) {
          const T* x = a + rows[e] * n;
          const T* y = b + columns[e] * n;
          std::int64_t i = 0;
          for (; i + 2 * V::kLanes <= n; i += 2 * V::kLanes) {
            for (int k = 0; k < 2; ++k) sum[k] = fma(V::load(x + i + k * V::kLanes), V::load(y + i + k * V::kLanes), sum[k]);
          }
          for (; i < n; i += V::kLanes) {
            const int lanes = static_cast<int>(std::min<std::int64_t>(V::kLanes, n - i));
            sum[0] = fma(V::load(x + i, lanes), V::load(y + i, lanes), sum[0]);
          }
        }
        store(out + e, V(sumOf(sum[0] + sum[1])), 1);
      }
    });
  }

 private:
  static typename V::Scalar sumOf(const V& v) { return sum(v); }
};

template <template <class> class K, class... A>
std::unique_ptr<Kernel> forFloats(DType dtype, A&&... args) {
  switch (dtype) {
    case DType::float32:
      return std::make_unique<K<float>>(args...);
    case DType::bfloat16:
      return std::make_unique<K<bf16>>(args...);
    case DType::float64:
      return std::make_unique<K<double>>(args...);
    default:
      refuseSparse("sparse products are of floats");
  }
}

}  // namespace

std::unique_ptr<Kernel> makeSpmm(const Spec& spec) {
  checkSpmm(spec);
  return forFloats<Spmm>(spec.in[3].dtype, spec);
}

std::unique_ptr<Kernel> makeSddmm(const Spec& spec) {
  checkSddmm(spec);
  return forFloats<Sddmm>(spec.in[3].dtype);
}

}  // namespace steepest::STEEPEST_LEVEL
