import { SteepestError } from '../errors.js'
import { square } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { swapAxes } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/**
 * Which side of a matrix is made small: `std` the shorter one (columns where they are equal), `reverseStd` the longer one, `left` rows, `right` columns,
 * `full` both.
 */
export type ProjType = 'std' | 'reverseStd' | 'left' | 'right' | 'full'

export const PROJ_TYPES: readonly ProjType[] = ['std', 'reverseStd', 'left', 'right', 'full']

/** Orthonormal columns: `left` of length rows, `right` of length columns. */
export interface Bases {
  readonly left?: Tensor
  readonly right?: Tensor
}

/** A small space of matrices [rows, cols]. */
export interface Space {
  readonly rows: number
  readonly cols: number
  readonly rank: number
  readonly left: boolean
  readonly right: boolean
  /** Shape of what is small. */
  readonly low: readonly number[]
}

/** The space of rank `rank`, or of all dimensions where the matrix has fewer. */
export function spaceOf(type: ProjType, rank: number, rows: number, cols: number): Space {
  const wide = rows < cols
  const left = type === 'left' || type === 'full' || (type === 'std' && wide) || (type === 'reverseStd' && !wide)
  const right = type === 'full' || !left
  // A basis of singular vectors has at most min(rows, cols) of them.
  const r = Math.min(rank, rows, cols)
  return { rows, cols, rank: r, left, right, low: [left ? r : rows, right ? r : cols] }
}

const dual = (x: Tensor): Tensor => swapAxes(x, -1, -2)

function required(t: Tensor | undefined): Tensor {
  if (t) return t
  throw new SteepestError('ARGUMENT', { who: 'projection', rule: 'the basis of this side is missing' })
}

/** Aᵀ G B, with the bases that the space has. */
export function project(space: Space, bases: Bases, g: Tensor): Tensor {
  const rows = space.left ? matmul(dual(required(bases.left)), g) : g
  return space.right ? matmul(rows, required(bases.right)) : rows
}

/** A D Bᵀ: the matrix that a small one stands for. */
export function projectBack(space: Space, bases: Bases, low: Tensor): Tensor {
  const cols = space.right ? matmul(low, dual(required(bases.right))) : low
  return space.left ? matmul(required(bases.left), cols) : cols
}

/**
 * A small mean in the coordinates of new bases: with Q = newᵀ old, Q M Qᵀ; a mean of squares is turned by the squares of Q's elements.
 */
export function rotate(space: Space, from: Bases, to: Bases, low: Tensor, squares: boolean): Tensor {
  const turn = (a: Tensor, b: Tensor): Tensor => {
    const q = matmul(dual(b), a)
    return squares ? square(q) : q
  }
  const rows = space.left ? matmul(turn(required(from.left), required(to.left)), low) : low
  return space.right ? matmul(rows, dual(turn(required(from.right), required(to.right)))) : rows
}
