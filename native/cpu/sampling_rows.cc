// Rows `rowNorms`, `takeScaled` and `putRecords`: what sampled products do to the rows of activations and gradients.
#include <atomic>
#include <cmath>
#include <cstring>

#include "cpu/sampling_checks.h"
#include "math/vec.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using layout::ceilDiv;
using layout::Loops;
using layout::Walk;

constexpr std::int64_t kTile = 16384;  // elements of one task

std::int64_t rowsPerTask(std::int64_t width) { return std::max<std::int64_t>(1, kTile / std::max<std::int64_t>(1, width)); }

// Where rows begin: the axes [0, until).
Loops<1> leading(const View& v, int until) {
  Loops<1> loops;
  for (int i = 0; i < until; ++i) loops.add(v.shape[i], {v.strides[i]});
  return loops;
}

// Sum of squares in fixed lanes.
template <class T>
typename VecOf<T>::Scalar squares(const T* x, std::int64_t n, std::int64_t step) {
  using V = VecOf<T>;
  constexpr std::int64_t lanes = V::kLanes;
  V part[4] = {V(0), V(0), V(0), V(0)};
  if (step == 1) {
    std::int64_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
      for (int k = 0; k < 4; ++k) {
        const V v = V::load(x + i + k * lanes);
        part[k] = fma(v, v, part[k]);
      }
    }
    for (int k = 0; i < n; i += lanes, ++k) {
      const V v = V::load(x + i, static_cast<int>(std::min(lanes, n - i)));
      part[k] = fma(v, v, part[k]);
    }
  } else {
    // The same lanes, gathered.
    T piece[V::kLanes];
    for (std::int64_t i = 0, k = 0; i < n; i += lanes, k = (k + 1) % 4) {
      const std::int64_t m = std::min(lanes, n - i);
      for (std::int64_t j = 0; j < m; ++j) piece[j] = x[(i + j) * step];
      const V v = V::load(piece, static_cast<int>(m));
      part[k] = fma(v, v, part[k]);
    }
  }
  return sum((part[0] + part[1]) + (part[2] + part[3]));
}

template <class T>
class RowNorms final : public Kernel {
  using Out = std::conditional_t<std::is_same_v<T, double>, double, float>;

 public:
  RowNorms(const View& x, bool squared)
      : rows_(leading(x, x.rank - 1)), count_(layout::span(x, 0, x.rank - 1)), width_(x.dim(-1)), step_(x.stride(-1)), squared_(squared) {}

  void run(const Call& call) const override {
    const std::int64_t group = rowsPerTask(width_);
    call.pool.run(ceilDiv(count_, group), [&](std::int64_t tile, int) {
      const std::int64_t end = std::min(count_, (tile + 1) * group);
      Walk<1> walk(rows_, tile * group);
      Out* y = call.out[0].template as<Out>();
      for (std::int64_t row = tile * group; row < end; ++row, walk.advance()) {
        const Out s = squares(call.in[0].template as<T>() + walk.offset(), width_, step_);
        y[row] = squared_ ? s : std::sqrt(s);
      }
    });
  }

 private:
  Loops<1> rows_;
  std::int64_t count_, width_, step_;
  bool squared_;
};

// x [batch, n, width], indices and weights [batch, m], y [batch, m, width].
template <class T>
class TakeScaled final : public Kernel {
  using V = VecOf<T>;
  using Weight = typename V::Scalar;

 public:
  TakeScaled(const View& x, std::int64_t m)
      : batches_(leading(x, x.rank - 2)),
        batch_(layout::span(x, 0, x.rank - 2)),
        n_(x.dim(-2)),
        m_(m),
        width_(x.dim(-1)),
        row_(x.stride(-2)),
        step_(x.stride(-1)) {}

  void run(const Call& call) const override {
    const std::int64_t rows = batch_ * m_, group = rowsPerTask(width_);
    if (width_ == 0) return;
    call.pool.run(ceilDiv(rows, group), [&](std::int64_t tile, int) {
      const std::int32_t* indices = call.in[1].template as<std::int32_t>();
      const Weight* weights = call.in[2].template as<Weight>();
      const std::int64_t end = std::min(rows, (tile + 1) * group);
      Walk<1> walk(batches_, tile * group / m_);
      for (std::int64_t row = tile * group; row < end; ++row) {
        if (row > tile * group && row % m_ == 0) walk.advance();
        const std::int64_t index = indices[row];
        T* y = call.out[0].template as<T>() + row * width_;
        if (index < 0 || index >= n_) {
          call.fault.store(indexing::kIndexFault);
          std::fill_n(y, width_, T{});
        } else {
          scale(call.in[0].template as<T>() + walk.offset() + index * row_, weights[row], y);
        }
      }
    });
  }

 private:
  void scale(const T* x, Weight weight, T* y) const {
    constexpr std::int64_t lanes = V::kLanes;
    const V w(weight);
    T piece[V::kLanes];
    for (std::int64_t i = 0; i < width_; i += lanes) {
      const int n = static_cast<int>(std::min(lanes, width_ - i));
      const T* from = x + i * step_;
      if (step_ != 1) {
        for (int j = 0; j < n; ++j) piece[j] = from[j * step_];
        from = piece;
      }
      if (n == lanes)
        store(y + i, V::load(from) * w);
      else
        store(y + i, V::load(from, n) * w, n);
    }
  }

  Loops<1> batches_;
  std::int64_t batch_, n_, m_, width_, row_, step_;
};

// Records of one width in a flat state: record r takes the place of the elements from slots[r] * width on; of two in one slot the later
// counts.
class PutRecords final : public Kernel {
 public:
  explicit PutRecords(const Spec& spec)
      : cells_(spec.in[0].size()), records_(spec.in[2].shape[0]), width_(spec.in[2].shape[1]), unit_(sizeOf(spec.in[0].dtype)) {}

  void run(const Call& call) const override {
    const std::byte* state = call.in[0].data;
    std::byte* out = call.out[0].data;
    if (out != state) {
      const std::int64_t bytes = cells_ * static_cast<std::int64_t>(unit_);
      call.pool.run(ceilDiv(bytes, kCopy), [&](std::int64_t tile, int) {
        std::memcpy(out + tile * kCopy, state + tile * kCopy, static_cast<std::size_t>(std::min(kCopy, bytes - tile * kCopy)));
      });
    }
    const std::int32_t* slots = call.in[1].as<std::int32_t>();
    const std::int64_t places = width_ ? cells_ / width_ : 0;
    const std::size_t bytes = static_cast<std::size_t>(width_) * unit_;
    for (std::int64_t r = 0; r < records_ && width_ > 0; ++r) {
      const std::int64_t slot = slots[r];
      if (slot < 0 || slot >= places)
        call.fault.store(indexing::kIndexFault);
      else
        std::memcpy(out + static_cast<std::size_t>(slot) * bytes, call.in[2].data + static_cast<std::size_t>(r) * bytes, bytes);
    }
  }

 private:
  static constexpr std::int64_t kCopy = 1 << 20;
  std::int64_t cells_, records_, width_;
  std::size_t unit_;
};

template <template <class> class K, class... A>
std::unique_ptr<Kernel> byFloat(DType dtype, const A&... a) {
  switch (dtype) {
    case DType::float64:
      return std::make_unique<K<double>>(a...);
    case DType::bfloat16:
      return std::make_unique<K<bf16>>(a...);
    default:
      return std::make_unique<K<float>>(a...);
  }
}

}  // namespace

std::unique_ptr<Kernel> makeRowNorms(const Spec& spec) {
  const RowNormsAttrs a = checkRowNorms(spec);
  return byFloat<RowNorms>(spec.in[0].dtype, spec.in[0], a.squared);
}

std::unique_ptr<Kernel> makeTakeScaled(const Spec& spec) {
  checkTakeScaled(spec);
  return byFloat<TakeScaled>(spec.in[0].dtype, spec.in[0], spec.in[1].dim(-1));
}

std::unique_ptr<Kernel> makePutRecords(const Spec& spec) {
  checkPutRecords(spec);
  return std::make_unique<PutRecords>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL
