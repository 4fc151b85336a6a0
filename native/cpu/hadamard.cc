// Fast Walsh-Hadamard transform of rows. Every output is the same tree of sums and differences at every level and for any threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "math/vec.h"
#include "attrs/hadamard.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

#if defined(STEEPEST_LEVEL_v4)
constexpr int kRegister = 64;
#elif defined(STEEPEST_LEVEL_v3)
constexpr int kRegister = 32;
#else
constexpr int kRegister = 16;
#endif

// A row up to this long is transformed in the first-level cache.
constexpr std::int64_t kBlock = 4096;
// Columns that a tile takes through the remaining stages of longer rows.
constexpr std::int64_t kColumns = 64;

template <class C>
struct Lanes {
  static constexpr int count = kRegister / static_cast<int>(sizeof(C));
  typedef C Reg __attribute__((vector_size(kRegister)));

  // All stages inside a register. That of distance H gives lane i the sum x[i] + x[i + H] or the difference x[i - H] - x[i].
  static void stages(Reg& x) { stage<1>(x, std::make_integer_sequence<int, count>()); }

 private:
  template <int H, int... I>
  static void stage(Reg& x, std::integer_sequence<int, I...> lanes) {
    constexpr Reg sign = {(I & H ? C(-1) : C(1))...};
    x = __builtin_shufflevector(x, x, (I ^ H)...) + sign * x;
    if constexpr (2 * H < count) stage<2 * H>(x, lanes);
  }
};

template <class C>
void butterflies(C* a, C* b, std::int64_t n) {
  using V = VecOf<C>;
  for (std::int64_t i = 0; i < n; i += V::kLanes) {
    const int lanes = static_cast<int>(std::min<std::int64_t>(V::kLanes, n - i));
    if (lanes == V::kLanes) {
      const V x = V::load(a + i), y = V::load(b + i);
      store(a + i, x + y);
      store(b + i, x - y);
    } else {
      const V x = V::load(a + i, lanes), y = V::load(b + i, lanes);
      store(a + i, x + y, lanes);
      store(b + i, x - y, lanes);
    }
  }
}

// All stages of a row that fits a block; two stages of distance h and 2h in one pass where both are left.
template <class C>
void transform(C* x, std::int64_t n) {
  using L = Lanes<C>;
  using V = VecOf<C>;
  std::int64_t h = 1;
  if (n >= L::count) {
    for (std::int64_t i = 0; i < n; i += L::count) {
      typename L::Reg r;
      std::memcpy(&r, x + i, sizeof r);
      L::stages(r);
      std::memcpy(x + i, &r, sizeof r);
    }
    h = L::count;
  }
  for (; h < V::kLanes && h < n; h *= 2) {
    for (std::int64_t i = 0; i < n; i += 2 * h) {
      for (std::int64_t j = i; j < i + h; ++j) {
        const C a = x[j], b = x[j + h];
        x[j] = a + b;
        x[j + h] = a - b;
      }
    }
  }
  for (; 4 * h <= n; h *= 4) {
    for (std::int64_t i = 0; i < n; i += 4 * h) {
      for (std::int64_t j = i; j < i + h; j += V::kLanes) {
        const V a = V::load(x + j), b = V::load(x + j + h), c = V::load(x + j + 2 * h), d = V::load(x + j + 3 * h);
        const V ab = a + b, a_b = a - b, cd = c + d, c_d = c - d;
        store(x + j, ab + cd);
        store(x + j + h, a_b + c_d);
        store(x + j + 2 * h, ab - cd);
        store(x + j + 3 * h, a_b - c_d);
      }
    }
  }
  for (; h < n; h *= 2) {
    for (std::int64_t i = 0; i < n; i += 2 * h) butterflies(x + i, x + i + h, h);
  }
}

template <class T, class C>
void copyScaled(const T* from, C* to, std::int64_t n, C scale) {
  using V = VecOf<C>;
  for (std::int64_t i = 0; i < n; i += V::kLanes) {
    const int lanes = static_cast<int>(std::min<std::int64_t>(V::kLanes, n - i));
    store(to + i, V::load(from + i, lanes) * V(scale), lanes);
  }
}

template <class C>
void copyOut(const C* from, bf16* to, std::int64_t n, C scale) {
  for (std::int64_t i = 0; i < n; i += vf::kLanes) {
    const int lanes = static_cast<int>(std::min<std::int64_t>(vf::kLanes, n - i));
    store(to + i, vf::load(from + i, lanes) * vf(scale), lanes);
  }
}

template <class C>
void scaleBy(C* x, std::int64_t n, C scale) {
  if (scale != C(1)) copyScaled(x, x, n, scale);
}

// T is what lies in memory, C what is computed with; bfloat16 rows pass through a float32 copy.
template <class T, class C>
class Hadamard final : public Kernel {
  static constexpr bool kCopy = !std::is_same_v<T, C>;

 public:
  Hadamard(const View& x, bool normalized)
      : n_(x.dim(-1)), rows_(x.size() / n_), scale_(normalized ? static_cast<C>(1 / std::sqrt(static_cast<double>(n_))) : C(1)) {
    if (kCopy && n_ > kBlock) workspace = static_cast<std::size_t>(n_) * sizeof(C);
  }

  void run(const Call& call) const override {
    const T* in = call.in[0].template as<T>();
    T* out = call.out[0].template as<T>();
    if (n_ <= kBlock) {
      const std::int64_t per = std::max<std::int64_t>(1, 2 * kBlock / n_);
      call.pool.run((rows_ + per - 1) / per, [&](std::int64_t tile, int) {
        for (std::int64_t row = tile * per; row < std::min(rows_, (tile + 1) * per); ++row) {
          if constexpr (kCopy) {
            alignas(64) C x[kBlock];
            copyScaled(in + row * n_, x, n_, C(1));
            transform(x, n_);
            copyOut(x, out + row * n_, n_, scale_);
          } else {
            C* x = out + row * n_;
            if (in != out) std::memcpy(x, in + row * n_, static_cast<std::size_t>(n_) * sizeof(C));
            transform(x, n_);
            scaleBy(x, n_, scale_);
          }
        }
      });
      return;
    }
    const std::int64_t blocks = n_ / kBlock, strips = kBlock / kColumns;
    // A copy serves one row at a time; without one all rows go together.
    const std::int64_t together = kCopy ? 1 : rows_;
    for (std::int64_t first = 0; first < rows_; first += together) {
      C* base;
      if constexpr (kCopy)
        base = reinterpret_cast<C*>(call.workspace);
      else
        base = out;
      call.pool.run(together * blocks, [&](std::int64_t tile, int) {
        C* x = base + tile * kBlock;
        if constexpr (kCopy)
          copyScaled(in + first * n_ + tile * kBlock, x, kBlock, C(1));
        else if (in != out)
          std::memcpy(x, in + tile * kBlock, kBlock * sizeof(C));
        transform(x, kBlock);
      });
      call.pool.run(together * strips, [&](std::int64_t tile, int) {
        C* x = base + tile / strips * n_ + tile % strips * kColumns;
        for (std::int64_t h = 1; h < blocks; h *= 2) {
          for (std::int64_t i = 0; i < blocks; i += 2 * h) {
            for (std::int64_t j = i; j < i + h; ++j) butterflies(x + j * kBlock, x + (j + h) * kBlock, kColumns);
          }
        }
        for (std::int64_t j = 0; j < blocks; ++j) {
          if constexpr (kCopy)
            copyOut(x + j * kBlock, out + first * n_ + tile * kColumns + j * kBlock, kColumns, scale_);
          else
            scaleBy(x + j * kBlock, kColumns, scale_);
        }
      });
    }
  }

 private:
  std::int64_t n_, rows_;
  C scale_;
};

}  // namespace

std::unique_ptr<Kernel> makeHadamard(const Spec& spec) {
  const HadamardAttrs attrs = HadamardAttrs::decode(spec.attrs);
  bool fine = spec.in.size() == 1 && spec.out.size() == 1;
  if (fine) {
    const View &x = spec.in[0], &y = spec.out[0];
    fine = x.rank >= 1 && x.dim(-1) > 0 && (x.dim(-1) & (x.dim(-1) - 1)) == 0 && isFloat(x.dtype) && x.dtype == y.dtype &&
           x.rank == y.rank && std::equal(x.shape, x.shape + x.rank, y.shape) && x.contiguous() && y.contiguous();
  }
  if (!fine) throw Error("PROGRAM", "hadamard takes and gives contiguous float rows, a power of two long");
  switch (spec.in[0].dtype) {
    case DType::float64:
      return std::make_unique<Hadamard<double, double>>(spec.in[0], attrs.normalized);
    case DType::bfloat16:
      return std::make_unique<Hadamard<bf16, float>>(spec.in[0], attrs.normalized);
    default:
      return std::make_unique<Hadamard<float, float>>(spec.in[0], attrs.normalized);
  }
}

}  // namespace steepest::STEEPEST_LEVEL
