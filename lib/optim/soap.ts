import { SteepestError } from '../errors.js'
import { eye } from '../ops/assemble.js'
import {
  add,
  cast,
  div,
  equal,
  greater,
  logicalAnd,
  logicalOr,
  maximum,
  mul,
  pow,
  remainder,
  sqrt,
  square,
  sub,
  where,
} from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { eigh, qr } from '../ops/linalg.js'
import { matmul } from '../ops/matmul.js'
import { mean, sum } from '../ops/reduce.js'
import { flip, reshape, transpose, zeros } from '../ops/shape.js'
import { argsort } from '../ops/sort.js'
import { type Shape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { cond } from '../transform/loop.js'
import { defineOptimizer, type Initial } from './define.js'
import type { FusedOptions } from './eight-bits.js'
import type { Optimizer } from './optimizer.js'

/** Hyper-parameters of `soap`. */
export interface SoapOptions extends FusedOptions {
  /** Share of the old mean of the gradient, in [0, 1). Default 0.95. */
  beta1?: number
  /** Share of the old mean of its square, in [0, 1). Default 0.95. */
  beta2?: number
  /** Both betas at once, as papers write them. */
  betas?: readonly [number, number]
  /** Share of the old factors, in [0, 1); below 0: beta2. Default −1. */
  shampooBeta?: number
  /** Added to the root. Default 1e-8. */
  eps?: number
  /** Decoupled decay: the weight is multiplied by 1 − lr · this after the step. Default 0.01. */
  weightDecay?: number
  /** Steps between two refreshes of the bases, a whole number of 1 or more. Default 10. */
  preconditionFrequency?: number
  /** An axis that is longer has no factor. Default 10,000. */
  maxPrecondDim?: number
  /** Neighbouring axes become one as long as it is no longer than `maxPrecondDim`. Default false. */
  mergeDims?: boolean
  /** Vectors have a factor too. Default false. */
  precondition1d?: boolean
  /** Steps of every tensor have the root mean square lr. Default false. */
  normalizeGrads?: boolean
  /** Correct both means for their start at zero. Default true. */
  correctBias?: boolean
}

/** The longest shapes there are. */
const AXES = 8
const front = (x: Tensor): Tensor => reshape(x, [x.shape[0], sizeOf(x.shape.slice(1))])

/** The first axis of x goes through a matrix and becomes the last; once for every axis gives back their order. */
function turned(x: Tensor, matrix: Tensor | undefined): Tensor {
  const rows = transpose(front(x))
  return reshape(matrix ? matmul(rows, matrix) : rows, [...x.shape.slice(1), x.shape[0]])
}
const into = (x: Tensor, bases: readonly (Tensor | undefined)[]): Tensor => bases.reduce(turned, x)
const outOf = (x: Tensor, bases: readonly (Tensor | undefined)[]): Tensor =>
  bases.reduce((y: Tensor, q) => turned(y, q && transpose(q)), x)

/** Products of what belongs to every two indices of an axis. */
function gram(x: Tensor, axis: number): Tensor {
  const order = [axis, ...x.shape.keys()].filter((a, i) => i === 0 || a !== axis)
  const rows = front(transpose(x, order))
  return matmul(rows, transpose(rows))
}

/** The shape with neighbouring axes taken together as far as they fit. */
function merged(shape: Shape, most: number): number[] {
  const out: number[] = []
  let now = 1
  for (const n of shape) {
    if (now * n <= most) now *= n
    else if (now > 1) {
      out.push(now)
      now = n
    } else out.push(n)
  }
  return now > 1 || out.length === 0 ? [...out, now] : out
}

/** Eigenvectors, those of large values first. */
const eigenbasis = (factor: Tensor): Tensor =>
  flip(eigh(add(factor, mul(eye(factor.shape[0], { dtype: factor.dtype }), 1e-30))).vectors, 1)

interface Turn {
  bases: Tensor[]
  m: Tensor
  v: Tensor
}

/**
 * SOAP: Adam in the eigenbases of Shampoo's factors, which are refreshed by a power iteration every few steps. The first step makes the
 * bases and moves nothing. Source: Vyas et al., arXiv 2409.11321; the authors' code, commit a1e5535. Learning rate 3e-3 where none is given.
 * State per parameter: m and v (in the bases), and for every axis a factor and a basis [n, n].
 */
export function soap(options: SoapOptions = {}): Optimizer {
  const who = 'optim.soap'
  const { betas, maxPrecondDim = 10_000, mergeDims = false, precondition1d = false, ...rest } = options
  const { preconditionFrequency: every = 10 } = rest
  if (!Number.isSafeInteger(every) || every < 1)
    throw new SteepestError('OPTION', {
      who,
      rule: '`preconditionFrequency` must be a whole number of 1 or more',
      got: String(every),
    })
  const shapeOf = (p: Tensor): Shape => (mergeDims && p.rank > 1 ? merged(p.shape, maxPrecondDim) : p.shape)
  /** Whether an axis has a factor. */
  const has = (p: Tensor, axis: number): boolean => {
    const shape = shapeOf(p)
    if (axis >= shape.length || p.size === 0 || (p.rank === 1 && !precondition1d)) return false
    return shape[axis] <= maxPrecondDim
  }
  const perAxis = (name: string): Record<string, Initial> =>
    Object.fromEntries(
      Array.from({ length: AXES }, (_, i): [string, Initial] => [
        `${name}${i}`,
        (p) => (has(p, i) ? zeros([shapeOf(p)[i], shapeOf(p)[i]], p.dtype) : null),
      ]),
    )
  return defineOptimizer({
    name: 'soap',
    lr: 3e-3,
    hyper: {
      beta1: betas?.[0] ?? 0.95,
      beta2: betas?.[1] ?? 0.95,
      shampooBeta: -1,
      eps: 1e-8,
      weightDecay: 0.01,
      preconditionFrequency: 10,
      normalizeGrads: false,
      correctBias: true,
    },
    ranges: {
      beta1: '[0, 1)',
      beta2: '[0, 1)',
      shampooBeta: '(-inf, 1)',
      eps: '[0, inf)',
      weightDecay: '[0, inf)',
      preconditionFrequency: '[1, inf)',
    },
    slots: { m: 0, v: 0, ...perAxis('factor'), ...perAxis('basis') } as Record<string, Initial>,
    moments: { m: 'either', v: 'positive' },
    prepare({ lr, t, hyper: { beta1, beta2, weightDecay, correctBias } }) {
      // The first step counts for nothing.
      const k = maximum(sub(t, 1), 1)
      const rate = where(greater(t, 1), lr, 0)
      const bias = correctBias ? div(sqrt(sub(1, pow(beta2, k))), sub(1, pow(beta1, k))) : 1
      return { size: mul(rate, bias), shrink: sub(1, mul(rate, weightDecay)) }
    },
    step({ p, g, t, slots, c: { size, shrink }, hyper }) {
      const { beta1, beta2, eps, shampooBeta, preconditionFrequency, normalizeGrads } = hyper
      const shape = shapeOf(p)
      const axes = [...shape.keys()].filter((i) => `factor${i}` in slots)
      const basesOf = (list: readonly Tensor[]) => [...shape.keys()].map((i) => list[axes.indexOf(i)])
      const old = axes.map((i) => slots[`basis${i}`])
      const flat = reshape(g, shape)
      const seen = where(greater(t, 1), into(flat, basesOf(old)), 0)
      const m = add(mul(reshape(slots.m, shape), beta1), mul(seen, 1 - beta1))
      const v = add(mul(reshape(slots.v, shape), beta2), mul(square(seen), 1 - beta2))
      let u = outOf(where(greater(t, 1), div(m, add(sqrt(v), eps)), 0), basesOf(old))
      if (normalizeGrads) u = div(u, add(sqrt(mean(square(u))), 1e-30))
      const moved = mul(sub(p, mul(reshape(u, p.shape), size)), shrink)

      const keep = shampooBeta >= 0 ? shampooBeta : beta2
      const factors = axes.map((i) => add(mul(slots[`factor${i}`], keep), mul(gram(flat, i), 1 - keep)))
      const refresh = logicalAnd(greater(t, 1), equal(remainder(sub(t, 1), preconditionFrequency), 0))
      const same = (turn: Turn): Turn => turn
      const begin = ({ m: m0, v: v0 }: Turn): Turn => ({ bases: factors.map(eigenbasis), m: m0, v: v0 })
      const iterate = ({ bases, m: m0, v: v0 }: Turn): Turn => {
        let sorted = v0
        const next = bases.map((q, k) => {
          const values = sum(mul(q, matmul(factors[k], q)), { axis: 0 })
          const order = argsort(values, { descending: true })
          sorted = take(sorted, order, { axis: axes[k] })
          return qr(matmul(factors[k], take(q, order, { axis: 1 }))).q
        })
        return { bases: next, m: into(outOf(m0, basesOf(bases)), basesOf(next)), v: sorted }
      }
      const turn =
        axes.length === 0
          ? { bases: [], m, v }
          : cond(logicalOr(equal(t, 1), refresh), (now: Turn) => cond(equal(t, 1), begin, iterate, now), same, {
              bases: old,
              m,
              v,
            })
      const next: Record<string, Tensor> = { m: reshape(turn.m, p.shape), v: reshape(turn.v, p.shape) }
      axes.forEach((i, k) => {
        next[`factor${i}`] = factors[k]
        next[`basis${i}`] = cast(turn.bases[k], p.dtype)
      })
      return { p: moved, ...next }
    },
  })(rest)
}
