import { SteepestError } from '../errors.js'
import {
  abs,
  add,
  cast,
  clip,
  div,
  equal,
  greater,
  less,
  mul,
  pow,
  sign,
  sqrt,
  square,
  sub,
  where,
} from '../ops/elementwise.js'
import { svd } from '../ops/linalg.js'
import { matmul } from '../ops/matmul.js'
import { max, sum } from '../ops/reduce.js'
import { argsort } from '../ops/sort.js'
import { reshape } from '../ops/shape.js'
import { sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { grad } from '../transform/grad.js'
import { defineOptimizer } from './define.js'
import { checkPositive } from './options.js'
import type { FusedOptions } from './eight-bits.js'
import type { Optimizer } from './optimizer.js'

/** A convex function by a subgradient of it, 0 at 0. */
export interface Convex {
  readonly name: string
  subgradient(u: Tensor): Tensor
}

/** a / b, and 0 where b is 0. */
const ratio = (a: Tensor, b: Tensor): Tensor => where(greater(b, 0), div(a, where(greater(b, 0), b, 1)), 0)

/** u over its norm, scaled first so that squares neither overflow nor vanish. */
function direction(u: Tensor, axis?: number[]): Tensor {
  const unit = ratio(u, max(abs(u), { axis, keepDims: true }))
  return ratio(unit, sqrt(sum(square(unit), { axis, keepDims: true })))
}

/** u as one row per index of its first axis. */
const rows = (u: Tensor): Tensor => reshape(u, [u.shape[0], sizeOf(u.shape.slice(1))])

/** The convex functions of Lion-K, each by its subgradient; `p`, `e` in (0, ∞). */
export const convex = {
  /** ‖u‖₁: Lion. */
  l1: (): Convex => ({ name: 'l1', subgradient: sign }),
  /** ‖u‖₂ of the whole tensor. */
  l2: (): Convex => ({ name: 'l2', subgradient: (u) => (u.size === 0 ? u : direction(u)) }),
  /** Sum of ‖row‖₂, a row being what belongs to one index of the first axis. */
  groupL2: (): Convex => ({
    name: 'groupL2',
    subgradient: (u) => (u.size === 0 ? u : u.rank < 2 ? sign(u) : reshape(direction(rows(u), [1]), u.shape)),
  }),
  /** ‖u‖∞: the largest numbers share the step. */
  linf: (): Convex => ({
    name: 'linf',
    subgradient(u) {
      if (u.size === 0) return u
      const most = cast(equal(abs(u), max(abs(u))), u.dtype)
      return mul(sign(u), div(most, sum(most)))
    },
  }),
  /** ‖u‖_p, p above 1. */
  lp(p: number): Convex {
    if (!(p > 1))
      throw new SteepestError('OPTION', { who: 'optim.convex.lp', rule: '`p` must be above 1', got: String(p) })
    const subgradient = (u: Tensor): Tensor => {
      if (u.size === 0) return u
      const unit = ratio(abs(u), max(abs(u)))
      return mul(sign(u), ratio(pow(unit, p - 1), pow(sum(pow(unit, p)), (p - 1) / p)))
    }
    return { name: 'lp', subgradient }
  },
  /** Huber's function: u²/2e inside of e, |u| − e/2 outside. */
  huber(e: number): Convex {
    checkPositive('optim.convex.huber', 'e', e)
    return { name: 'huber', subgradient: (u) => div(clip(u, -e, e), e) }
  },
  /** Σ √(u² + e²). */
  smoothL1(e: number): Convex {
    checkPositive('optim.convex.smoothL1', 'e', e)
    return { name: 'smoothL1', subgradient: (u) => div(u, sqrt(add(square(u), e * e))) }
  },
  /** Σ max(|u| − e, 0). */
  deadZone(e: number): Convex {
    checkPositive('optim.convex.deadZone', 'e', e)
    return { name: 'deadZone', subgradient: (u) => where(greater(abs(u), e), sign(u), 0) }
  },
  /** The nuclear norm of the tensor as a matrix [first axis, rest]; ‖u‖₂ where there are fewer than two axes. */
  nuclear: (): Convex => ({
    name: 'nuclear',
    subgradient(u) {
      if (u.rank < 2 || u.size === 0) return convex.l2().subgradient(u)
      const { u: left, s: values, vh: right } = svd(rows(u))
      const kept = cast(greater(values, mul(max(values), 1e-12)), u.dtype)
      return reshape(matmul(mul(left, kept), right), u.shape)
    },
  }),
  /** Sum of the largest |u|: round(fraction · size) of them, fraction in (0, 1]. Equal numbers: the first. */
  topK(fraction: number): Convex {
    if (!(fraction > 0 && fraction <= 1))
      throw new SteepestError('OPTION', {
        who: 'optim.convex.topK',
        rule: '`fraction` must be in (0, 1]',
        got: String(fraction),
      })
    const subgradient = (u: Tensor): Tensor => {
      const k = Math.round(fraction * u.size)
      if (k === 0) return mul(u, 0)
      const flat = reshape(u, [u.size])
      const rank = argsort(argsort(abs(flat), { descending: true }))
      return reshape(where(less(rank, k), sign(flat), 0), u.shape)
    }
    return { name: 'topK', subgradient }
  },
  /** Any convex function of a tensor, by its derivative. */
  of: (f: (u: Tensor) => Tensor, name = 'own'): Convex => ({ name, subgradient: (u) => grad(f)(u) }),
}

/** Hyper-parameters of `lionK`. */
export interface LionKOptions extends FusedOptions {
  /** The convex function; default `convex.l1()`, which is Lion. */
  K?: Convex
  /** Share of the old mean in the direction, in [0, 1); default 0.9. */
  beta1?: number
  /** Share of the old mean in the new one, in [0, 1); default 0.99. */
  beta2?: number
  /** Both betas at once, as papers write them. */
  betas?: readonly [number, number]
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step, in [0, ∞). Default 0. */
  weightDecay?: number
}

/**
 * Lion with the sign replaced by the subgradient of a convex function K: it minimizes the loss plus K* of the decayed weights.
 * Source: Chen et al., "Lion secretly solves constrained optimization", arXiv 2310.05898. Learning rate 1e-4 where none is given.
 * State per parameter: m (mean of the gradient).
 */
export function lionK(options: LionKOptions = {}): Optimizer {
  const { K = convex.l1(), betas, ...rest } = options
  if (typeof K !== 'object' || typeof K.subgradient !== 'function') {
    throw new SteepestError('OPTION', {
      who: 'optim.lionK',
      rule: '`K` must have a `subgradient`',
      got: String(K),
      fix: 'Take one of optim.convex, or optim.convex.of(f)',
    })
  }
  return defineOptimizer({
    name: 'lionK',
    lr: 1e-4,
    hyper: { beta1: betas?.[0] ?? 0.9, beta2: betas?.[1] ?? 0.99, weightDecay: 0 },
    ranges: { beta1: '[0, 1)', beta2: '[0, 1)', weightDecay: '[0, inf)' },
    slots: { m: 0 },
    moments: { m: 'either' },
    prepare: ({ lr, hyper }) => ({ shrink: sub(1, mul(lr, hyper.weightDecay)) }),
    step({ p, g, slots: { m }, lr, c: { shrink }, hyper: { beta1, beta2 } }) {
      const u = add(mul(m, beta1), mul(g, 1 - beta1))
      return { p: sub(mul(p, shrink), mul(K.subgradient(u), lr)), m: add(mul(m, beta2), mul(g, 1 - beta2)) }
    },
  })(rest)
}
