import { SteepestError } from '../errors.js'
import type { DType } from './dtype.js'

/** Lengths of the axes, outermost first; `[]` is a scalar. */
export type Shape = readonly number[]

/** Shape and dtype of a value, known without its numbers. */
export interface Aval {
  readonly shape: Shape
  readonly dtype: DType
}

export const MAX_RANK = 8

export const sizeOf = (shape: Shape): number => shape.reduce((n, d) => n * d, 1)

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((d, i) => d === b[i])

export const showShape = (shape: Shape): string => `[${shape.join(', ')}]`

export const showAval = (a: Aval): string => `${a.dtype}${showShape(a.shape)}`

/** Row-major strides in elements. */
export function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length)
  let step = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    strides[i] = step
    step *= shape[i]
  }
  return strides
}

/** The shape that all broadcast to, by NumPy's rule. */
export function broadcastShapes(who: string, ...shapes: Shape[]): number[] {
  const rank = Math.max(0, ...shapes.map((s) => s.length))
  const out = new Array<number>(rank).fill(1)
  for (const shape of shapes) {
    for (let i = 0; i < shape.length; i++) {
      const at = rank - shape.length + i
      const d = shape[i]
      if (d === 1 || d === out[at]) continue
      if (out[at] !== 1) {
        throw new SteepestError('SHAPE', {
          who,
          rule: 'shapes must be equal or 1 on every axis, counted from the last',
          got: shapes.map(showShape).join(' and '),
        })
      }
      out[at] = d
    }
  }
  return out
}

/** A non-negative axis from one that may count from the end. */
export function normalizeAxis(who: string, axis: number, rank: number): number {
  const at = axis < 0 ? axis + rank : axis
  if (!Number.isInteger(axis) || at < 0 || at >= rank) {
    throw new SteepestError('SHAPE', { who, rule: `axis must be in [-${rank}, ${rank})`, got: `axis ${axis}` })
  }
  return at
}

/** Distinct non-negative axes in ascending order; undefined means all. */
export function normalizeAxes(who: string, axis: number | readonly number[] | undefined, rank: number): number[] {
  if (axis === undefined) return Array.from({ length: rank }, (_, i) => i)
  const axes = (typeof axis === 'number' ? [axis] : [...axis])
    .map((a) => normalizeAxis(who, a, rank))
    .sort((a, b) => a - b)
  if (new Set(axes).size !== axes.length) {
    throw new SteepestError('SHAPE', { who, rule: 'axes must be distinct', got: `[${axes.join(', ')}]` })
  }
  return axes
}
