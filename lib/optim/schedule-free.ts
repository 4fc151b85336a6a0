import { add, cast, div, maximum, minimum, mul, pow, sqrt, square, sub } from '../ops/elementwise.js'
import { SteepestError } from '../errors.js'
import { zeros } from '../ops/shape.js'
import { withTensors, parameters } from '../nn/module.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOptimizer } from './define.js'
import type { FusedOptions } from './eight-bits.js'
import type { Optimizer, OptimizerState } from './optimizer.js'

/** Hyper-parameters of `scheduleFreeAdamw`. */
export interface ScheduleFreeOptions extends FusedOptions {
  /** Share of the average in the point where gradients are taken, in (0, 1); default 0.9. */
  beta1?: number
  /** Share of the old mean square, in [0, 1); default 0.999. */
  beta2?: number
  /** Both betas at once, as papers write them. */
  betas?: readonly [number, number]
  /** Added to the root, after the bias correction. Default 1e-8. */
  eps?: number
  /** Decoupled decay, at the point where gradients are taken. Default 0. */
  weightDecay?: number
  /** Steps over which the learning rate rises. Default 0. */
  warmupSteps?: number
  /** Steps enter the average by their number to this power. Default 0. */
  r?: number
  /** Steps enter the average by the highest learning rate so far to this power. Default 2. */
  weightLrPower?: number
  /** Share of the old mean of the gradient, which then takes the gradient's place in the step, in [0, 1); 0 keeps none. Default 0. */
  innerMomentum?: number
}

const between = (a: Tensor, b: Tensor, share: Tensor | number): Tensor => add(a, mul(sub(b, a), share))

/**
 * AdamW without a schedule: gradients are taken at y, between the iterate z and the average x of all iterates, and x is what is good to use:
 * `evalParams` gives it, and `train` evaluates, uses and saves it; the weights that training holds are y.
 * Source: Defazio et al., "The road less scheduled", arXiv 2405.15682. Learning rate 2.5e-3 where none is given.
 * State per parameter: z, v (mean of the squared gradient), m with `innerMomentum`, and two numbers for the average's weights.
 */
export function scheduleFreeAdamw(options: ScheduleFreeOptions = {}): Optimizer {
  const { betas, innerMomentum = 0, ...rest } = options
  if (!(innerMomentum >= 0 && innerMomentum < 1))
    throw new SteepestError('OPTION', {
      who: 'optim.scheduleFreeAdamw',
      rule: '`innerMomentum` must be in [0, 1)',
      got: String(innerMomentum),
    })
  const inner = defineOptimizer({
    name: 'scheduleFreeAdamw',
    lr: 2.5e-3,
    hyper: {
      beta1: betas?.[0] ?? 0.9,
      beta2: betas?.[1] ?? 0.999,
      eps: 1e-8,
      weightDecay: 0,
      warmupSteps: 0,
      r: 0,
      weightLrPower: 2,
    },
    ranges: {
      beta1: '(0, 1)',
      beta2: '[0, 1)',
      eps: '[0, inf)',
      weightDecay: '[0, inf)',
      warmupSteps: '[0, inf)',
      r: '[0, inf)',
      weightLrPower: '[0, inf)',
    },
    slots: {
      m: (p) => (innerMomentum > 0 ? zeros(p.shape, p.dtype) : null),
      z: (p) => p,
      v: 0,
      lrMax: () => zeros([], 'float64'),
      weightSum: () => zeros([], 'float64'),
    },
    moments: { m: 'either', v: 'positive' },
    prepare: ({ lr, t, hyper: { beta2, warmupSteps } }) => ({
      rate: warmupSteps > 0 ? mul(lr, minimum(div(t, warmupSteps), 1)) : lr,
      bias: sub(1, pow(beta2, t)),
      meanBias: innerMomentum > 0 ? sub(1, pow(innerMomentum, t)) : lr,
    }),
    step({ p: y, g, t, slots, c: { rate, bias, meanBias }, hyper }) {
      const { beta1, beta2, eps, weightDecay, r, weightLrPower } = hyper
      const lrMax = maximum(slots.lrMax, cast(rate, 'float64'))
      const weight = mul(pow(cast(t, 'float64'), r), pow(lrMax, weightLrPower))
      const weightSum = add(slots.weightSum, weight)
      // A rate of 0 up to now gives no weight at all.
      const share = cast(div(weight, maximum(weightSum, 1e-300)), y.dtype)
      const v = add(mul(slots.v, beta2), mul(square(g), 1 - beta2))
      const m = innerMomentum > 0 ? add(mul(slots.m, innerMomentum), mul(g, 1 - innerMomentum)) : g
      const u = add(div(innerMomentum > 0 ? div(m, meanBias) : g, add(sqrt(div(v, bias)), eps)), mul(y, weightDecay))
      const ahead = mul(rate, sub(mul(sub(1, share), beta1), 1))
      return {
        p: add(between(y, slots.z, share), mul(u, ahead)),
        z: sub(slots.z, mul(u, rate)),
        v,
        lrMax,
        weightSum,
        ...(innerMomentum > 0 ? { m } : {}),
      }
    },
  })(rest)
  const beta1 = inner.hyper.beta1 as number
  const evalParams = <P>(params: P, state: OptimizerState): P => {
    const x = Object.entries(parameters(params)).map(([name, y]): [string, Tensor] => {
      const z = state.slots.z?.[name]
      const held = state.slots.master?.[name] ?? y
      return [name, z ? cast(between(held, z, 1 - 1 / beta1), y.dtype) : y]
    })
    return withTensors(params, Object.fromEntries(x))
  }
  const { in8bits } = inner
  return {
    ...inner,
    evalParams,
    ...(in8bits ? { in8bits: () => scheduleFreeAdamw({ ...options, states: '8bit' }) } : {}),
  }
}
