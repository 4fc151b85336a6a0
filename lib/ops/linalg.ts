import type { Tensor } from '../tensor/tensor.js'
import { dual, requireMatrix, shapeError } from './linalg-shared.js'
import { systems, triangularSolveRow } from './linalg-solve.js'
import { qr } from './linalg-spectral.js'
import { matmul } from './matmul.js'

export { hadamard } from './hadamard.js'
export { cholesky, det, inverse, slogdet, solve, type TriangularSolveOptions, triangularSolve } from './linalg-solve.js'
export { eigh, qr, svd } from './linalg-spectral.js'

/**
 * Least squares by QR: X that minimizes ‖A X − B‖, or, where A has more columns than rows, the shortest X with A X = B.
 *
 * @param a `[..., m, n]` of full rank, float32 or float64; columns that depend on each other exactly give NaN
 * @param b `[..., m, k]` (leading axes broadcast) or `[m]`
 * @returns `[..., n, k]` or `[n]`
 */
export function lstsq(a: Tensor, b: Tensor): Tensor {
  const s = systems('lstsq', a, b)
  requireMatrix('lstsq', s.a)
  const [m, n] = s.a.shape.slice(-2)
  if (s.b.shape[s.b.rank - 2] !== m) throw shapeError('lstsq', 'both operands must have as many rows', a, b)
  if (m >= n) {
    const { q, r } = qr(s.a)
    return s.back(triangularSolveRow([r, matmul(dual(q), s.b)], { lower: false, transpose: false, unit: false })[0])
  }
  const { q, r } = qr(dual(s.a))
  return s.back(matmul(q, triangularSolveRow([r, s.b], { lower: false, transpose: true, unit: false })[0]))
}
