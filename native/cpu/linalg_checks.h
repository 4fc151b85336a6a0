// The operands of linear algebra.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include "attrs/cholesky.gen.h"
#include "attrs/eigh.gen.h"
#include "attrs/qr.gen.h"
#include "attrs/slogdet.gen.h"
#include "attrs/solve.gen.h"
#include "attrs/svd.gen.h"
#include "attrs/triangularSolve.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

// A stack of matrices in the last two axes of a contiguous operand.
struct Matrices {
  std::int64_t count = 1, rows = 0, columns = 0;

  static Matrices of(const View& v, const char* who) {
    if (v.rank < 2 || !v.contiguous() || (v.dtype != DType::float32 && v.dtype != DType::float64)) {
      throw Error("PROGRAM", std::string(who) + ": operands are contiguous float32 or float64 matrices");
    }
    Matrices m;
    for (int i = 0; i < v.rank - 2; ++i) m.count *= v.shape[i];
    m.rows = v.dim(-2);
    m.columns = v.dim(-1);
    if (std::max(m.rows, m.columns) > std::numeric_limits<int>::max()) {
      throw Error("PROGRAM", std::string(who) + ": a matrix is too large for LAPACK's 32-bit lengths");
    }
    return m;
  }
  std::int64_t size() const { return rows * columns; }
};

// Same leading axes (all but the last `mine` of a and the last `theirs` of b) and dtype.
inline bool sameStack(const View& a, int mine, const View& b, int theirs) {
  if (a.dtype != b.dtype || a.rank - mine != b.rank - theirs) return false;
  for (int i = 0; i < a.rank - mine; ++i) {
    if (a.shape[i] != b.shape[i]) return false;
  }
  return b.contiguous();
}

inline void requireMatrices(bool fine, const char* rule) {
  if (!fine) throw Error("PROGRAM", rule);
}

inline bool sameMatrices(const View& a, const View& b) { return sameStack(a, 2, b, 2) && a.dim(-2) == b.dim(-2) && a.dim(-1) == b.dim(-1); }

inline Matrices checkCholesky(const Spec& spec) {
  CholeskyAttrs::decode(spec.attrs);
  requireMatrices(spec.in.size() == 1 && spec.out.size() == 1, "cholesky takes one input and gives one output");
  const Matrices m = Matrices::of(spec.in[0], "cholesky");
  requireMatrices(m.rows == m.columns && sameMatrices(spec.in[0], spec.out[0]), "cholesky: input and output are square and alike");
  return m;
}

// That of the right-hand sides, as `solve`.
inline Matrices checkTriangularSolve(const Spec& spec) {
  requireMatrices(spec.in.size() == 2 && spec.out.size() == 1, "triangularSolve takes two inputs and gives one output");
  const Matrices a = Matrices::of(spec.in[0], "triangularSolve"), b = Matrices::of(spec.in[1], "triangularSolve");
  requireMatrices(
      a.rows == a.columns && a.rows == b.rows && sameStack(spec.in[0], 2, spec.in[1], 2) && sameMatrices(spec.in[1], spec.out[0]),
      "triangularSolve takes [.., n, n] and [.., n, m] and gives [.., n, m]");
  return b;
}

inline Matrices checkSolve(const Spec& spec) {
  SolveAttrs::decode(spec.attrs);
  requireMatrices(spec.in.size() == 2 && spec.out.size() == 1, "solve takes two inputs and gives one output");
  const Matrices a = Matrices::of(spec.in[0], "solve"), b = Matrices::of(spec.in[1], "solve");
  requireMatrices(
      a.rows == a.columns && a.rows == b.rows && sameStack(spec.in[0], 2, spec.in[1], 2) && sameMatrices(spec.in[1], spec.out[0]),
      "solve takes [.., n, n] and [.., n, m] and gives [.., n, m]");
  return b;
}

inline Matrices checkSlogdet(const Spec& spec) {
  SlogdetAttrs::decode(spec.attrs);
  requireMatrices(spec.in.size() == 1 && spec.out.size() == 2, "slogdet takes one input and gives two outputs");
  const Matrices m = Matrices::of(spec.in[0], "slogdet");
  requireMatrices(m.rows == m.columns && sameStack(spec.in[0], 2, spec.out[0], 0) && sameStack(spec.in[0], 2, spec.out[1], 0),
                  "slogdet takes [.., n, n] and gives [..] twice");
  return m;
}

inline Matrices checkQr(const Spec& spec) {
  const QrAttrs attrs = QrAttrs::decode(spec.attrs);
  requireMatrices(spec.in.size() == 1 && spec.out.size() == 2, "qr takes one input and gives two outputs");
  const Matrices m = Matrices::of(spec.in[0], "qr");
  const std::int64_t width = attrs.complete ? m.rows : std::min(m.rows, m.columns);
  const View &q = spec.out[0], &r = spec.out[1];
  requireMatrices(sameStack(spec.in[0], 2, q, 2) && sameStack(spec.in[0], 2, r, 2) && q.dim(-2) == m.rows && q.dim(-1) == width &&
                      r.dim(-2) == width && r.dim(-1) == m.columns,
                  "qr gives [.., m, k] and [.., k, n]");
  return m;
}

inline Matrices checkEigh(const Spec& spec) {
  EighAttrs::decode(spec.attrs);
  requireMatrices(spec.in.size() == 1 && spec.out.size() == 2, "eigh takes one input and gives two outputs");
  const Matrices m = Matrices::of(spec.in[0], "eigh");
  const View &w = spec.out[0], &v = spec.out[1];
  requireMatrices(m.rows == m.columns && sameStack(spec.in[0], 2, w, 1) && w.dim(-1) == m.rows && sameStack(spec.in[0], 2, v, 2) &&
                      v.dim(-1) == m.rows && v.dim(-2) == m.rows,
                  "eigh takes [.., n, n] and gives [.., n] and [.., n, n]");
  return m;
}

inline Matrices checkSvd(const Spec& spec) {
  SvdAttrs::decode(spec.attrs);
  requireMatrices(spec.in.size() == 1 && spec.out.size() == 3, "svd takes one input and gives three outputs");
  const Matrices m = Matrices::of(spec.in[0], "svd");
  const std::int64_t k = std::min(m.rows, m.columns);
  const View &u = spec.out[0], &s = spec.out[1], &vh = spec.out[2];
  requireMatrices(sameStack(spec.in[0], 2, u, 2) && sameStack(spec.in[0], 1 + 1, s, 1) && sameStack(spec.in[0], 2, vh, 2) &&
                      u.dim(-2) == m.rows && u.dim(-1) == k && s.dim(-1) == k && vh.dim(-2) == k && vh.dim(-1) == m.columns,
                  "svd gives [.., m, k], [.., k] and [.., k, n]");
  return m;
}

}  // namespace steepest::STEEPEST_LEVEL
