// Kernels of `argsort`, `topK` and `searchsorted`: the orders of the CPU, which are total (key, then place).
#include "cpu/sort_keys.h"
#include "cuda/copy.cuh"
#include "cuda/sort.cuh"

namespace steepest::cuda {

namespace {

constexpr int kTogether = 2048;  // keys that one block sorts in shared memory

template <class T>
using KeyOf = typename SortKey<T>::Key;

// Rows may have any strides.
template <class T>
__global__ void __launch_bounds__(kThreads)
    keysOf(const T* x, const __grid_constant__ layout::Loops<1> rows, std::int64_t step, std::int64_t count, std::int64_t n,
           bool descending, KeyOf<T>* keys, std::int32_t* order) {
  for (std::int64_t i = threadOf(); i < count * n; i += threads()) {
    keys[i] = SortKey<T>::of(x[offsetOf(rows, i / n) + i % n * step], descending);
    if (order) order[i] = static_cast<std::int32_t>(i % n);
  }
}

// A block takes a piece of a row and gives its first `keep` in order. Without places those of the row are meant; without `toKeys` only
// places are given.
template <class Key>
__global__ void __launch_bounds__(kThreads) sortPieces(const Key* keys, const std::int32_t* order, Key* toKeys, std::int32_t* toOrder,
                                                       std::int64_t rows, std::int64_t n, int size, int keep) {
  __shared__ Key key[kTogether];
  __shared__ std::int32_t place[kTogether];
  const std::int64_t pieces = (n + kTogether - 1) / kTogether;
  for (std::int64_t block = blockIdx.x; block < rows * pieces; block += gridDim.x) {
    const std::int64_t row = block / pieces, begin = block % pieces * kTogether;
    for (int i = static_cast<int>(threadIdx.x); i < size; i += kThreads) {
      const bool there = begin + i < n;
      key[i] = there ? keys[row * n + begin + i] : ~Key(0);
      place[i] = !there  ? std::numeric_limits<std::int32_t>::max()
                 : order ? order[row * n + begin + i]
                         : static_cast<std::int32_t>(begin + i);
    }
    __syncthreads();
    for (int run = 2; run <= size; run *= 2) {
      for (int apart = run / 2; apart > 0; apart /= 2) {
        for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kThreads) {
          const int a = i / apart * 2 * apart + i % apart, b = a + apart;
          const bool up = (a & run) == 0, above = key[a] != key[b] ? key[a] > key[b] : place[a] > place[b];
          if (above != up) continue;
          const Key k = key[a];
          key[a] = key[b], key[b] = k;
          const std::int32_t p = place[a];
          place[a] = place[b], place[b] = p;
        }
        __syncthreads();
      }
    }
    for (int i = static_cast<int>(threadIdx.x); i < keep; i += kThreads) {
      if (toKeys) toKeys[block * keep + i] = key[i];
      toOrder[block * keep + i] = place[i];
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads)
    firstOfRows(const std::int32_t* from, std::int32_t* to, std::int64_t rows, std::int64_t n, std::int64_t k) {
  for (std::int64_t i = threadOf(); i < rows * k; i += threads()) to[i] = from[i / k * n + i % k];
}

int powerAbove(std::int64_t n) {
  int size = 2;
  while (size < n && size < kTogether) size *= 2;
  return size;
}

// The k first of every row: blocks sort pieces and keep as many of each, until there is one; where k is a large part of a piece, all is
// sorted.
template <class T>
class First final : public Kernel {
 public:
  using Key = KeyOf<T>;

  First(const View& x, std::int64_t k, bool descending)
      : count_(rowsOf(x)), n_(x.dim(-1)), k_(k), step_(x.stride(-1)), descending_(descending) {
    for (int i = 0; i < x.rank - 1; ++i) rows_.add(x.shape[i], {x.strides[i]});
    pieces_ = n_ <= kTogether || 4 * k_ <= kTogether;
    if (!pieces_) {
      workspace = Sorting<Key>::bytes(count_, n_);
    } else {
      // Two lists of what is left take turns; only the first may be longer than the second.
      kept_ = static_cast<std::size_t>(count_ * ceilDiv<std::int64_t>(n_, kTogether) * k_);
      workspace =
          static_cast<std::size_t>(count_ * n_) * sizeof(Key) + (n_ <= kTogether ? 0 : kept_ * 2 * (sizeof(Key) + sizeof(std::int32_t)));
    }
  }

  void run(const Call& call) const override {
    if (count_ * k_ == 0) return;
    std::int32_t* out = call.out[0].as<std::int32_t>();
    const auto keys = [&](Key* to, std::int32_t* order) {
      STEEPEST_LAUNCH(keysOf<T>, gridFor(count_ * n_), kThreads, 0, call, call.in[0].as<T>(), rows_, step_, count_, n_, descending_, to,
                      order);
    };
    if (!pieces_) {
      Sorting<Key> sorting(call.workspace, count_, n_);
      keys(sorting.keys, sorting.order);
      sorting.run(call, SortKey<T>::passes);
      STEEPEST_LAUNCH(firstOfRows, gridFor(count_ * k_), kThreads, 0, call, sorting.order, out, count_, n_, k_);
      return;
    }
    const Key* from = reinterpret_cast<Key*>(call.workspace);
    keys(reinterpret_cast<Key*>(call.workspace), nullptr);
    Key* other[2] = {reinterpret_cast<Key*>(call.workspace) + count_ * n_, nullptr};
    other[1] = other[0] + kept_;
    std::int32_t* orders[2] = {reinterpret_cast<std::int32_t*>(other[1] + kept_), nullptr};
    orders[1] = orders[0] + kept_;
    const std::int32_t* order = nullptr;
    const int keep = static_cast<int>(k_);
    std::int64_t n = n_;
    for (int turn = 0; n > kTogether; turn ^= 1) {
      const std::int64_t pieces = ceilDiv<std::int64_t>(n, kTogether);
      STEEPEST_LAUNCH(sortPieces<Key>, blocksFor(count_ * pieces, 1), kThreads, 0, call, from, order, other[turn], orders[turn], count_, n,
                      kTogether, keep);
      from = other[turn], order = orders[turn];
      n = pieces * k_;
    }
    STEEPEST_LAUNCH(sortPieces<Key>, blocksFor(count_, 1), kThreads, 0, call, from, order, static_cast<Key*>(nullptr), out, count_, n,
                    powerAbove(n), keep);
  }

 private:
  layout::Loops<1> rows_;
  std::int64_t count_, n_, k_, step_;
  bool descending_, pieces_;
  std::size_t kept_ = 0;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    search(const T* sorted, const T* values, std::int32_t* out, std::int64_t size, std::int64_t n, std::int64_t m, bool right) {
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    const T* row = sorted + i / m * n;
    const auto key = SortKey<T>::of(values[i], false);
    std::int64_t low = 0, high = n;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      const auto there = SortKey<T>::of(row[middle], false);
      if (there < key || (right && there == key))
        low = middle + 1;
      else
        high = middle;
    }
    out[i] = static_cast<std::int32_t>(low);
  }
}

template <class T>
class Search final : public Kernel {
 public:
  explicit Search(bool right) : right_(right) {}
  void run(const Call& call) const override {
    const std::int64_t size = call.out[0].size();
    STEEPEST_LAUNCH(search<T>, gridFor(size), kThreads, 0, call, call.in[0].as<T>(), call.in[1].as<T>(), call.out[0].as<std::int32_t>(),
                    size, call.in[0].dim(-1), call.in[1].dim(-1), right_);
  }

 private:
  bool right_;
};

template <template <class> class K, class... A>
std::unique_ptr<Kernel> forDtype(DType dtype, const A&... args) {
  switch (dtype) {
    case DType::float32:
      return std::make_unique<K<float>>(args...);
    case DType::bfloat16:
      return std::make_unique<K<bf16>>(args...);
    case DType::float64:
      return std::make_unique<K<double>>(args...);
    case DType::int32:
      return std::make_unique<K<std::int32_t>>(args...);
    default:
      return std::make_unique<K<std::uint8_t>>(args...);
  }
}

}  // namespace

std::unique_ptr<Kernel> makeArgsort(const Spec& spec) {
  const bool descending = checkArgsort(spec).descending;
  return forDtype<First>(spec.in[0].dtype, spec.in[0], spec.in[0].dim(-1), descending);
}

std::unique_ptr<Kernel> makeTopK(const Spec& spec) {
  const TopKAttrs a = checkTopK(spec);
  return forDtype<First>(spec.in[0].dtype, spec.in[0], a.k, a.largest);
}

std::unique_ptr<Kernel> makeSearchsorted(const Spec& spec) {
  const bool right = checkSearchsorted(spec).right;
  return forDtype<Search>(spec.in[0].dtype, right);
}

}  // namespace steepest::cuda
