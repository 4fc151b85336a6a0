import { checkOptions, SteepestError } from '../errors.js'
import { assign } from '../ops/control.js'
import { add, cast, greater, less, logicalAnd, minimum, mul, square, sub } from '../ops/elementwise.js'
import { full, scalar } from '../ops/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { whileLoop } from '../transform/loop.js'
import { argsOf, argument, COMMON } from './base.js'
import { globalNorm } from './clip.js'
import { defineOptimizer } from './define.js'
import type { Objective } from './objective.js'
import { groupOf } from './options.js'
import type { Optimizer, OptimizerState, RuleOptions, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { clippedGrads, movedOf } from './wrap.js'

/** Hyper-parameters of `armijo`. */
export interface ArmijoOptions extends RuleOptions {
  /** Share of the decrease that the slope promises which there must be, in (0, 1). Default 0.5. */
  c?: number
  /** What a step that is too long is multiplied by, in (0, 1). Default 0.7. */
  shrink?: number
  /** The first length to look at is the last that was good times this, and at most lr; 1 or more. Default 1.5. */
  grow?: number
  /** Lengths to look at in a step, a whole number of 1 or more. Default 30. */
  most?: number
}

const plain = defineOptimizer({ name: 'armijo', lr: 1, step: ({ p, g, lr }) => ({ p: sub(p, mul(g, lr)) }) })
/** The length of the step is one number for all parameters; it stands under this name. */
const ALL = 'all'

/**
 * Gradient descent that makes each step as long as it may be: from lr, or a little more than the last, down to where the loss falls as much as
 * the slope promises, within the program. For losses without noise. Source: Armijo 1966. Learning rate 1 where none is given.
 * State: one float64 number.
 */
export function armijo(options: ArmijoOptions = {}): Optimizer {
  const who = 'optim.armijo'
  checkOptions(who, options, [...COMMON, 'c', 'shrink', 'grow', 'most'])
  const { c = 0.5, shrink = 0.7, grow = 1.5, most = 30, ...rest } = options
  for (const [name, value] of Object.entries({ c, shrink }))
    if (!(value > 0 && value < 1))
      throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be in (0, 1)`, got: String(value) })
  if (!(grow >= 1)) throw new SteepestError('OPTION', { who, rule: '`grow` must be 1 or more', got: String(grow) })
  if (!Number.isSafeInteger(most) || most < 1)
    throw new SteepestError('OPTION', { who, rule: '`most` must be a whole number of 1 or more', got: String(most) })
  const base = plain(rest)
  const init = (params: unknown): OptimizerState => {
    const { step, slots } = base.init(params)
    return { step, slots: { ...slots, length: { [ALL]: full([], Infinity, 'float64') } } }
  }
  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const { length: held, ...slots } = state.slots
    const { scaleOf, clipNorm: _, ...others } = context
    const args = argsOf(who, base.lr, state, context)
    const { loss, grads } = objective.valueAndGrad(params)
    const { grads: byName } = clippedGrads(who, base, params, grads, {
      scale: scaleOf?.(grads),
      clipped: context.clipped,
    })
    const moved = (t: Tensor) =>
      base.update(params, byName, { step: state.step, slots }, { ...others, args: undefined, lr: t, clipped: true })
    const promise = movedOf(base, params)
      .map(({ name, p }) => {
        const { lrScale } = groupOf(options.groups ?? [], name, p)
        return mul(square(cast(globalNorm([byName[name]]), 'float64')), c * lrScale)
      })
      .reduce(add)
    const start = cast(loss, 'float64')
    // Written so that a loss that is not a number is too high.
    const good = (t: Tensor) =>
      less(cast(objective.loss(moved(t).params), 'float64'), add(sub(start, mul(t, promise)), 1e-300))
    interface Trial {
      t: Tensor
      high: Tensor
      round: Tensor
    }
    const high = (t: Tensor): Tensor => sub(1, cast(good(t), 'float64'))
    const first = minimum(mul(held[ALL], grow), argument(args, 0))
    const end = whileLoop(
      ({ high: over, round }: Trial) => logicalAnd(greater(over, 0), less(round, most)),
      ({ t, round }): Trial => {
        const next = mul(t, shrink)
        return { t: next, high: high(next), round: add(round, 1) }
      },
      { t: first, high: high(first), round: scalar(1, 'float64') },
    )
    // Where no length was good the weights stay.
    const t = mul(end.t, sub(1, end.high))
    const next = moved(t)
    return {
      ...next,
      state: { step: next.state.step, slots: { ...next.state.slots, length: { [ALL]: assign(held[ALL], end.t) } } },
      loss,
    }
  }
  return {
    ...base,
    hyper: { c, shrink, grow, most },
    init,
    update: () => needsObjective('armijo'),
    step,
    stateBytes: (params) => ({ ...base.stateBytes(params), length: bytesOf('float64') }),
  }
}
