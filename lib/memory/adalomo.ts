import { checkOptions } from '../errors.js'
import { add, div, maximum, mul, pow, rsqrt, sqrt, square, sub } from '../ops/elementwise.js'
import { mean } from '../ops/reduce.js'
import { zeros } from '../ops/shape.js'
import { defineOptimizer } from '../optim/define.js'
import type { Optimizer, RuleOptions } from '../optim/optimizer.js'
import type { Tensor } from '../tensor/tensor.js'

/** Options of `adalomo`. */
export interface AdalomoOptions extends RuleOptions {
  /** The old second moment keeps 1 − t^this, in (−∞, 0]. Default −0.8. */
  decayRate?: number
  /** Added to squared gradients. Default 1e-30. */
  eps?: number
  /** The least size of a weight that steps are measured by. Default 1e-3. */
  least?: number
  /** Root mean square that a step has at most, before the weight's size. Default 1. */
  clipThreshold?: number
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step. Default 0. */
  weightDecay?: number
}

const rms = (x: Tensor): Tensor => sqrt(mean(square(x)))
const factored = (p: Tensor): boolean => p.rank > 1

/**
 * AdaLOMO's update: the second moment as row and column means, steps in units of the size of the weight. There is no first moment, so that a
 * gradient is of no use after its update: without a clip over all gradients, each is used up as soon as the backward pass has it, and no two need
 * live at once. Learning rate 1e-3 where none is given.
 *
 * State per matrix m × n: m + n numbers; of vectors as many as they have.
 * Source: Lv et al., "AdaLomo", arXiv 2310.10195.
 *
 * @example memory.adalomo({ lr: 5e-4 })
 */
export function adalomo(options: AdalomoOptions = {}): Optimizer {
  checkOptions('memory.adalomo', options, [
    ...['lr', 'groups', 'clip', 'rounding'],
    ...['decayRate', 'eps', 'least', 'clipThreshold', 'weightDecay'],
  ])
  return defineOptimizer({
    name: 'adalomo',
    hyper: { decayRate: -0.8, eps: 1e-30, least: 1e-3, clipThreshold: 1, weightDecay: 0 },
    slots: {
      row: (p) => (factored(p) ? zeros([...p.shape.slice(0, -1), 1], p.dtype) : null),
      col: (p) => (factored(p) ? zeros([...p.shape.slice(0, -2), 1, p.shape[p.rank - 1]], p.dtype) : null),
      v: (p) => (factored(p) ? null : zeros(p.shape, p.dtype)),
    },
    prepare: ({ lr, t, hyper }) => ({
      fresh: pow(t, hyper.decayRate),
      shrink: sub(1, mul(lr, hyper.weightDecay)),
    }),
    step({ p, g, slots, lr, c: { fresh, shrink }, hyper: { eps, least, clipThreshold } }) {
      const squares = add(square(g), eps)
      const toward = (a: Tensor, b: Tensor): Tensor => add(a, mul(sub(b, a), fresh))
      let next: { row?: Tensor; col?: Tensor; v?: Tensor }
      let u: Tensor
      if (factored(p)) {
        const row = toward(slots.row, mean(squares, { axis: -1, keepDims: true }))
        const col = toward(slots.col, mean(squares, { axis: -2, keepDims: true }))
        next = { row, col }
        const scaled = rsqrt(div(row, mean(row, { axis: -2, keepDims: true })))
        u = mul(mul(g, scaled), rsqrt(col))
      } else {
        const v = toward(slots.v, squares)
        next = { v }
        u = mul(g, rsqrt(v))
      }
      const shorten = maximum(div(rms(u), clipThreshold), 1)
      const size = mul(lr, maximum(rms(p), least))
      return { p: sub(mul(p, shrink), mul(u, div(size, shorten))), ...next }
    },
  })(options)
}
