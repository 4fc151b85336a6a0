import { checkOptions, SteepestError } from '../errors.js'
import { promote } from '../tensor/dtype.js'
import { type Aval, broadcastShapes, sameShape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { eye, tril, triu } from './assemble.js'
import { defineOp } from './define.js'
import { add, cast, exp, mul, neg } from './elementwise.js'
import { dual, foldLower, requireSquare, shapeError, symmetricPart, widened } from './linalg-shared.js'
import { matmul } from './matmul.js'
import { broadcastTo, expandDims, reshape } from './shape.js'

const inferLike =
  (who: string) =>
  (inputs: readonly Aval[]): Aval[] => {
    requireSquare(who, inputs[0])
    return [{ shape: inputs[0].shape, dtype: inputs[0].dtype }]
  }

function inferSolve(who: string, [a, b]: readonly Aval[]): Aval[] {
  const n = requireSquare(who, a)
  if (b.dtype !== a.dtype)
    throw new SteepestError('DTYPE', {
      who,
      rule: 'both operands must have one dtype',
      got: `${showAval(a)} and ${showAval(b)}`,
    })
  const fits =
    b.shape.length === a.shape.length &&
    b.shape[b.shape.length - 2] === n &&
    sameShape(a.shape.slice(0, -2), b.shape.slice(0, -2))
  if (!fits) throw shapeError(who, 'shapes must be [..., n, n] and [..., n, m]', a, b)
  return [{ shape: b.shape, dtype: b.dtype }]
}

const choleskyRow = defineOp({
  name: 'cholesky',
  kind: 'kernel',
  faults: true,
  doc: 'Lower L with L Lᵀ = A, from the lower triangle of A [..., n, n]; fault 3 and NaN where A is not positive definite.',
  attrs: {},
  infer: inferLike('cholesky'),
  // Murray, "Differentiation of the Cholesky decomposition" (2016), eq. 10; only the lower triangle of A is read.
  vjp: ({ outputs: [l], grads: [g] }): (Tensor | null)[] => {
    const p = matmul(dual(l), g!)
    const inner = mul(add(tril(p), tril(p, -1)), 0.5)
    const left = triangularSolveRow([l, inner], { lower: true, transpose: true, unit: false })[0]
    const both = triangularSolveRow([l, dual(left)], { lower: true, transpose: true, unit: false })[0]
    return [foldLower(both)]
  },
  batch: ({ inputs }): Tensor[] => choleskyRow(inputs, {}),
  flops: ([a]) => (sizeOf(a.shape) * a.shape[a.shape.length - 1]) / 3,
  inplace: [[0, 0]],
})

type TriangularAttrs = { lower: boolean; transpose: boolean; unit: boolean }

/** @internal */
export const triangularSolveRow = defineOp<TriangularAttrs>({
  name: 'triangularSolve',
  kind: 'kernel',
  faults: true,
  doc: 'X with op(A) X = B, A triangular [..., n, n], B [..., n, m]; the other triangle is not read. Fault 3 and NaN where the diagonal has a 0.',
  attrs: { lower: 'bool', transpose: 'bool', unit: 'bool' },
  infer: (inputs) => inferSolve('triangularSolve', inputs),
  vjp: ({ inputs: [a], outputs: [x], attrs, grads: [g], needs }): (Tensor | null)[] => {
    const gb = triangularSolveRow([a, g!], { ...attrs, transpose: !attrs.transpose })[0]
    if (!needs[0]) return [null, gb]
    const full = neg(attrs.transpose ? matmul(x, dual(gb)) : matmul(gb, dual(x)))
    const k = attrs.unit ? 1 : 0
    return [attrs.lower ? tril(full, -k) : triu(full, k), needs[1] ? gb : null]
  },
  batch: (ctx): Tensor[] => triangularSolveRow(widened(ctx), ctx.attrs),
  flops: ([a, b]) => sizeOf(b.shape) * a.shape[a.shape.length - 1],
  inplace: [[0, 1]],
})

const solveRow = defineOp({
  name: 'solve',
  kind: 'kernel',
  faults: true,
  doc: 'X with A X = B by LU with partial pivoting, A [..., n, n], B [..., n, m]; fault 3 and NaN where A is singular.',
  attrs: {},
  infer: (inputs) => inferSolve('solve', inputs),
  vjp: ({ inputs: [a], outputs: [x], grads: [g], needs }): (Tensor | null)[] => {
    const gb = solveRow([dual(a), g!], {})[0]
    return [needs[0] ? neg(matmul(gb, dual(x))) : null, needs[1] ? gb : null]
  },
  batch: (ctx): Tensor[] => solveRow(widened(ctx), {}),
  flops: ([a, b]) =>
    sizeOf(a.shape) * a.shape[a.shape.length - 1] * (2 / 3) + 2 * sizeOf(b.shape) * a.shape[a.shape.length - 1],
})

const slogdetRow = defineOp({
  name: 'slogdet',
  kind: 'kernel',
  doc: 'Sign and log|det| of A [..., n, n]; a singular matrix has sign 0 and −∞ (and no derivative there).',
  attrs: {},
  infer: ([a]) => {
    requireSquare('slogdet', a)
    const out = { shape: a.shape.slice(0, -2), dtype: a.dtype }
    return [out, out]
  },
  // The sign is constant almost everywhere.
  vjp: ({ inputs: [a], grads: [, g] }): (Tensor | null)[] => [
    g ? mul(dual(inverse(a)), expandDims(expandDims(g, -1), -1)) : null,
  ],
  batch: ({ inputs }): Tensor[] => slogdetRow(inputs, {}),
  flops: ([a]) => sizeOf(a.shape) * a.shape[a.shape.length - 1] * (2 / 3),
})

/** @internal Leading axes broadcast, dtypes brought to the wider one; a vector b is a column. */
export function systems(who: string, a: Tensor, b: Tensor): { a: Tensor; b: Tensor; back: (x: Tensor) => Tensor } {
  const vector = b.rank === 1
  if (a.rank < 2 || b.rank < 1) throw shapeError(who, 'shapes must be [..., n, n] and [..., n, m] or [n]', a, b)
  const column = vector ? reshape(b, [b.shape[0], 1]) : b
  const dtype = promote(a.dtype, b.dtype)
  const lead = broadcastShapes(who, a.shape.slice(0, -2), column.shape.slice(0, -2))
  return {
    a: cast(broadcastTo(a, [...lead, ...a.shape.slice(-2)]), dtype),
    b: cast(broadcastTo(column, [...lead, ...column.shape.slice(-2)]), dtype),
    back: (x) => (vector ? reshape(x, x.shape.slice(0, -1)) : x),
  }
}

/**
 * Cholesky factor: lower L `[..., n, n]` with L Lᵀ = A.
 *
 * @param a `[..., n, n]`, symmetric and positive definite, float32 or float64
 * @param options `symmetrize` (default true) takes (A + Aᵀ)/2, so that gradients are symmetric; false reads the lower triangle only
 * @throws SteepestError on shapes and dtypes. A matrix that is not positive definite gives NaN and ends a training run
 */
export function cholesky(a: Tensor, options: { symmetrize?: boolean } = {}): Tensor {
  checkOptions('cholesky', options, ['symmetrize'])
  requireSquare('cholesky', a)
  return choleskyRow([options.symmetrize === false ? a : symmetricPart(a)], {})[0]
}

/** How a triangular system is read. */
export interface TriangularSolveOptions {
  /** Which triangle of A holds the numbers; default true. */
  lower?: boolean
  /** Solve with Aᵀ; default false. */
  transpose?: boolean
  /** Take the diagonal for ones without reading it; default false. */
  unitDiagonal?: boolean
}

/**
 * X with op(A) X = B for triangular A.
 *
 * @param a `[..., n, n]`; only the named triangle is read
 * @param b `[..., n, m]` (leading axes broadcast) or `[n]`
 */
export function triangularSolve(a: Tensor, b: Tensor, options: TriangularSolveOptions = {}): Tensor {
  checkOptions('triangularSolve', options, ['lower', 'transpose', 'unitDiagonal'])
  const s = systems('triangularSolve', a, b)
  const { lower = true, transpose = false, unitDiagonal = false } = options
  return s.back(triangularSolveRow([s.a, s.b], { lower, transpose, unit: unitDiagonal })[0])
}

/**
 * X with A X = B by LU with partial pivoting. A singular matrix gives NaN and ends a training run.
 *
 * @param a `[..., n, n]`, float32 or float64
 * @param b `[..., n, m]` (leading axes broadcast) or `[n]`
 */
export function solve(a: Tensor, b: Tensor): Tensor {
  const s = systems('solve', a, b)
  return s.back(solveRow([s.a, s.b], {})[0])
}

/** A⁻¹ of `[..., n, n]`. Where A⁻¹ B is wanted, `solve` is cheaper and more exact. */
export function inverse(a: Tensor): Tensor {
  const n = requireSquare('inverse', a)
  return solveRow([a, broadcastTo(eye(n, { dtype: a.dtype }), a.shape)], {})[0]
}

/**
 * Sign and natural logarithm of the absolute determinant of `[..., n, n]`; both `[...]`. A singular matrix has sign 0 and −∞.
 * The derivative of the logarithm is A⁻ᵀ, which a singular matrix does not have.
 */
export function slogdet(a: Tensor): { sign: Tensor; logAbsDet: Tensor } {
  const [sign, logAbsDet] = slogdetRow([a], {})
  return { sign, logAbsDet }
}

/** Determinant of `[..., n, n]`, as sign · exp(log|det|); its derivative is not defined where A is singular. */
export function det(a: Tensor): Tensor {
  const { sign, logAbsDet } = slogdet(a)
  return mul(sign, exp(logAbsDet))
}
