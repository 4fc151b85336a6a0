import { checkOptions, SteepestError } from '../errors.js'
import { quantizeBlockwise } from '../ops/blockwise.js'
import { assign } from '../ops/control.js'
import { abs, add, cast, div, equal, maximum, minimum, mul, remainder, sign, sub } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { zeros } from '../ops/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { cond } from '../transform/loop.js'
import { argsOf, argument, COMMON, gradsByName } from './base.js'
import { type Curvature, gaussNewton, hutchinson } from './curvature.js'
import { defineOptimizer } from './define.js'
import type { Objective } from './objective.js'
import {
  blocksOf,
  eightBitsFrom,
  type FusedOptions,
  isBlockwise,
  opened,
  type StateSign,
  STORAGE,
} from './eight-bits.js'
import { checkPositive, groupOf } from './options.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { movedOf, seedKey, wideOf } from './wrap.js'

/** Hyper-parameters that both Sophias have. */
interface SophiaOptions extends FusedOptions {
  /** Share of the old mean of the gradient, in [0, 1). Default 0.965, Sophia-H 0.96. */
  beta1?: number
  /** Share of the old curvature when it is estimated anew, in [0, 1). Default 0.99. */
  beta2?: number
  /** Both betas at once, as papers write them. */
  betas?: readonly [number, number]
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step, in [0, ∞). Default 0.1. */
  weightDecay?: number
  /** Guards the division, in [0, ∞). Default 1e-15, Sophia-H 1e-12. */
  eps?: number
  /** Steps between two estimates of the curvature, a whole number of 1 or more. Default 10. */
  every?: number
  /** Where the curvature comes from. */
  curvature?: Curvature
}

/** Hyper-parameters of `sophiaG`. */
export interface SophiaGOptions extends SophiaOptions {
  /** What the curvature is multiplied by in the denominator, above 0. Default 0.04. */
  rho?: number
  /**
   * Rows of a step (tokens), above 0, as the authors' code wants them; then the states hold squares that are not multiplied by it. By default
   * they are counted, and the states hold the curvature itself.
   */
  batch?: number
}

/** Hyper-parameters of `sophiaH`. */
export interface SophiaHOptions extends SophiaOptions {
  /** What the curvature is multiplied by in the denominator, above 0. Default 0.01. */
  gamma?: number
  /** The longest step in units of lr, above 0. Default 1. */
  clipAt?: number
}

/** Curvatures by parameter: numbers, or codes with the units of their blocks. */
interface Held {
  h: Record<string, Tensor>
  hUnits: Record<string, Tensor>
}

interface Variant {
  readonly name: 'sophiaG' | 'sophiaH'
  readonly options: SophiaOptions
  readonly betas: readonly [number, number]
  readonly eps: number
  readonly curvature: Curvature
  /** Whether it can be negative. */
  readonly sign: StateSign
  /** When the curvature is estimated: after every k-th step where it led to, or before steps 1, k + 1, …. */
  readonly after: boolean
  readonly hyper: Readonly<Record<string, number>>
  readonly longest: number
  /** Denominator of the step. */
  readonly denominator: (h: Tensor, eps: number) => Tensor
}

function make(variant: Variant): Optimizer {
  const { name, options, curvature, sign: curvatureSign, after, longest, denominator } = variant
  const who = `optim.${name}`
  const { every = 10, betas, curvature: _, ...rest } = options
  if (!Number.isSafeInteger(every) || every < 1)
    throw new SteepestError('OPTION', { who, rule: '`every` must be a whole number of 1 or more', got: String(every) })
  const [beta1, beta2] = [
    options.beta1 ?? betas?.[0] ?? variant.betas[0],
    options.beta2 ?? betas?.[1] ?? variant.betas[1],
  ]
  const { clip } = options
  /** The part that needs a gradient and the curvature, which it does not change. */
  const moving = (curvatures: Readonly<Record<string, Tensor>>): Optimizer =>
    defineOptimizer({
      name,
      lr: 1e-4,
      hyper: { beta1: variant.betas[0], beta2: 0.99, eps: variant.eps, weightDecay: 0.1 },
      ranges: { beta1: '[0, 1)', beta2: '[0, 1)', eps: '[0, inf)', weightDecay: '[0, inf)' },
      slots: { m: 0 },
      moments: { m: 'either' },
      prepare: ({ lr, hyper }) => ({ shrink: sub(1, mul(lr, hyper.weightDecay)) }),
      step({ p, g, slots, lr, c: { shrink }, hyper, name: path }) {
        const m = add(mul(slots.m, hyper.beta1), mul(g, 1 - hyper.beta1))
        const long = div(abs(m), denominator(curvatures[path], hyper.eps))
        return { p: sub(mul(p, shrink), mul(mul(sign(m), minimum(long, longest)), lr)), m }
      },
    })({ ...rest, beta1, beta2 })
  const base = moving({})
  /** Curvatures as they are kept: numbers, or codes with their units. */
  const firstOf = (params: unknown): Held => {
    const held: { h: Record<string, Tensor>; hUnits: Record<string, Tensor> } = { h: {}, hUnits: {} }
    for (const { name: path, p } of movedOf(base, params)) {
      const from = eightBitsFrom(who, { ...options, ...groupOf(options.groups ?? [], path, p).hyper })
      if (!isBlockwise(p, from)) {
        held.h[path] = zeros(p.shape, wideOf(p))
        continue
      }
      const { codes, units } = blocksOf(p.shape, 0, curvatureSign)
      held.h[path] = codes
      held.hUnits[path] = units
    }
    return held
  }
  const numbersOf = ({ h, hUnits }: Held): Record<string, Tensor> =>
    Object.fromEntries(
      Object.entries(h).map(([k, t]) => [k, k in hUnits ? opened({ codes: t, units: hUnits[k] }, curvatureSign) : t]),
    )
  const init = (params: unknown): OptimizerState => {
    const { step, slots } = base.init(params)
    const { h, hUnits } = firstOf(params)
    return { step, slots: { ...slots, h, ...(Object.keys(hUnits).length > 0 ? { hUnits } : {}) } }
  }

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const { scaleOf, clipNorm, ...others } = context
    const { h, hUnits = {}, ...slots } = state.slots
    const held: Held = { h, hUnits }
    const args = argsOf(who, base.lr, state, context)
    const t = argument(args, 1)
    const key = random.foldIn(context.key ?? objective.key ?? seedKey(0), cast(t, 'int32'))
    const { loss, grads } = objective.valueAndGrad(params)
    const moved = movedOf(base, params)
    const byName = Object.fromEntries(gradsByName(who, params, grads, new Map(moved.map((m) => [m.p, m.name]))))
    /** The curvature where `at` is, when it is time for it. */
    const renewed = (at: P, due: Tensor): Held => {
      const request = {
        objective: objective as Objective<unknown>,
        params: at,
        moved: movedOf(base, at),
        key,
        t,
        clipNorm: clip?.globalNorm ?? clipNorm,
      }
      const blended = (old: Held): Held => {
        const fresh = curvature.estimate(request)
        const next: Held = { h: {}, hUnits: {} }
        for (const [k, x] of Object.entries(numbersOf(old))) {
          const mean = add(mul(x, beta2), mul(cast(fresh[k], x.dtype), 1 - beta2))
          if (!(k in old.hUnits)) {
            next.h[k] = mean
            continue
          }
          const { codes, units } = quantizeBlockwise(mean, { signed: curvatureSign === 'either' })
          next.h[k] = codes
          next.hUnits[k] = units
        }
        return next
      }
      const next = cond(due, blended, (old: Held) => old, { h: { ...h }, hUnits: { ...hUnits } })
      const put = (to: Held['h'], from: Held['h']) =>
        Object.fromEntries(Object.entries(to).map(([k, t]) => [k, assign(t, from[k])]))
      return { h: put(h, next.h), hUnits: put(hUnits, next.hUnits) }
    }
    const due = equal(remainder(after ? t : sub(t, 1), every), 0)
    const before = after ? held : renewed(params, due)
    const next = moving(numbersOf(before)).update(
      params,
      byName,
      { step: state.step, slots },
      { ...others, args, scale: scaleOf?.(byName) },
    )
    const now = after ? renewed(next.params, due) : before
    const kept = { h: now.h, ...(Object.keys(now.hUnits).length > 0 ? { hUnits: now.hUnits } : {}) }
    return { ...next, state: { step: next.state.step, slots: { ...next.state.slots, ...kept } }, loss }
  }
  return {
    ...base,
    hyper: { ...base.hyper, ...variant.hyper, every },
    init,
    update: () => needsObjective(name),
    step,
    in8bits:
      options.states === '8bit' ? undefined : () => make({ ...variant, options: { ...options, states: '8bit' } }),
    stateBytes: (params) =>
      Object.fromEntries(
        Object.entries(init(params).slots).map(([slot, by]) => [
          slot,
          Object.values(by).reduce((n, t) => n + t.size * bytesOf(t.dtype), 0),
        ]),
      ),
  }
}

const SHARED = [...COMMON, ...STORAGE, 'beta1', 'beta2', 'betas', 'weightDecay', 'eps', 'every', 'curvature']

/**
 * Sophia-G: the mean gradient over the diagonal of the Gauss–Newton matrix, no number of a step longer than lr. The curvature is estimated
 * every few steps, within the step, from labels that are drawn from the model (`gaussNewton`), so the loss must give `logits`.
 * Source: Liu et al., arXiv 2305.14342; the authors' code, commit a7e1572. Learning rate 1e-4 where none is given.
 * State per parameter: m (mean of the gradient), h (curvature). Until the first estimate steps are lr · sign(m).
 * @throws SteepestError for an unknown option or one out of its range
 */
export function sophiaG(options: SophiaGOptions = {}): Optimizer {
  const who = 'optim.sophiaG'
  checkOptions(who, options, [...SHARED, 'rho', 'batch'])
  const { rho = 0.04, batch, ...rest } = options
  checkPositive(who, 'rho', rho)
  if (batch !== undefined) checkPositive(who, 'batch', batch)
  return make({
    name: 'sophiaG',
    options: rest,
    betas: [0.965, 0.99],
    eps: 1e-15,
    curvature: options.curvature ?? gaussNewton(batch === undefined ? {} : { factor: 1 }),
    sign: options.curvature ? 'either' : 'positive',
    after: true,
    hyper: { rho, ...(batch === undefined ? {} : { batch }) },
    longest: 1,
    denominator: (h, eps) => add(mul(h, rho * (batch ?? 1)), eps),
  })
}

/**
 * Sophia-H: as `sophiaG`, with Hutchinson's estimate of the diagonal of the Hessian (`hutchinson`), which any loss has. Where the curvature
 * is not positive the step is lr · sign(m). Source: Liu et al., arXiv 2305.14342. Learning rate 1e-4 where none is given.
 * State per parameter: m (mean of the gradient), h (curvature).
 * @throws SteepestError for an unknown option or one out of its range
 */
export function sophiaH(options: SophiaHOptions = {}): Optimizer {
  const who = 'optim.sophiaH'
  checkOptions(who, options, [...SHARED, 'gamma', 'clipAt'])
  const { gamma = 0.01, clipAt = 1, ...rest } = options
  checkPositive(who, 'gamma', gamma)
  checkPositive(who, 'clipAt', clipAt)
  return make({
    name: 'sophiaH',
    options: rest,
    betas: [0.96, 0.99],
    eps: 1e-12,
    curvature: options.curvature ?? hutchinson(),
    sign: 'either',
    after: false,
    hyper: { gamma, clipAt },
    longest: clipAt,
    denominator: (h, eps) => maximum(mul(h, gamma), eps),
  })
}
