import { maximum, mul, reciprocal, sub } from '../ops/elementwise.js'
import { defineOptimizer } from './define.js'
import type { Optimizer, RuleOptions } from './optimizer.js'

/** Hyper-parameters of `normalizedGd`. */
export interface NormalizedGdOptions extends RuleOptions {
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step, in [0, ∞). Default 0. */
  weightDecay?: number
}

/**
 * Steps of length lr along the gradient of all parameters together; none where the gradient is zero.
 * Source: Nesterov 1984; Hazan, Levy, Shalev-Shwartz, arXiv 1507.02030. Learning rate 0.01 where none is given. No state.
 */
export const normalizedGd: (options?: NormalizedGdOptions) => Optimizer = defineOptimizer({
  name: 'normalizedGd',
  lr: 0.01,
  hyper: { weightDecay: 0 },
  ranges: { weightDecay: '[0, inf)' },
  normalize: (norm) => reciprocal(maximum(norm, norm.dtype === 'float64' ? 1e-300 : 1e-37)),
  prepare: ({ lr, hyper }) => ({ shrink: sub(1, mul(lr, hyper.weightDecay)) }),
  step: ({ p, g, lr, c: { shrink } }) => ({ p: sub(mul(p, shrink), mul(g, lr)) }),
})
