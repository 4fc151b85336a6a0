import { namedTensors } from '../nn/module.js'
import { gradsByName } from './base.js'
import type { Objective } from './objective.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'

/** One step of `base` on an objective, whether it evaluates that itself or takes its gradient. */
export function stepOn<P>(
  who: string,
  base: Optimizer,
  objective: Objective<P>,
  params: P,
  state: OptimizerState,
  context: StepContext,
): Stepped<P> {
  if (base.step) return base.step(objective, params, state, context)
  const { loss, grads } = objective.valueAndGrad(params)
  const moved = new Map(base.moved(params).map((k) => [namedTensors(params).parameters[k], k]))
  const byName = Object.fromEntries(gradsByName(who, params, grads, moved))
  const { scaleOf, clipNorm: _, ...rest } = context
  return { ...base.update(params, byName, state, { ...rest, scale: scaleOf?.(byName) }), loss }
}

/** `in8bits` of a wrapper, which is around the smaller optimizer then. */
export const smaller = (base: Optimizer, again: (base: Optimizer) => Optimizer): Pick<Optimizer, 'in8bits'> => ({
  in8bits: base.in8bits && (() => again(base.in8bits!())),
})
