import { SteepestError } from '../errors.js'
import { type Aval, showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { tril } from './assemble.js'
import { type BatchContext, requireDtype } from './define.js'
import { add, mul } from './elementwise.js'
import { broadcastTo, expandDims, swapAxes } from './shape.js'

/** Matrices transposed. */
export const dual = (x: Tensor): Tensor => swapAxes(x, -1, -2)

/** (A + Aᵀ)/2. */
export const symmetricPart = (a: Tensor): Tensor => mul(add(a, dual(a)), 0.5)

/** The gradient of a symmetric matrix of which only the lower triangle is read: what falls on the upper one goes below. */
export const foldLower = (s: Tensor): Tensor => add(tril(s), tril(dual(s), -1))

export const shapeError = (who: string, rule: string, ...got: Aval[]): SteepestError =>
  new SteepestError('SHAPE', { who, rule, got: got.map(showAval).join(' and ') })

/** The dtypes and ranks that LAPACK takes. */
export function requireMatrix(who: string, a: Aval): void {
  if (a.shape.length < 2) throw shapeError(who, 'the input must be a matrix or a stack of them', a)
  if (a.dtype === 'bfloat16') {
    throw new SteepestError('DTYPE', {
      who,
      rule: 'input must be float32 or float64',
      got: a.dtype,
      fix: "Use cast(x, 'float32') first",
    })
  }
  requireDtype(who, a, ['float32', 'float64'])
}

/** The order of the square matrices in the last two axes. */
export function requireSquare(who: string, a: Aval): number {
  requireMatrix(who, a)
  const n = a.shape[a.shape.length - 1]
  if (a.shape[a.shape.length - 2] !== n) throw shapeError(who, 'matrices must be square', a)
  return n
}

/** The inputs of a batching rule, all with the new axis. */
export const widened = <A>({ inputs, batched, size }: BatchContext<A>): Tensor[] =>
  inputs.map((x, i) => (batched[i] ? x : broadcastTo(expandDims(x, 0), [size, ...x.shape])))
