import { add, cast, sub, where } from '../ops/elementwise.js'
import { scatterAdd, take } from '../ops/indexing.js'
import { random } from '../ops/random.js'
import { arange } from '../ops/assemble.js'
import { broadcastTo, full, reshape, scalar, slice, zeros } from '../ops/shape.js'
import { argsort } from '../ops/sort.js'
import type { Tensor } from '../tensor/tensor.js'
import { poweredBases, randomBasis, singularBases } from './basis.js'
import { type Bases, project, projectBack, rotate, type Space } from './projection.js'

/** What a choice is made from. */
export interface Choosing {
  /** The gradient as a matrix. */
  readonly g: Tensor
  /** The choice of before, as the slots hold it. */
  readonly held: readonly Tensor[]
  /** Whether it is the first choice, a scalar. */
  readonly first: Tensor
  /** int32 [2], another one for each choice. */
  readonly key: Tensor
}

/** A linear map of matrices [rows, cols] to small tensors and back, that is chosen anew now and then. */
export interface Projector {
  /** Shape of what is small. */
  readonly low: readonly number[]
  /** Names of the slots that hold the choice. */
  readonly slots: readonly string[]
  /** Whether a choice depends on the gradient. */
  readonly looks: boolean
  /** Whether nothing is outside of it. */
  readonly whole: boolean
  /** The space of singular vectors, where it is one. */
  readonly space?: Space
  /** What the slots hold before the first choice: a valid choice too. */
  first(key: Tensor): Tensor[]
  choose(now: Choosing): Tensor[]
  /** A matrix [rows, cols], made small. */
  down(held: readonly Tensor[], x: Tensor): Tensor
  /** The matrix that a small tensor stands for. */
  up(held: readonly Tensor[], low: Tensor): Tensor
  /** The matrix with what the small tensor stands for in the place of what it has of the space. */
  put(held: readonly Tensor[], outside: Tensor, low: Tensor): Tensor
  /** The first basis, where it is one of bases. */
  basisOf?(held: readonly Tensor[]): Tensor
  /** Steps to the next choice, an int32 scalar, where that is not fixed. */
  gapOf?(held: readonly Tensor[]): Tensor
  /** A small tensor of before in the coordinates of now. */
  turn?(before: readonly Tensor[], now: readonly Tensor[], low: Tensor, squares: boolean): Tensor
}

/** How bases are found. */
export interface BasisChoice {
  /** `power`: block power iteration from the bases of before; `svd`: exactly; `random`: at random, orthonormal. */
  readonly method: 'power' | 'svd' | 'random'
  readonly rounds: number
}

/** Orthonormal bases of one or both sides. */
export function basisProjector(space: Space, { method, rounds }: BasisChoice, dtype: 'float32' | 'float64'): Projector {
  const lengths = [...(space.left ? [space.rows] : []), ...(space.right ? [space.cols] : [])]
  const toBases = (list: readonly Tensor[]): Bases =>
    space.left ? { left: list[0], right: space.right ? list[1] : undefined } : { right: list[0] }
  const toList = (bases: Bases): Tensor[] => [bases.left, bases.right].filter((b) => b !== undefined)
  const atRandom = (key: Tensor) => lengths.map((n, i) => randomBasis(n, space.rank, key, dtype, i))
  const down: Projector['down'] = (held, x) => project(space, toBases(held), x)
  const up: Projector['up'] = (held, low) => projectBack(space, toBases(held), low)
  return {
    low: space.low,
    slots: lengths.length === 2 ? ['basis', 'basisRight'] : ['basis'],
    looks: method !== 'random',
    whole: (!space.left || space.rank === space.rows) && (!space.right || space.rank === space.cols),
    space,
    first: atRandom,
    choose({ g, held, first, key }) {
      if (method === 'random') return atRandom(key)
      if (method === 'svd') return toList(singularBases(space, g))
      const most = where(first, 2 * rounds + 2, scalar(rounds, 'int32'))
      return toList(poweredBases(space, g, toBases(held), most))
    },
    down,
    up,
    put: (held, outside, low) => add(outside, up(held, sub(low, down(held, outside)))),
    basisOf: (held) => held[0],
    turn: (before, now, low, squares) => rotate(space, toBases(before), toBases(now), low, squares),
  }
}

/**
 * A space of normal random directions, of variance 1/rank, on one side: drawn from a key again whenever they are needed, so that nothing but the
 * key is kept. For comparisons of norms: `up` is the transpose of `down`, not its inverse.
 */
export function seededProjector(space: Space, dtype: 'float32' | 'float64'): Projector {
  const length = space.left ? space.rows : space.cols
  const bases = ([key]: readonly Tensor[]): Bases => {
    const directions = random.normal(key, [length, space.rank], { dtype, std: 1 / Math.sqrt(space.rank) })
    return space.left ? { left: directions } : { right: directions }
  }
  const down: Projector['down'] = (held, x) => project(space, bases(held), x)
  const up: Projector['up'] = (held, low) => projectBack(space, bases(held), low)
  return {
    low: space.low,
    slots: ['directions'],
    looks: false,
    whole: false,
    space,
    first: (key) => [key],
    choose: ({ key }) => [key],
    down,
    up,
    put: (held, outside, low) => add(outside, up(held, sub(low, down(held, outside)))),
  }
}

/** Which coordinates are chosen: whole columns, whole rows, or single elements. */
export type Coordinates = 'columns' | 'rows' | 'elements'

/** So many coordinates of a matrix, at random. */
export function coordinateProjector(kind: Coordinates, rows: number, cols: number, count: number): Projector {
  const axis = kind === 'columns' ? 1 : 0
  const of = kind === 'columns' ? cols : kind === 'rows' ? rows : rows * cols
  const flat = (x: Tensor) => (kind === 'elements' ? reshape(x, [rows * cols]) : x)
  const draw = (key: Tensor): Tensor => {
    const some = slice(random.permutation(key, of), [[0, count]])
    // In their order in memory.
    return take(some, argsort(some))
  }
  const spread = (held: readonly Tensor[], onto: Tensor, low: Tensor): Tensor => {
    const at = kind === 'columns' ? held[0] : kind === 'rows' ? reshape(held[0], [count, 1]) : held[0]
    const indices = kind === 'elements' ? at : broadcastTo(at, low.shape)
    return reshape(scatterAdd(flat(onto), indices, low, { axis }), [rows, cols])
  }
  const chosen = (held: readonly Tensor[], ones: Tensor): Tensor => {
    const line = scatterAdd(zeros([of], 'int32'), held[0], ones, { axis: 0 })
    return kind === 'elements' ? reshape(line, [rows, cols]) : reshape(line, kind === 'rows' ? [rows, 1] : [1, cols])
  }
  return {
    low: kind === 'columns' ? [rows, count] : kind === 'rows' ? [count, cols] : [count],
    slots: ['chosen'],
    looks: false,
    whole: count === of,
    first: () => [cast(arange(count), 'int32')],
    choose: ({ key }) => [draw(key)],
    down: ([at], x) => take(flat(x), at, { axis }),
    up: (held, low) => spread(held, zeros([rows, cols], low.dtype), low),
    put: (held, outside, low) => {
      const taken = chosen(held, full([count], 1, 'int32'))
      return spread(held, where(taken, 0, outside), low)
    },
  }
}
