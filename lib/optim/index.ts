import { nearest, SteepestError } from '../errors.js'
import type { Optimizer, RuleOptions } from './optimizer.js'
import { RULE_OPTIMIZERS } from './rules.gen.js'

export type { ClipOptions, LearningRate, Optimizer, OptimizerState, ParameterGroup, RuleOptions, UpdateContext, Updated } from './optimizer.js'
export { defineOptimizer, type OwnHyper, type OwnOperands, type OwnRule, type OwnStep } from './define.js'
export { clipByGlobalNorm, globalNorm } from './clip.js'
export { noDecay } from './options.js'
export * from './rules.gen.js'
export * as schedules from './schedules.js'
export { schedule, type Schedule, type ScheduleKind, type ScheduleSpec } from './schedules.js'

/** Names of the built-in optimizers, as the command line and configuration files have them. */
export const OPTIMIZERS: readonly string[] = Object.keys(RULE_OPTIMIZERS)

/**
 * A built-in optimizer by its name.
 * @throws SteepestError for an unknown name, saying the near one, or a wrong option
 */
export function optimizerNamed(name: string, options: RuleOptions & Record<string, unknown> = {}): Optimizer {
  if (!Object.hasOwn(RULE_OPTIMIZERS, name)) {
    const near = nearest(name, OPTIMIZERS)
    throw new SteepestError('OPTION', {
      who: 'optimizer',
      rule: `unknown optimizer \`${name}\``,
      fix: near ? `Did you mean \`${near}\`?` : `There are ${OPTIMIZERS.join(', ')}`,
    })
  }
  return (RULE_OPTIMIZERS as Record<string, (options: RuleOptions) => Optimizer>)[name](options)
}
