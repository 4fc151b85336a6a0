// Rows of layer norm and RMS norm, forward and backward, and the sums over rows that their weights need.
#pragma once

#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

struct NormIo {
  std::int64_t rows = 0, columns = 0;
  DType type{}, weightType{};
  const std::byte *x = nullptr, *weight = nullptr, *bias = nullptr, *dy = nullptr;
  std::byte *y = nullptr, *mean = nullptr, *rstd = nullptr;
  std::byte *dx = nullptr, *dweight = nullptr, *dbias = nullptr;
};

inline std::int64_t columnsOf(const View& x, std::int64_t axes) {
  std::int64_t n = 1;
  for (std::int64_t i = x.rank - axes; i < x.rank; ++i) n *= x.shape[i];
  return n;
}

// The normalized axes at the end of x, as the shape of a weight.
inline bool weighs(const View& w, const View& x, std::int64_t axes) {
  return w.rank == axes && std::equal(w.shape, w.shape + axes, x.shape + (x.rank - axes)) && w.contiguous() &&
         (w.dtype == x.dtype || (x.dtype == DType::bfloat16 && w.dtype == DType::float32));
}

inline void checkStatistics(const View& s, const View& x, std::int64_t axes) {
  require(leads(s, x, static_cast<int>(axes)) && s.dtype == statistics(x.dtype) && s.contiguous(), "norm: wrong statistics");
}

inline void checkNorm(const Spec& spec, std::int64_t axes, bool weight, bool bias, bool centered) {
  require(spec.in.size() == 1u + weight + bias && spec.out.size() == 2u + centered, "norm: wrong number of operands");
  const View& x = spec.in[0];
  require(isFloat(x.dtype) && axes >= 1 && axes <= x.rank && x.contiguous(), "norm: wrong input or axes");
  for (std::size_t i = 1; i < spec.in.size(); ++i)
    require(weighs(spec.in[i], x, axes) && spec.in[i].dtype == spec.in[1].dtype, "norm: wrong weight or bias");
  require(sameShape(spec.out[0], x) && spec.out[0].dtype == x.dtype, "norm: wrong output");
  for (std::size_t i = 1; i < spec.out.size(); ++i) checkStatistics(spec.out[i], x, axes);
}

struct NormWants {
  bool dx, dweight, dbias;
};

// Inputs x, dy, rstd, mean?, weight?; outputs those that are wanted.
inline void checkNormBackward(const Spec& spec, std::int64_t axes, bool weight, NormWants wants, bool centered) {
  require(spec.in.size() == 3u + centered + weight && spec.out.size() == std::size_t(wants.dx) + wants.dweight + wants.dbias,
          "norm: wrong number of operands");
  const View& x = spec.in[0];
  require(isFloat(x.dtype) && axes >= 1 && axes <= x.rank && x.contiguous(), "norm: wrong input or axes");
  require(sameShape(spec.in[1], x) && spec.in[1].dtype == x.dtype && spec.in[1].contiguous(), "norm: wrong gradient");
  checkStatistics(spec.in[2], x, axes);
  if (centered) checkStatistics(spec.in[3], x, axes);
  if (weight) require(weighs(spec.in[3 + centered], x, axes), "norm: wrong weight");
  std::size_t at = 0;
  if (wants.dx) require(sameShape(spec.out[at], x) && spec.out[at].dtype == x.dtype, "norm: wrong output"), ++at;
  for (; at < spec.out.size(); ++at) {
    require(weighs(spec.out[at], x, axes) && spec.out[at].dtype == spec.out.back().dtype, "norm: wrong gradient of a weight");
    if (weight) require(spec.out[at].dtype == spec.in[3 + centered].dtype, "norm: wrong gradient of a weight");
  }
}

inline NormIo normForward(const Call& call, std::int64_t axes, bool weight, bool bias) {
  const View& x = call.in[0];
  NormIo io;
  io.columns = columnsOf(x, axes);
  io.rows = io.columns ? x.size() / io.columns : 0;
  io.type = x.dtype;
  io.weightType = call.in.size() > 1 ? call.in[1].dtype : x.dtype;
  io.x = x.data;
  if (weight) io.weight = call.in[1].data;
  if (bias) io.bias = call.in[1 + weight].data;
  io.y = call.out[0].data;
  return io;
}

inline NormIo normBackward(const Call& call, std::int64_t axes, bool weight, NormWants wants, bool centered) {
  const View& x = call.in[0];
  NormIo io;
  io.columns = columnsOf(x, axes);
  io.rows = io.columns ? x.size() / io.columns : 0;
  io.type = io.weightType = x.dtype;
  io.x = x.data;
  io.dy = call.in[1].data;
  io.rstd = call.in[2].data;
  if (centered) io.mean = call.in[3].data;
  if (weight) {
    io.weight = call.in[3 + centered].data;
    io.weightType = call.in[3 + centered].dtype;
  }
  std::size_t at = 0;
  if (wants.dx) io.dx = call.out[at++].data;
  if (wants.dweight) io.weightType = call.out[at].dtype, io.dweight = call.out[at++].data;
  if (wants.dbias) io.weightType = call.out[at].dtype, io.dbias = call.out[at++].data;
  return io;
}

// body(T{}, W{}) for the storage types of data and weights; a bfloat16 input may have float32 weights.
template <class F>
void byNormTypes(const NormIo& io, F&& body) {
  switch (io.type) {
    case DType::float32:
      return body(float{}, float{});
    case DType::float64:
      return body(double{}, double{});
    default:
      return io.weightType == DType::float32 ? body(bf16{}, float{}) : body(bf16{}, bf16{});
  }
}

template <bool Centered, class T, class W>
void forwardRows(Pool& pool, const NormIo& io, double eps) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const std::int64_t n = io.columns;
  const W* weight = reinterpret_cast<const W*>(io.weight);
  const W* bias = reinterpret_cast<const W*>(io.bias);
  const S per = S(1) / static_cast<S>(n);
  eachRow(pool, io.rows, n, [&](std::int64_t row) {
    const T* x = reinterpret_cast<const T*>(io.x) + row * n;
    T* y = reinterpret_cast<T*>(io.y) + row * n;
    V mean(0);
    if constexpr (Centered) {
      mean = V(sum(sumVectors<V>(n, [&](auto w, std::int64_t i) { return w.load(x + i); })) * per);
      store(reinterpret_cast<S*>(io.mean) + row, mean, 1);
    }
    const S square = sum(sumVectors<V>(n, [&](auto w, std::int64_t i) {
      const V c = w.pad(w.load(x + i) - mean, V(0));
      return c * c;
    }));
    const V rstd = V(1) / sqrt(V(square * per + static_cast<S>(eps)));
    store(reinterpret_cast<S*>(io.rstd) + row, rstd, 1);
    eachVector<V>(n, [&](auto w, std::int64_t i) {
      V v = (w.load(x + i) - mean) * rstd;
      if (weight) v = v * w.load(weight + i);
      if (bias) v = v + w.load(bias + i);
      w.store(y + i, v);
    });
  });
}

// The rows are cut into this many pieces, each with sums of its own; the pieces are then added in their order.
inline std::int64_t piecesOf(std::int64_t rows) { return std::clamp<std::int64_t>(rows / 16, 1, 32); }

inline std::size_t partialBytes(const Spec& spec, std::int64_t axes, int sums) {
  const View& x = spec.in[0];
  const std::int64_t n = columnsOf(x, axes);
  if (!n) return 0;
  return static_cast<std::size_t>(piecesOf(x.size() / n) * sums * n) * sizeOf(statistics(x.dtype));
}

// out[i] = the sum of partials[p][i] over p, for pieces that lie `stride` apart.
template <class S, class W>
void addPieces(Pool& pool, const S* partials, std::int64_t pieces, std::int64_t stride, std::int64_t n, W* out) {
  using V = typename Math<S>::V;
  constexpr std::int64_t kStep = 1024;
  pool.run((n + kStep - 1) / kStep, [&](std::int64_t tile, int) {
    const std::int64_t begin = tile * kStep;
    eachVector<V>(std::min(n - begin, kStep), [&](auto w, std::int64_t i) {
      V total(0);
      for (std::int64_t p = 0; p < pieces; ++p) total = total + w.load(partials + p * stride + begin + i);
      w.store(out + begin + i, total);
    });
  });
}

template <bool Centered, class T, class W>
void backwardRows(const Call& call, const NormIo& io) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const std::int64_t n = io.columns;
  const W* weight = reinterpret_cast<const W*>(io.weight);
  const S per = S(1) / static_cast<S>(n);
  const std::int64_t pieces = piecesOf(io.rows);
  const std::int64_t sums = (io.dweight != nullptr) + (io.dbias != nullptr);
  S* const partials = reinterpret_cast<S*>(call.workspace);
  call.pool.run(pieces, [&](std::int64_t piece, int) {
    S* dweight = io.dweight ? partials + piece * sums * n : nullptr;
    S* dbias = io.dbias ? partials + (piece * sums + (io.dweight != nullptr)) * n : nullptr;
    if (dweight) std::fill(dweight, dweight + n, S(0));
    if (dbias) std::fill(dbias, dbias + n, S(0));
    const std::int64_t end = io.rows * (piece + 1) / pieces;
    for (std::int64_t row = io.rows * piece / pieces; row < end; ++row) {
      const T* x = reinterpret_cast<const T*>(io.x) + row * n;
      const T* dy = reinterpret_cast<const T*>(io.dy) + row * n;
      T* dx = io.dx ? reinterpret_cast<T*>(io.dx) + row * n : nullptr;
      const V rstd(reinterpret_cast<const S*>(io.rstd)[row]);
      const V mean(Centered ? reinterpret_cast<const S*>(io.mean)[row] : S(0));
      V slope(0), along(0);
      if (dx) {
        V a(0), b(0);
        eachVector<V>(n, [&](auto w, std::int64_t i) {
          V g = w.load(dy + i);
          if (weight) g = g * w.load(weight + i);
          if constexpr (Centered) a = a + g;
          b = fma(g, w.pad((w.load(x + i) - mean) * rstd, V(0)), b);
        });
        slope = V(sum(a) * per);
        along = V(sum(b) * per);
      }
      eachVector<V>(n, [&](auto w, std::int64_t i) {
        const V g = w.load(dy + i);
        const V normal = (w.load(x + i) - mean) * rstd;
        if (dweight) w.store(dweight + i, fma(g, normal, w.load(dweight + i)));
        if (dbias) w.store(dbias + i, w.load(dbias + i) + g);
        if (dx) w.store(dx + i, rstd * ((weight ? g * w.load(weight + i) : g) - slope - normal * along));
      });
    }
  });
  if (io.dweight) addPieces(call.pool, partials, pieces, sums * n, n, reinterpret_cast<W*>(io.dweight));
  if (io.dbias) addPieces(call.pool, partials + (io.dweight ? n : 0), pieces, sums * n, n, reinterpret_cast<W*>(io.dbias));
}

}  // namespace steepest::STEEPEST_LEVEL
