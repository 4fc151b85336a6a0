// argsort, topK and searchsorted. Orders are total (key, then index), so they are the same however they are found.
#include <algorithm>

#include "sort_radix.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

// Calls body(row, thread) for every row, several short rows to a tile.
template <class F>
void eachRow(Pool& pool, std::int64_t rows, std::int64_t n, F&& body) {
  const std::int64_t per = std::max<std::int64_t>(1, 8192 / std::max<std::int64_t>(1, n));
  pool.run((rows + per - 1) / per, [&](std::int64_t tile, int thread) {
    for (std::int64_t row = tile * per; row < std::min(rows, (tile + 1) * per); ++row) body(row, thread);
  });
}

template <class T>
class Argsort final : public Kernel {
 public:
  Argsort(const Spec& spec, bool descending) : sorter_(spec.in[0].dim(-1)), descending_(descending) {
    workspace = sorter_.bytes() * (sorter_.together() ? 1 : spec.threads);
  }
  void run(const Call& call) const override {
    const View& x = call.in[0];
    const std::int64_t n = x.dim(-1), rows = rowsOf(x), step = x.stride(-1);
    std::int32_t* order = call.out[0].as<std::int32_t>();
    if (n == 0) return;
    if (sorter_.together()) {
      for (std::int64_t row = 0; row < rows; ++row) {
        sorter_.sortTogether(x.as<T>() + rowStart(x, row), step, descending_, call.workspace, call.pool, order + row * n);
      }
      return;
    }
    eachRow(call.pool, rows, n, [&](std::int64_t row, int thread) {
      sorter_.sort(x.as<T>() + rowStart(x, row), step, descending_, call.workspace + sorter_.bytes() * thread, order + row * n);
    });
  }

 private:
  RadixSorter<T> sorter_;
  bool descending_;
};

// The k first of the order in a bounded heap per piece of a row, then over the pieces; where k is a large part of the row, a full sort.
template <class T>
class TopK final : public Kernel {
 public:
  using Key = typename SortKey<T>::Key;
  using Entry = Ranked<Key>;
  static constexpr std::int64_t kPiece = 1 << 16;

  TopK(const Spec& spec, std::int64_t k, bool largest) : sorter_(spec.in[0].dim(-1)), n_(spec.in[0].dim(-1)), k_(k), largest_(largest) {
    heaps_ = k_ <= 1024 && k_ * 4 <= n_;
    pieces_ = heaps_ ? (n_ + kPiece - 1) / kPiece : 1;
    const std::size_t order = align(static_cast<std::size_t>(n_) * 4);
    if (heaps_) {
      workspace = align(static_cast<std::size_t>(k_) * sizeof(Entry)) * (pieces_ > 1 ? pieces_ : spec.threads);
    } else {
      workspace = (sorter_.bytes() + order) * (sorter_.together() ? 1 : spec.threads);
    }
  }

  void run(const Call& call) const override {
    const View& x = call.in[0];
    const std::int64_t rows = rowsOf(x), step = x.stride(-1);
    std::int32_t* out = call.out[0].as<std::int32_t>();
    if (k_ == 0) return;
    const auto at = [&](std::int64_t row) { return x.as<T>() + rowStart(x, row); };
    if (!heaps_) {
      const std::size_t each = sorter_.bytes() + align(static_cast<std::size_t>(n_) * 4);
      const auto take = [&](std::int64_t row, std::byte* scratch, auto&& sort) {
        std::int32_t* order = reinterpret_cast<std::int32_t*>(scratch + sorter_.bytes());
        sort(order);
        std::copy(order, order + k_, out + row * k_);
      };
      if (sorter_.together()) {
        for (std::int64_t row = 0; row < rows; ++row) {
          take(row, call.workspace,
               [&](std::int32_t* order) { sorter_.sortTogether(at(row), step, largest_, call.workspace, call.pool, order); });
        }
      } else {
        eachRow(call.pool, rows, n_, [&](std::int64_t row, int thread) {
          std::byte* scratch = call.workspace + each * thread;
          take(row, scratch, [&](std::int32_t* order) { sorter_.sort(at(row), step, largest_, scratch, order); });
        });
      }
      return;
    }
    const std::size_t each = align(static_cast<std::size_t>(k_) * sizeof(Entry));
    const auto heap = [&](std::int64_t i) { return reinterpret_cast<Entry*>(call.workspace + each * i); };
    if (pieces_ == 1) {
      eachRow(call.pool, rows, n_, [&](std::int64_t row, int thread) {
        std::int64_t size = 0;
        select(at(row), step, 0, n_, heap(thread), size);
        finish(heap(thread), out + row * k_);
      });
      return;
    }
    for (std::int64_t row = 0; row < rows; ++row) {
      // Every piece but the last has kPiece >= k elements; the last may have fewer and is merged by its own count.
      call.pool.run(pieces_, [&](std::int64_t piece, int) {
        std::int64_t size = 0;
        select(at(row), step, piece * kPiece, std::min(n_, (piece + 1) * kPiece), heap(piece), size);
      });
      std::int64_t size = k_;
      for (std::int64_t piece = 1; piece < pieces_; ++piece) {
        const std::int64_t have = std::min(k_, std::min(n_, (piece + 1) * kPiece) - piece * kPiece);
        for (std::int64_t i = 0; i < have; ++i) offer(heap(0), size, heap(piece)[i]);
      }
      finish(heap(0), out + row * k_);
    }
  }

 private:
  static std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  static void sink(Entry* heap, std::int64_t size, std::int64_t at) {
    const Entry mine = heap[at];
    for (;;) {
      std::int64_t child = 2 * at + 1;
      if (child >= size) break;
      if (child + 1 < size && heap[child + 1] > heap[child]) ++child;
      if (heap[child] <= mine) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = mine;
  }

  // The heap holds the smallest entries so far, the largest of them on top.
  void offer(Entry* heap, std::int64_t& size, Entry entry) const {
    if (size < k_) {
      std::int64_t at = size++;
      for (; at > 0 && heap[(at - 1) / 2] < entry; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
      heap[at] = entry;
    } else if (entry < heap[0]) {
      heap[0] = entry;
      sink(heap, size, 0);
    }
  }

  void select(const T* x, std::int64_t step, std::int64_t begin, std::int64_t end, Entry* heap, std::int64_t& size) const {
    for (std::int64_t i = begin; i < end; ++i) offer(heap, size, ranked(SortKey<T>::of(x[i * step], largest_), i));
  }

  void finish(Entry* heap, std::int32_t* out) const {
    for (std::int64_t size = k_ - 1; size > 0; --size) {
      std::swap(heap[0], heap[size]);
      sink(heap, size, 0);
    }
    for (std::int64_t i = 0; i < k_; ++i) out[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(heap[i]));
  }

  RadixSorter<T> sorter_;
  std::int64_t n_, k_, pieces_;
  bool largest_, heaps_;
};

template <class T>
class Searchsorted final : public Kernel {
 public:
  explicit Searchsorted(bool right) : right_(right) {}
  void run(const Call& call) const override {
    const T* sorted = call.in[0].as<T>();
    const T* values = call.in[1].as<T>();
    std::int32_t* out = call.out[0].as<std::int32_t>();
    const std::int64_t n = call.in[0].dim(-1), m = call.in[1].dim(-1), total = call.out[0].size();
    constexpr std::int64_t kTile = 2048;
    call.pool.run((total + kTile - 1) / kTile, [&](std::int64_t tile, int) {
      for (std::int64_t i = tile * kTile; i < std::min(total, (tile + 1) * kTile); ++i) {
        const T* row = sorted + i / m * n;
        const auto key = SortKey<T>::of(values[i], false);
        std::int64_t low = 0, high = n;
        while (low < high) {
          const std::int64_t middle = (low + high) / 2;
          const auto there = SortKey<T>::of(row[middle], false);
          if (there < key || (right_ && there == key))
            low = middle + 1;
          else
            high = middle;
        }
        out[i] = static_cast<std::int32_t>(low);
      }
    });
  }

 private:
  bool right_;
};

template <template <class> class K, class... A>
std::unique_ptr<Kernel> forDtype(DType dtype, A&&... args) {
  switch (dtype) {
    case DType::float32:
      return std::make_unique<K<float>>(args...);
    case DType::bfloat16:
      return std::make_unique<K<bf16>>(args...);
    case DType::float64:
      return std::make_unique<K<double>>(args...);
    case DType::int32:
      return std::make_unique<K<std::int32_t>>(args...);
    case DType::uint8:
      return std::make_unique<K<std::uint8_t>>(args...);
  }
  refuseSort("unknown dtype");
}

}  // namespace

std::unique_ptr<Kernel> makeArgsort(const Spec& spec) {
  const ArgsortAttrs a = checkArgsort(spec);
  return forDtype<Argsort>(spec.in[0].dtype, spec, a.descending);
}

std::unique_ptr<Kernel> makeTopK(const Spec& spec) {
  const TopKAttrs a = checkTopK(spec);
  return forDtype<TopK>(spec.in[0].dtype, spec, a.k, a.largest);
}

std::unique_ptr<Kernel> makeSearchsorted(const Spec& spec) {
  const SearchsortedAttrs a = checkSearchsorted(spec);
  return forDtype<Searchsorted>(spec.in[0].dtype, a.right);
}

}  // namespace steepest::STEEPEST_LEVEL
