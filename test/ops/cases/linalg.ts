import { eye } from '../../../lib/ops/assemble.js'
import { add, mul, square } from '../../../lib/ops/elementwise.js'
import { cholesky, eigh, qr, slogdet, solve, svd, triangularSolve } from '../../../lib/ops/linalg.js'
import { matmul } from '../../../lib/ops/matmul.js'
import { swapAxes, tensor } from '../../../lib/ops/shape.js'
import type { Tensor } from '../../../lib/tensor/tensor.js'
import { arg, type OpCase } from '../check.js'

const like = (x: Tensor): Tensor => eye(x.shape[x.rank - 1], { dtype: x.dtype })
const safe = (x: Tensor): Tensor => add(mul(x, 0.5), mul(like(x), 3))
const positive = (x: Tensor): Tensor => add(matmul(x, swapAxes(x, -1, -2)), mul(like(x), 2))
/** Eigenvalues and singular values that stay apart. */
const apart = (x: Tensor): Tensor => {
  const steps = Float64Array.from({ length: x.shape[x.rank - 1] }, (_, i) => 2 * i + 1)
  return add(mul(add(x, swapAxes(x, -1, -2)), 0.3), mul(like(x), tensor(steps, { dtype: x.dtype })))
}
const squared = (parts: object): Tensor[] => Object.values(parts).map((t: Tensor) => square(t))
const lapack = (bound: number) =>
  ({ dtypes: ['float32'], bounds: { float64: 1e-11, float32: bound * 2 ** -24 }, perLevel: true }) as const

/** What each gives is in linalg.test.ts. */
export const cases: OpCase[] = [
  { ops: ['cholesky', 'triangularSolve'], f: (x) => cholesky(positive(x)), at: [[arg([3, 3])]], ...lapack(64) },
  {
    ops: ['triangularSolve'],
    f: (a, b) => triangularSolve(safe(a), b, { lower: false }),
    at: [[arg([3, 3]), arg([3, 2])]],
    ...lapack(64),
  },
  { ops: ['solve'], f: (a, b) => solve(safe(a), b), at: [[arg([3, 3]), arg([3, 2])]], ...lapack(64) },
  { ops: ['slogdet', 'solve'], f: (a) => slogdet(safe(a)).logAbsDet, at: [[arg([2, 3, 3])]], ...lapack(64) },
  { ops: ['qr'], f: (a) => Object.values(qr(a)), at: [[arg([4, 3])]], ...lapack(256) },
  // Vectors are what they are up to their sign.
  { ops: ['eigh'], f: (a) => squared(eigh(apart(a))), at: [[arg([3, 3])]], ...lapack(256) },
  { ops: ['svd'], f: (a) => squared(svd(apart(a))), at: [[arg([3, 3])]], ...lapack(512) },
]
