import { eye } from '../ops/assemble.js'
import { abs, add, div, greaterEqual, less, mul, where } from '../ops/elementwise.js'
import { eigh, qr, svd } from '../ops/linalg.js'
import { matmul } from '../ops/matmul.js'
import { random } from '../ops/random.js'
import { max, sum } from '../ops/reduce.js'
import { flip, scalar, slice, swapAxes } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { whileLoop } from '../transform/loop.js'
import type { Bases, Space } from './projection.js'

const dual = (x: Tensor): Tensor => swapAxes(x, -1, -2)

/** Columns that do not point away from those that they replace: moments that are kept then mean much the same. */
function signsLike(now: Tensor, before: Tensor): Tensor {
  return where(less(sum(mul(now, before), { axis: 0, keepDims: true }), 0), -1, 1)
}

/** Columns whose element of largest size is positive. */
function canonical(columns: Tensor): Tensor {
  const top = max(columns, { axis: 0, keepDims: true })
  const bottom = max(mul(columns, -1), { axis: 0, keepDims: true })
  return where(greaterEqual(top, bottom), 1, -1)
}

/** The first singular vectors of `g` by LAPACK: columns, their elements of largest size positive (for `full` in the left ones). */
export function singularBases(space: Space, g: Tensor): Bases {
  const { u, vh } = svd(g)
  const first = (x: Tensor) => slice(x, [null, [0, space.rank]])
  const [left, right] = [first(u), first(dual(vh))]
  const signs = canonical(space.left ? left : right)
  return { left: space.left ? mul(left, signs) : undefined, right: space.right ? mul(right, signs) : undefined }
}

/** Q of a block power iteration on g gᵀ from the columns of `start`: `rounds` times Q = orth(g (gᵀ Q)). */
export function powerIteration(g: Tensor, start: Tensor, rounds: number | Tensor): Tensor {
  const { q } = whileLoop(
    ({ i }) => less(i, rounds),
    ({ i, q: columns }) => ({ i: add(i, 1), q: qr(matmul(g, matmul(dual(g), columns))).q }),
    { i: scalar(0, 'int32'), q: start },
  )
  return q
}

/** The columns of `q` turned so that they come as close to singular vectors of `g` as their span allows, largest first. */
function ritz(g: Tensor, q: Tensor): Tensor {
  const z = matmul(dual(g), q)
  const { vectors } = eigh(matmul(dual(z), z))
  return matmul(q, flip(vectors, 1))
}

/**
 * Bases near the first singular vectors of `g`, from the bases of before: block power iteration with QR, then a turn to singular vectors.
 * Signs are those of before.
 */
export function poweredBases(space: Space, g: Tensor, before: Bases, rounds: number | Tensor): Bases {
  // Squares of small gradients would vanish in float32.
  const unit = div(g, max(abs(g)))
  if (!space.left) {
    const q = ritz(dual(unit), powerIteration(dual(unit), before.right!, rounds))
    return { right: mul(q, signsLike(q, before.right!)) }
  }
  const q = ritz(unit, powerIteration(unit, before.left!, rounds))
  const left = mul(q, signsLike(q, before.left!))
  if (!space.right) return { left }
  const { q: right, r } = qr(matmul(dual(unit), left))
  const diagonal = sum(mul(r, eye(space.rank, { dtype: r.dtype })), { axis: 0, keepDims: true })
  return { left, right: mul(right, where(less(diagonal, 0), -1, 1)) }
}

/** Orthonormal columns [length, rank] that look at nothing: those of a basis before its first refresh. */
export function randomBasis(length: number, rank: number, key: Tensor, dtype: DType, site = 0): Tensor {
  return qr(random.normal(key, [length, rank], { dtype, site })).q
}
