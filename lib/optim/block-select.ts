import { arange, eye, oneHot } from '../ops/assemble.js'
import {
  abs,
  add,
  cast,
  clip,
  div,
  equal,
  log,
  maximum,
  mul,
  neg,
  remainder,
  sign,
  sqrt,
  square,
  sub,
} from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { eigh, solve } from '../ops/linalg.js'
import { matmul } from '../ops/matmul.js'
import { random } from '../ops/random.js'
import { argmax, max, sum } from '../ops/reduce.js'
import { expandDims, reshape, slice } from '../ops/shape.js'
import { argsort } from '../ops/sort.js'
import type { Tensor } from '../tensor/tensor.js'
import { vmap } from '../transform/vmap.js'

/** How blocks of coordinates are chosen. */
export type BlockRule = 'random' | 'cyclic' | 'lipschitz' | 'gs' | 'gsl' | 'gsd' | 'gsq'

/** What is known of the function where a block is chosen; vectors of n numbers, matrices n by n. */
export interface Surface {
  readonly x: Tensor
  readonly g: Tensor
  /** Bound on the second derivative along each coordinate. */
  readonly lipschitz: Tensor
  /** Bound on the Hessian. */
  readonly hessian?: Tensor
  /** Diagonal whose norm bounds the function. */
  readonly diagonal: Tensor
  /** float64 scalar, counted from 1. */
  readonly t: Tensor
  readonly key: Tensor
  readonly l1: number
  readonly bounds?: readonly [number, number]
}

/** Coordinates of a block, int32 [size], and which of them count, [size] of 0 and 1. */
export interface Block {
  readonly at: Tensor
  readonly counts: Tensor
}

const ROUNDS = 10
/** Of the trace: blocks of less than full rank have a unique solution then. */
const RIDGE = 1e-10

const vector = (a: Tensor, b: Tensor): Tensor => reshape(matmul(a, expandDims(b, -1)), [...a.shape.slice(0, -1)])
const atLeast = (x: Tensor): Tensor => maximum(x, 1e-300)
const wideAtLeast = (x: Tensor): Tensor => (x.dtype === 'float64' ? atLeast(x) : maximum(x, 1e-37))

/** The part of the Hessian that belongs to a block; what does not count is the identity. */
export function within(hessian: Tensor, { at, counts }: Block): Tensor {
  const part = take(take(hessian, at, { axis: 0 }), at, { axis: 1 })
  const both = mul(expandDims(counts, 0), expandDims(counts, 1))
  return add(mul(part, both), mul(eye(at.shape[0], { dtype: hessian.dtype }), expandDims(sub(1, counts), 0)))
}

/** Largest eigenvalue. */
export const largestOf = (part: Tensor): Tensor => max(eigh(part).values, { axis: -1 })

/** H⁻¹ g with a ridge of 1e-10 of the mean of the diagonal. */
export function solved(part: Tensor, g: Tensor): Tensor {
  const n = part.shape[part.rank - 1]
  const unit = eye(n, { dtype: part.dtype })
  const mean = div(sum(mul(part, unit), { axis: [-1, -2], keepDims: true }), n)
  return reshape(solve(add(part, mul(unit, atLeast(mul(mean, RIDGE)))), expandDims(g, -1)), g.shape)
}

/** The step along each coordinate that makes g d + L d² / 2 + λ |x + d| least within the bounds. */
export function proximal({ x, g, l1, bounds }: Pick<Surface, 'x' | 'g' | 'l1' | 'bounds'>, lipschitz: Tensor): Tensor {
  const l = wideAtLeast(lipschitz)
  const there = sub(x, div(g, l))
  const shrunk = l1 > 0 ? mul(sign(there), maximum(sub(abs(there), div(l1, l)), 0)) : there
  return sub(bounds ? clip(shrunk, bounds[0], bounds[1]) : shrunk, x)
}

/** What a step along each coordinate gains at least. */
function gain(s: Surface, lipschitz: Tensor): Tensor {
  const d = proximal(s, lipschitz)
  const bend = add(mul(s.g, d), mul(mul(square(d), lipschitz), 0.5))
  return neg(s.l1 > 0 ? add(bend, mul(sub(abs(add(s.x, d)), abs(s.x)), s.l1)) : bend)
}

const constrained = ({ l1, bounds }: Surface): boolean => l1 > 0 || bounds !== undefined

/** How much each coordinate is worth. */
function worth(rule: BlockRule, s: Surface): Tensor {
  if (constrained(s)) return gain(s, rule === 'gsd' ? s.diagonal : s.lipschitz)
  const squares = square(s.g)
  if (rule === 'gsl') return div(squares, wideAtLeast(s.lipschitz))
  return rule === 'gsd' ? div(squares, wideAtLeast(s.diagonal)) : squares
}

/** The first `size` in falling order. */
const top = (scores: Tensor, size: number): Tensor =>
  cast(slice(argsort(scores, { descending: true }), [[0, size]]), 'int32')

/** The block whose quadratic model falls most, nearly: iterative hard thresholding. */
function thresholded(s: Surface, size: number): Tensor {
  const h = s.hessian!
  const n = s.g.shape[0]
  const step = largestOf(h)
  const keep = (d: Tensor): Tensor => {
    const mask = sum(oneHot(top(abs(d), size), n, { dtype: d.dtype }), { axis: 0 })
    return mul(d, mask)
  }
  let d = keep(neg(div(s.g, sqrt(wideAtLeast(s.lipschitz)))))
  for (let i = 0; i < ROUNDS; i++) d = keep(sub(d, div(add(s.g, vector(h, d)), wideAtLeast(step))))
  return top(abs(d), size)
}

/** A block of any coordinates. */
export function variableBlock(rule: BlockRule, s: Surface, size: number): Block {
  const n = s.g.shape[0]
  const counts = cast(equal(arange(size), arange(size)), s.g.dtype)
  const pick = (): Tensor => {
    if (rule === 'random') return slice(random.permutation(s.key, n), [[0, size]])
    if (rule === 'cyclic') {
      const first = mul(sub(s.t, 1), size)
      return cast(remainder(add(cast(arange(size), 'float64'), first), n), 'int32')
    }
    if (rule === 'lipschitz') {
      const noise = random.gumbel(s.key, [n], { dtype: 'float64' })
      return top(add(log(atLeast(cast(s.lipschitz, 'float64'))), noise), size)
    }
    if (rule === 'gsq' && !constrained(s)) return thresholded(s, size)
    return top(worth(rule, s), size)
  }
  return { at: cast(pick(), 'int32'), counts }
}

/** One of fixed blocks [blocks, size]. */
export function fixedBlock(rule: BlockRule, s: Surface, blocks: { at: Tensor; counts: Tensor }): Block {
  const [n, size] = blocks.at.shape
  const flat = reshape(blocks.at, [n * size])
  const counts = cast(blocks.counts, s.g.dtype)
  const of = (x: Tensor): Tensor => mul(reshape(take(x, flat), [n, size]), counts)
  const parts = (): Tensor => vmap((at: Tensor, c: Tensor) => within(s.hessian!, { at, counts: c }))(blocks.at, counts)
  const reach = (): Tensor => (s.hessian ? largestOf(parts()) : sum(of(s.lipschitz), { axis: 1 }))
  const pick = (): Tensor => {
    if (rule === 'random') return reshape(random.integers(s.key, [1], 0, n), [])
    if (rule === 'cyclic') return cast(remainder(sub(s.t, 1), n), 'int32')
    if (rule === 'lipschitz') return random.categorical(s.key, log(atLeast(cast(reach(), 'float64'))))
    if (rule === 'gsl' && !constrained(s)) return argmax(div(sum(square(of(s.g)), { axis: 1 }), wideAtLeast(reach())))
    if (rule === 'gsq' && !constrained(s)) {
      const own = of(s.g)
      return argmax(sum(mul(own, solved(parts(), own)), { axis: 1 }))
    }
    return argmax(sum(of(worth(rule, s)), { axis: 1 }))
  }
  const chosen = pick()
  return { at: take(blocks.at, chosen, { axis: 0 }), counts: take(counts, chosen, { axis: 0 }) }
}
