import { add, div, maximum, minimum, mul, pow, rsqrt, sqrt, square, sub } from '../ops/elementwise.js'
import { mean } from '../ops/reduce.js'
import { zeros } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOptimizer } from './define.js'
import type { Optimizer, RuleOptions } from './optimizer.js'

/** Hyper-parameters of `adafactor`. */
export interface AdafactorOptions extends RuleOptions {
  /** The old second moment keeps 1 − t^this, in (−∞, 0]; default −0.8. */
  beta2Decay?: number
  /** Least mean of squares (null: the machine epsilon of the dtype), and least size of the weights. Default [null, 1e-3]. */
  eps?: readonly [number | null, number]
  /** Root mean square that a step has at most, in (0, ∞); default 1. */
  d?: number
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step, in [0, ∞). Default 0. */
  weightDecay?: number
}

const epsilonOf = (dtype: DType): number => (dtype === 'float64' ? 2 ** -52 : 2 ** -23)
const factored = (p: Tensor): boolean => p.rank > 1
const toward = (a: Tensor, b: Tensor, share: Tensor): Tensor => add(a, mul(sub(b, a), share))
const rms = (x: Tensor): Tensor => sqrt(mean(square(x)))

/**
 * Adafactor as PyTorch has it: the second moment of a matrix is held as its row and column means, and steps are as long as the weights
 * times min(lr, 1/√t). Source: Shazeer, Stern, arXiv 1804.04235. Learning rate 0.01 where none is given.
 * State per parameter: `row` and `col` (one number per row and per column of the last two axes), or `v` where there are fewer than two.
 * @throws SteepestError for an unknown option or one out of its range
 */
export function adafactor(options: AdafactorOptions = {}): Optimizer {
  const { eps: [eps1, eps2] = [null, 1e-3], ...rest } = options
  return defineOptimizer({
    name: 'adafactor',
    lr: 0.01,
    hyper: { beta2Decay: -0.8, d: 1, weightDecay: 0 },
    ranges: { beta2Decay: '(-inf, 0]', d: '(0, inf)', weightDecay: '[0, inf)' },
    slots: {
      row: (p) => (factored(p) ? zeros([...p.shape.slice(0, -1), 1], p.dtype) : null),
      col: (p) => (factored(p) ? zeros([...p.shape.slice(0, -2), 1, p.shape[p.rank - 1]], p.dtype) : null),
      v: (p) => (factored(p) ? null : zeros(p.shape, p.dtype)),
    },
    prepare: ({ lr, t, hyper }) => ({
      fresh: pow(t, hyper.beta2Decay),
      rate: minimum(lr, rsqrt(t)),
      shrink: sub(1, mul(lr, hyper.weightDecay)),
    }),
    step({ p, g, slots, c: { fresh, rate, shrink }, hyper }) {
      const floor = eps1 ?? epsilonOf(p.dtype)
      const size = mul(maximum(rms(p), eps2), rate)
      const squares = square(g)
      let next: { row?: Tensor; col?: Tensor; v?: Tensor }
      let estimate: Tensor
      if (factored(p)) {
        const row = toward(slots.row, mean(squares, { axis: -1, keepDims: true }), fresh)
        const col = toward(slots.col, mean(squares, { axis: -2, keepDims: true }), fresh)
        next = { row, col }
        estimate = div(mul(row, col), maximum(mean(row, { axis: -2, keepDims: true }), floor))
      } else {
        estimate = toward(slots.v, squares, fresh)
        next = { v: estimate }
      }
      const u = mul(rsqrt(maximum(estimate, floor * floor)), g)
      const shorten = maximum(div(rms(u), hyper.d), 1)
      return { p: sub(mul(p, shrink), mul(u, div(size, shorten))), ...next }
    },
  })(rest)
}
