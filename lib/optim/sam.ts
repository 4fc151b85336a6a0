import { checkOptions, SteepestError } from '../errors.js'
import { namedTensors, withTensors } from '../nn/module.js'
import { abs, add, cast, div, mul, square } from '../ops/elementwise.js'
import type { Tensor } from '../tensor/tensor.js'
import { gradsByName } from './base.js'
import { globalNorm } from './clip.js'
import { type Objective, withGradient } from './objective.js'
import { checkPositive } from './options.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'
import { smaller, stepOn } from './through.js'

/** Hyper-parameters of `sam`. */
export interface SamOptions {
  /** Radius of the neighbourhood in which the worst loss is minimized, above 0. Default 0.05. */
  rho?: number
  /** Measure the neighbourhood in units of each weight (ASAM). Default false. */
  adaptive?: boolean
  /** Added to |w| where it is the unit, in [0, ∞). Default 0. */
  eta?: number
  /** Names of the parameters whose own size is the unit; the others have the unit 1. Default all. */
  match?: RegExp
}

/** Hyper-parameters of `asam`. */
export type AsamOptions = Omit<SamOptions, 'adaptive'>

/** The error of an optimizer that was called with gradients alone. */
export function needsObjective(name: string): never {
  throw new SteepestError('ARGUMENT', {
    who: `optim.${name}`,
    rule: 'it needs the objective, not only its gradient',
    fix: 'Call step(objective(loss), params, state), or train with train()',
  })
}

function wrap(base: Optimizer, name: string, options: Required<SamOptions>, tiny: number): Optimizer {
  const { rho, adaptive, eta, match } = options
  const who = `optim.${name}`
  checkPositive(who, 'rho', rho)
  if (!(typeof eta === 'number' && eta >= 0)) {
    throw new SteepestError('OPTION', { who, rule: '`eta` must be 0 or more', got: String(eta) })
  }

  /** The objective whose gradient is taken at the worst place nearby. */
  const sharp = <P>(given: Objective<P>): Objective<P> =>
    withGradient(given, (objective) => (params) => {
      const { loss, grads } = objective.valueAndGrad(params)
      const moved = new Set(base.moved(params))
      const named = Object.entries(namedTensors(params).parameters).filter(([k]) => moved.has(k))
      const byName = gradsByName(who, params, grads, new Map(named.map(([k, p]) => [p, k])))
      const steps = named.map(([k, p]) => {
        const g = byName.get(k)!
        if (!adaptive || !match.test(k)) return { k, p, scaled: g, ascent: g }
        const unit = add(abs(cast(p, g.dtype)), eta)
        return { k, p, scaled: mul(unit, g), ascent: mul(square(unit), g) }
      })
      const norm = globalNorm(steps.map((s) => s.scaled))
      const scale = div(rho, add(norm, tiny))
      const away = ({ p, ascent }: { p: Tensor; ascent: Tensor }): Tensor =>
        add(p, cast(mul(ascent, cast(scale, ascent.dtype)), p.dtype))
      const worst = withTensors(params, Object.fromEntries(steps.map((s) => [s.k, away(s)])))
      return { loss, grads: objective.valueAndGrad(worst).grads }
    })

  const step = <P>(objective: Objective<P>, params: P, state: OptimizerState, context: StepContext = {}): Stepped<P> =>
    stepOn(who, base, sharp(objective), params, state, context)

  return {
    ...base,
    name: `${name}(${base.name})`,
    hyper: { ...base.hyper, rho, adaptive, eta },
    ...smaller(base, (o) => wrap(o, name, options, tiny)),
    update: () => needsObjective(name),
    step,
  }
}

/**
 * Sharpness-aware minimization: each step takes its gradient where the loss is worst within `rho` of the weights, by one ascent step along the
 * gradient, and gives it to `base`. Two gradients a step; no state of its own. Batch statistics move with the first of them only.
 * Source: Foret, Kleiner, Mobahi, Neyshabur 2021, arXiv 2010.01412. With `adaptive`: see `asam`.
 */
export function sam(base: Optimizer, options: SamOptions = {}): Optimizer {
  checkOptions('optim.sam', options, ['rho', 'adaptive', 'eta', 'match'])
  return wrap(base, 'sam', { rho: 0.05, adaptive: false, eta: 0, match: /./, ...options }, 1e-12)
}

/**
 * Adaptive sharpness-aware minimization: as `sam`, in a neighbourhood whose unit is |w| + eta for weights (`match`, by default the names that
 * contain "weight") and 1 for the others, so that it does not change with the scale of the weights.
 * Source: Kwon, Kim, Park, Choi 2021, arXiv 2102.11600. Defaults rho 0.5, eta 0.01.
 */
export function asam(base: Optimizer, options: AsamOptions = {}): Optimizer {
  checkOptions('optim.asam', options, ['rho', 'eta', 'match'])
  return wrap(base, 'asam', { rho: 0.5, adaptive: true, eta: 0.01, match: /weight/, ...options }, 1e-16)
}
