import { SteepestError } from '../errors.js'
import { assign } from '../ops/control.js'
import { add, cast, greater, mul, rsqrt, square, sub, where } from '../ops/elementwise.js'
import { full } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { globalNorm } from './clip.js'
import { defineOptimizer } from './define.js'
import type { Optimizer, RuleOptions } from './optimizer.js'
import { wrapGradients } from './wrap.js'

/** Hyper-parameters of `adagradNorm`. */
export interface AdagradNormOptions extends RuleOptions {
  /** What the root of the sum begins with, in [0, ∞). Default 0.1. */
  b0?: number
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step, in [0, ∞). Default 0. */
  weightDecay?: number
}

const plain = defineOptimizer({
  name: 'adagradNorm',
  lr: 1,
  hyper: { weightDecay: 0 },
  ranges: { weightDecay: '[0, inf)' },
  prepare: ({ lr, hyper }) => ({ shrink: sub(1, mul(lr, hyper.weightDecay)) }),
  step: ({ p, g, lr, c: { shrink } }) => ({ p: sub(mul(p, shrink), mul(g, lr)) }),
})

/** The sum is one number for all parameters; it stands under this name. */
const ALL = 'all'

/**
 * Gradient descent whose rate falls with the sum of the squared norms of all gradients so far: x − lr · g / √(b0² + Σ‖g‖²), this step's
 * gradient included. Source: Ward, Wu, Bottou, arXiv 1806.01811. Learning rate 1 where none is given. State: one float64 number.
 */
export function adagradNorm(options: AdagradNormOptions = {}): Optimizer {
  const who = 'optim.adagradNorm'
  const { b0 = 0.1, ...rest } = options
  if (!(typeof b0 === 'number' && b0 >= 0 && b0 < Infinity))
    throw new SteepestError('OPTION', { who, rule: '`b0` must be in [0, ∞)', got: String(b0) })
  const base = plain(rest)
  const optimizer = wrapGradients(base, {
    who,
    name: 'adagradNorm',
    hyper: { b0 },
    own: { names: ['sum'], init: () => ({ sum: { [ALL]: full([], b0 * b0, 'float64') } }) },
    change(grads, _, __, slots) {
      const held = slots.sum[ALL]
      const squares = square(cast(globalNorm(Object.values(grads)), 'float64'))
      const sum = assign(held, add(held, squares))
      // Nothing has had a gradient yet: nothing moves.
      const scale = where(greater(sum, 0), rsqrt(where(greater(sum, 0), sum, 1)), 0)
      const scaled = Object.entries(grads).map(([name, g]): [string, Tensor] => [name, mul(g, cast(scale, g.dtype))])
      return { grads: Object.fromEntries(scaled), slots: { sum: { [ALL]: sum } } }
    },
  })
  return { ...optimizer, name: base.name, clip: base.clip }
}
