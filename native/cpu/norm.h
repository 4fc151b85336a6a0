// What the row kernels (softmax, norms, losses) share: walking a row by vectors, with fixed lanes and a fixed tree of sums.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "math/functions.h"
#include "math/vec.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

inline void require(bool holds, const char* what) {
  if (!holds) throw Error("PROGRAM", what);
}

inline bool sameShape(const View& a, const View& b) { return a.rank == b.rank && std::equal(a.shape, a.shape + a.rank, b.shape); }

// `a` has the leading axes of `b`, all but the last `trailing`.
inline bool leads(const View& a, const View& b, int trailing) {
  return a.rank == b.rank - trailing && std::equal(a.shape, a.shape + a.rank, b.shape);
}

// Operands of softmax and of its derivative.
inline void checkSoftmax(const Spec& spec, std::size_t inputs) {
  require(spec.in.size() == inputs && spec.out.size() == 1, "softmax: wrong number of operands");
  require(spec.in[0].rank >= 1 && isFloat(spec.in[0].dtype), "softmax: needs floats of rank 1 or more");
  for (const View& v : spec.in)
    require(sameShape(v, spec.in[0]) && v.dtype == spec.in[0].dtype && v.contiguous(), "softmax: operands differ");
  require(sameShape(spec.out[0], spec.in[0]) && spec.out[0].dtype == spec.in[0].dtype, "softmax: wrong output");
}

// Arithmetic of a storage type: its vector and the scalar of that.
template <class T>
struct Math {
  using V = VecOf<T>;
  using S = typename V::Scalar;
};

inline DType statistics(DType t) { return t == DType::float64 ? DType::float64 : DType::float32; }

// A member named store would hide the functions that are found by argument.
template <class T, class V>
inline void put(T* p, V v) {
  store(p, v);
}
template <class T, class V>
inline void put(T* p, V v, int n) {
  store(p, v, n);
}

template <class V>
inline typename V::Scalar firstLane(V v) {
  typename V::Scalar lanes[V::kLanes];
  store(lanes, v);
  return lanes[0];
}

// Access to a whole vector, and to the first n lanes of one.
template <class V>
struct Full {
  template <class T>
  V load(const T* p) const {
    return V::load(p);
  }
  template <class T>
  void store(T* p, V v) const {
    put(p, v);
  }
  V pad(V v, V) const { return v; }
};
template <class V>
struct Part {
  int n;
  template <class T>
  V load(const T* p) const {
    return V::load(p, n);
  }
  template <class T>
  void store(T* p, V v) const {
    put(p, v, n);
  }
  // The lanes past the end become those of `other`.
  V pad(V v, V other) const { return select(V::iota() < V(static_cast<typename V::Scalar>(n)), v, other); }
};

// f(width, i) for every vector of a row of n.
template <class V, class F>
inline void eachVector(std::int64_t n, F&& f) {
  std::int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) f(Full<V>{}, i);
  if (i < n) f(Part<V>{static_cast<int>(n - i)}, i);
}

// Folds f(width, i) over a row by `join`, from `start`; f pads the lanes past the end with what `join` ignores.
template <class V, class F, class J>
inline V foldVectors(std::int64_t n, V start, F&& f, J&& join) {
  constexpr int L = V::kLanes;
  V a = start, b = start, c = start, d = start;
  std::int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    a = join(a, f(Full<V>{}, i));
    b = join(b, f(Full<V>{}, i + L));
    c = join(c, f(Full<V>{}, i + 2 * L));
    d = join(d, f(Full<V>{}, i + 3 * L));
  }
  for (; i + L <= n; i += L) a = join(a, f(Full<V>{}, i));
  if (i < n) b = join(b, f(Part<V>{static_cast<int>(n - i)}, i));
  return join(join(a, b), join(c, d));
}

template <class V, class F>
inline V sumVectors(std::int64_t n, F&& f) {
  return foldVectors<V>(n, V(0), f, [](V a, V b) { return a + b; });
}

template <class T, class V = typename Math<T>::V>
inline typename Math<T>::S rowMax(const T* x, std::int64_t n) {
  const V lowest(-std::numeric_limits<typename Math<T>::S>::infinity());
  // max(a, b) of a vector keeps one operand where the other is not a number, so such rows are found by their sum.
  return hmax(
      foldVectors<V>(n, lowest, [&](auto w, std::int64_t i) { return w.pad(w.load(x + i), lowest); }, [](V a, V b) { return max(a, b); }));
}

// Rows that one tile takes: some sixteen thousand numbers.
inline std::int64_t rowsPerTile(std::int64_t columns) { return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, columns)); }

// body(row) for all rows, tiled.
template <class F>
inline void eachRow(Pool& pool, std::int64_t rows, std::int64_t columns, F&& body) {
  const std::int64_t step = rowsPerTile(columns);
  pool.run((rows + step - 1) / step, [&](std::int64_t tile, int) {
    const std::int64_t end = std::min(rows, (tile + 1) * step);
    for (std::int64_t row = tile * step; row < end; ++row) body(row);
  });
}

// body(T{}) for the storage type of a float dtype.
template <class F>
inline void byFloat(DType t, F&& body) {
  switch (t) {
    case DType::float32:
      return body(float{});
    case DType::bfloat16:
      return body(bf16{});
    case DType::float64:
      return body(double{});
    default:
      throw Error("PROGRAM", std::string("a float dtype is needed, not ") + nameOf(t));
  }
}

}  // namespace steepest::STEEPEST_LEVEL
