// What the kernels of attention share. A block of 256 threads makes a tile of scores: kTile rows by kTile columns, of which every thread
// has the 16 bytes' worth of neighbours in both directions (4 × 4 in float32). Queries, keys and values come through shared memory, a piece
// of the depth at a time; the tile of weights goes through it once more to be multiplied with rows of values.
#pragma once

#include "cpu/attention_checks.h"
#include "cuda/pack.cuh"
#include "cuda/device.cuh"

namespace steepest::cuda {

constexpr int kEdge = 16;  // threads along an edge of a tile
template <class S>
constexpr int kTile = kEdge * kGroup<S>;
// Of the depth, or of the rows that are mixed, at a time.
template <class S>
constexpr int kPiece = kTile<S> / 2;
// A row of shared memory is a group longer than a tile, so that columns fall into different banks.
template <class S>
constexpr int kShared = kTile<S> + kGroup<S>;

// An operand [batch, rows, heads, depth] with any strides, in elements.
struct Strided {
  void* data = nullptr;
  std::int64_t batch = 0, row = 0, head = 0, column = 0;
  bool narrow = false, wide = false;  // bfloat16; groups are aligned

  Strided() = default;
  explicit Strided(const View& v)
      : data(v.data), batch(v.strides[0]), row(v.strides[1]), head(v.strides[2]), column(v.strides[3]), narrow(v.dtype == DType::bfloat16) {
    const std::int64_t unit = static_cast<std::int64_t>(sizeOf(v.dtype)), group = v.dtype == DType::float64 ? 2 : 4;
    wide = column == 1 && reinterpret_cast<std::uintptr_t>(data) % static_cast<std::uintptr_t>(unit * group) == 0 && batch % group == 0 &&
           row % group == 0 && head % group == 0;
  }
};

// The rows of one head.
template <class S>
struct HeadRows {
  const Strided& s;  // in the memory of the kernel's parameters, which costs no registers
  std::int64_t first;
  int count, depth;

  __device__ HeadRows(const Strided& operand, int b, int h, int rows, int columns)
      : s(operand), first(b * operand.batch + h * operand.head), count(rows), depth(columns) {}

  // Neighbours from column d of row i; zeros beyond the ends.
  __device__ Group<S> at(int i, int d) const {
    constexpr int G = kGroup<S>;
    Group<S> g;
    const std::int64_t from = first + i * s.row + d * s.column;
    const int n = i < count && d < depth ? min(depth - d, G) : 0;
    if constexpr (std::is_same_v<S, float>) {
      if (s.column == 1) {
        numbers4(fetch4(s.data, s.narrow, from, n, s.wide), s.narrow, g.v);
        return g;
      }
    } else if (s.wide && n == G) {
      return readGroup(static_cast<const S*>(s.data) + from);
    }
#pragma unroll
    for (int j = 0; j < G; ++j) g.v[j] = j < n ? one(from + j * s.column) : S(0);
    return g;
  }
  // Stores neighbours where there are such columns.
  __device__ void put(int i, int d, const Group<S>& g) const {
    constexpr int G = kGroup<S>;
    if (i >= count || d >= depth) return;
    const std::int64_t at = first + i * s.row + d;
    const int n = min(depth - d, G);
    if constexpr (std::is_same_v<S, float>) {
      if (s.narrow) {
        std::uint32_t bits[G];
#pragma unroll
        for (int j = 0; j < G; ++j) bits[j] = toBf16(g.v[j]).bits;
        put4(static_cast<bf16*>(s.data), at, n, s.wide, bits);
      } else {
        put4(static_cast<float*>(s.data), at, n, s.wide, g.v);
      }
    } else {
      for (int j = 0; j < n; ++j) static_cast<S*>(s.data)[at + j] = g.v[j];
    }
  }

 private:
  __device__ S one(std::int64_t i) const {
    if constexpr (std::is_same_v<S, float>) {
      if (s.narrow) return toFloat(static_cast<const bf16*>(s.data)[i]);
    }
    return static_cast<const S*>(s.data)[i];
  }
};

// Places are counted in int; what is longer than this no memory holds.
constexpr std::int64_t kMostPlaces = std::int64_t{1} << 29;

struct Sizes {
  int batch, queries, keys, heads, keyHeads, depth;

  Sizes(const AttentionShape& s)
      : batch(lengthOf(s.batch)),
        queries(lengthOf(s.queries)),
        keys(lengthOf(s.keys)),
        heads(lengthOf(s.heads)),
        keyHeads(lengthOf(s.keyHeads)),
        depth(lengthOf(s.depth)) {}
  static int lengthOf(std::int64_t n) {
    require(n <= kMostPlaces, "attention: an axis is longer than 2^29");
    return static_cast<int>(n);
  }
};

// Everything that a kernel is told; data is filled in when it runs.
struct AttentionTask {
  Sizes sizes;
  int share;        // heads of queries to one of keys
  int left, right;  // keys before and after a query's place; -1: no limit
  double scale, softCap, inverseCap, kept;
  std::uint64_t threshold;  // of bits that drop a weight
  std::uint32_t site;
  std::int64_t examples;
  const std::int32_t *querySegments = nullptr, *keySegments = nullptr, *keys = nullptr, *ids = nullptr;
  const std::uint8_t* keyMask = nullptr;
  const void* bias = nullptr;
  std::int64_t biasBatch = 0, biasHead = 0, biasRow = 0, biasColumn = 0;
  bool biasNarrow = false, eachKey = false;
  Strided q, k, v, out, dout, dq, dk, dv;
  void *lse = nullptr, *delta = nullptr, *dbias = nullptr;
  int dbiasBatch = 1, dbiasHeads = 1;

  AttentionTask(const AttentionShape& s, const AttentionOptions& o)
      : sizes(s),
        share(static_cast<int>(s.share())),
        left(static_cast<int>(std::min(o.left, kMostPlaces))),
        right(o.causal ? 0 : static_cast<int>(std::min(o.right, kMostPlaces))),
        scale(o.scale),
        softCap(o.softCap),
        inverseCap(o.softCap > 0 ? 1 / o.softCap : 0),
        kept(1 / (1 - o.rate)),
        threshold(o.dropout ? philoxThreshold(o.rate) : 0),
        site(static_cast<std::uint32_t>(o.site)),
        examples(o.examples) {}

  // The optional operands begin at `at`.
  void take(std::span<const View> in, std::size_t at, const AttentionOptions& o) {
    q = Strided(in[0]), k = Strided(in[1]), v = Strided(in[2]);
    const AttentionOperands given(in, at, o);
    if (given.querySegments) {
      querySegments = given.querySegments->as<std::int32_t>();
      keySegments = given.keySegments->as<std::int32_t>();
    }
    if (given.keyMask) keyMask = given.keyMask->as<std::uint8_t>();
    if (const View* b = given.bias) {
      bias = b->data;
      biasNarrow = b->dtype == DType::bfloat16;
      biasBatch = b->shape[0] == 1 ? 0 : b->strides[0];
      biasHead = b->shape[1] == 1 ? 0 : b->strides[1];
      biasRow = b->strides[2], biasColumn = b->strides[3];
    }
    if (given.key) keys = given.key->as<std::int32_t>(), eachKey = given.key->rank == 2;
    if (given.ids) ids = given.ids->as<std::int32_t>();
  }
};

// Whether dropout leaves the weight of query t and key j: the draws of the CPU.
__device__ inline bool staysOf(const AttentionTask& a, int b, int h, int t, int j) {
  const std::int32_t* words = a.keys + (a.eachKey ? 2 * b : 0);
  const PhiloxKey key{static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1])};
  const std::int64_t example = a.ids ? 0 : b % a.examples;
  const std::int64_t i = ((example * a.sizes.heads + h) * a.sizes.queries + t) * a.sizes.keys + j;
  const std::uint32_t id = a.ids ? static_cast<std::uint32_t>(a.ids[b]) : 0u;
  return philoxBits(key, static_cast<std::uint64_t>(i), id, a.site, Stream::attention) >= a.threshold;
}

// Not in line: a thread has up to 16 scores, and most models have neither dropout nor a cap of the scores.
__attribute__((noinline)) __device__ inline bool stays(const AttentionTask& a, int b, int h, int t, int j) {
  return staysOf(a, b, h, t, j);
}
template <class S>
__attribute__((noinline)) __device__ S bentOf(S x) {
  return tanh(VecOf<S>(x)).v;
}

// What becomes of the product of query t and key j of one head.
template <class S>
struct Scores {
  const AttentionTask& a;
  int b, h;

  __device__ bool sees(int t, int j) const {
    const Sizes& s = a.sizes;
    if (t >= s.queries || j >= s.keys) return false;
    const int place = t + (s.keys - s.queries);
    if ((a.left >= 0 && j < place - a.left) || (a.right >= 0 && j > place + a.right)) return false;
    if (a.keySegments && a.querySegments[std::int64_t{b} * s.queries + t] != a.keySegments[std::int64_t{b} * s.keys + j]) return false;
    return !a.keyMask || a.keyMask[std::int64_t{b} * s.keys + j];
  }
  // The score, and the derivative of its cap.
  __device__ S score(S product, int t, int j, S& slope) const {
    S x = product * static_cast<S>(a.scale);
    slope = 1;
    if (a.softCap > 0) {
      const S bent = bentOf(x * static_cast<S>(a.inverseCap));
      x = static_cast<S>(a.softCap) * bent;
      slope = S(1) - bent * bent;
    }
    if (a.bias) {
      const std::int64_t at = b * a.biasBatch + h * a.biasHead + t * a.biasRow + j * a.biasColumn;
      if constexpr (std::is_same_v<S, float>) {
        x += a.biasNarrow ? toFloat(static_cast<const bf16*>(a.bias)[at]) : static_cast<const float*>(a.bias)[at];
      } else {
        x += static_cast<const S*>(a.bias)[at];
      }
    }
    return x;
  }
  // What dropout makes of a weight of 1.
  __device__ S factor(int t, int j) const { return !a.keys ? S(1) : stays(a, b, h, t, j) ? static_cast<S>(a.kept) : S(0); }
};

template <class S>
__device__ inline S expOf(S x) {
  return exp(VecOf<S>(x)).v;
}

// Keys that queries [t, t + kTile) can see by their places, from the beginning of a tile.
struct Span {
  int begin, end;
};
template <class S>
__device__ inline Span keysOf(const AttentionTask& a, int t) {
  const Sizes& s = a.sizes;
  const int shift = s.keys - s.queries, last = min(t + kTile<S>, s.queries) - 1;
  const int begin = a.left >= 0 ? max(0, t + shift - a.left) : 0;
  return {begin / kTile<S> * kTile<S>, a.right >= 0 ? min(s.keys, last + shift + a.right + 1) : s.keys};
}
// Queries that can see keys [j, j + kTile).
template <class S>
__device__ inline Span queriesOf(const AttentionTask& a, int j) {
  const Sizes& s = a.sizes;
  const int shift = s.keys - s.queries, last = min(j + kTile<S>, s.keys) - 1;
  const int begin = a.right >= 0 ? max(0, j - shift - a.right) : 0;
  return {begin / kTile<S> * kTile<S>, a.left >= 0 ? min(s.queries, last - shift + a.left + 1) : s.queries};
}

// The tile, the part of the depth, the head and the example of a block, heads fastest.
template <class S, int Parts>
struct Block {
  int tile, column, h, b;
  __device__ Block(const Sizes& s, int heads) {
    const int blocks = max(1, (s.depth + Parts * kTile<S> - 1) / (Parts * kTile<S>));
    unsigned at = blockIdx.x;
    h = static_cast<int>(at % heads), at /= heads;
    b = static_cast<int>(at % s.batch), at /= s.batch;
    column = static_cast<int>(at % blocks) * Parts * kTile<S>;
    tile = static_cast<int>(at / blocks);
  }
  static std::int64_t count(const AttentionShape& s, std::int64_t rows, std::int64_t heads) {
    const std::int64_t blocks = std::max<std::int64_t>(1, ceilDiv<std::int64_t>(s.depth, Parts * kTile<S>));
    return ceilDiv<std::int64_t>(rows, kTile<S>) * blocks * s.batch * heads;
  }
};

// This thread's part of a tile.
template <class S>
struct Tile {
  static constexpr int G = kGroup<S>;
  S v[G][G];
};
template <class S>
__device__ inline int tileRow() {
  return static_cast<int>(threadIdx.x) / kEdge * kGroup<S>;
}
template <class S>
__device__ inline int tileColumn() {
  return static_cast<int>(threadIdx.x) % kEdge * kGroup<S>;
}

// Rows [first, first + kTile) and columns [d, d + kPiece) into shared memory, columns first. Neighbouring threads take two groups of a row:
// whole sectors of memory, and different banks.
template <class S>
__device__ inline void stageAcross(S* to, const HeadRows<S>& from, int first, int d) {
  constexpr int G = kGroup<S>, T = kTile<S>;
#pragma unroll
  for (int at = static_cast<int>(threadIdx.x); at < T * kPiece<S> / G; at += kThreads) {
    const int group = at % 2 + at / (2 * T) * 2, i = at / 2 % T;
    const Group<S> g = from.at(first + i, d + group * G);
#pragma unroll
    for (int j = 0; j < G; ++j) to[(group * G + j) * kShared<S> + i] = g.v[j];
  }
}

// A piece of the depth of two operands; later a piece of the rows that are mixed.
template <class S>
constexpr int kStaging = 2 * kPiece<S> * kShared<S>;
template <class S>
constexpr int kWeights = kTile<S> * kShared<S>;

// The products of rows of a and rows of b.
template <class S>
__device__ inline void dots(Tile<S>& sums, const HeadRows<S>& a, int firstA, const HeadRows<S>& b, int firstB, S* staging) {
  constexpr int G = kGroup<S>;
  S *const left = staging, *const right = staging + kPiece<S> * kShared<S>;
#pragma unroll
  for (int i = 0; i < G; ++i) {
#pragma unroll
    for (int j = 0; j < G; ++j) sums.v[i][j] = 0;
  }
  int d = 0;
  do {
    __syncthreads();
    stageAcross(left, a, firstA, d);
    stageAcross(right, b, firstB, d);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kPiece<S>; ++k) {
      const Group<S> u = readGroup(left + k * kShared<S> + tileRow<S>()), v = readGroup(right + k * kShared<S> + tileColumn<S>());
#pragma unroll
      for (int i = 0; i < G; ++i) {
#pragma unroll
        for (int j = 0; j < G; ++j) sums.v[i][j] = std::fma(u.v[i], v.v[j], sums.v[i][j]);
      }
    }
    d += kPiece<S>;
  } while (d < a.depth);
}

// Writes a tile for `mix`, columns first. What was there before must have been read.
template <class S>
__device__ inline void keep(S* weights, const Tile<S>& tile) {
  constexpr int G = kGroup<S>;
#pragma unroll
  for (int j = 0; j < G; ++j) {
    Group<S> g;
#pragma unroll
    for (int i = 0; i < G; ++i) g.v[i] = tile.v[i][j];
    writeGroup(weights + (tileColumn<S>() + j) * kShared<S> + tileRow<S>(), g);
  }
}

// sums[c] += the kept tile times rows [first, first + kTile), columns from `column`: those of the tile's place in part c.
template <class S, int Parts>
__device__ inline void mix(Tile<S> (&sums)[Parts], const S* weights, const HeadRows<S>& rows, int first, int column, S* staging) {
  constexpr int G = kGroup<S>, kWidth = Parts * kTile<S>;
  static_assert(kPiece<S> * kWidth <= kStaging<S>);
  for (int from = 0; from < kTile<S> && first + from < rows.count; from += kPiece<S>) {
    __syncthreads();
#pragma unroll
    for (int at = static_cast<int>(threadIdx.x); at < kPiece<S> * kWidth / G; at += kThreads) {
      const int i = at / (kWidth / G), group = at % (kWidth / G);
      writeGroup(staging + i * kWidth + group * G, rows.at(first + from + i, column + group * G));
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kPiece<S>; ++k) {
      const Group<S> u = readGroup(weights + (from + k) * kShared<S> + tileRow<S>());
#pragma unroll
      for (int c = 0; c < Parts; ++c) {
        const Group<S> v = readGroup(staging + k * kWidth + c * kTile<S> + tileColumn<S>());
#pragma unroll
        for (int i = 0; i < G; ++i) {
#pragma unroll
          for (int j = 0; j < G; ++j) sums[c].v[i][j] = std::fma(u.v[i], v.v[j], sums[c].v[i][j]);
        }
      }
    }
  }
}

// Rows of a block's sums, each times its own factor, to memory.
template <class S, int Parts, class F>
__device__ inline void give(const Tile<S> (&sums)[Parts], const HeadRows<S>& to, int first, int column, F factor) {
  constexpr int G = kGroup<S>;
#pragma unroll
  for (int i = 0; i < G; ++i) {
    const S f = factor(i);
#pragma unroll
    for (int c = 0; c < Parts; ++c) {
      Group<S> g;
#pragma unroll
      for (int j = 0; j < G; ++j) g.v[j] = sums[c].v[i][j] * f;
      to.put(first + tileRow<S>() + i, column + c * kTile<S> + tileColumn<S>(), g);
    }
  }
}

template <class S, int Parts>
__device__ inline void clear(Tile<S> (&sums)[Parts]) {
#pragma unroll
  for (int c = 0; c < Parts; ++c) {
#pragma unroll
    for (int i = 0; i < kGroup<S>; ++i) {
#pragma unroll
      for (int j = 0; j < kGroup<S>; ++j) sums[c].v[i][j] = 0;
    }
  }
}

// Calls f(S{}, parts): blocks sum up to 2 tiles of columns; what is deeper takes more blocks, which make the same scores.
template <class F>
void byDepth(const AttentionShape& s, F&& f) {
  if (s.type == DType::float64)
    f(double{}, std::integral_constant<int, 2>{});
  else if (s.depth <= kTile<float>)
    f(float{}, std::integral_constant<int, 1>{});
  else
    f(float{}, std::integral_constant<int, 2>{});
}
}  // namespace steepest::cuda
