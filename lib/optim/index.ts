import { nearest, SteepestError } from '../errors.js'
import { adafactor } from './adafactor.js'
import { adagradNorm } from './adagrad-norm.js'
import { armijo } from './armijo.js'
import { blockCoordinate } from './block-coordinate.js'
import { lbfgs } from './lbfgs.js'
import { lionK } from './lion-k.js'
import { muon } from './muon.js'
import { normalizedGd } from './normalized-gd.js'
import type { Optimizer, RuleOptions } from './optimizer.js'
import { scheduleFreeAdamw } from './schedule-free.js'
import { soap } from './soap.js'
import { sophiaG, sophiaH } from './sophia.js'
import { RULE_OPTIMIZERS } from './rules.gen.js'

export type {
  ClipOptions,
  LearningRate,
  Optimizer,
  OptimizerState,
  ParameterGroup,
  RuleOptions,
  StepContext,
  Stepped,
  UpdateContext,
  Updated,
} from './optimizer.js'
export { defineOptimizer, type OwnHyper, type OwnOperands, type OwnRule, type OwnStep } from './define.js'
export { adafactor, type AdafactorOptions } from './adafactor.js'
export { adagradNorm, type AdagradNormOptions } from './adagrad-norm.js'
export { averaged, type AveragedOptions, lookahead, type LookaheadOptions } from './averages.js'
export {
  type AdaptiveBatchOptions,
  type BatchTestOptions,
  gradientSpread,
  type GradientSpread,
  neededBatch,
  type SpreadNumbers,
} from './batch-tests.js'
export { type CagradOptions, combine, type Combiner } from './combine.js'
export { blockCoordinate, type BlockCoordinateOptions } from './block-coordinate.js'
export { blockwise, type BlockwiseOptions } from './blockwise.js'
export type { BlockRule } from './block-select.js'
export { forestBlock, solveForest, type SparseSymmetric } from './forest.js'
export { adaptiveBatch } from './adaptive-batch.js'
export { armijo, type ArmijoOptions } from './armijo.js'
export { surrogate, type SurrogateOptions } from './surrogate.js'
export { multiTask, type MultiTaskOptions } from './multi-task.js'
export { gradientNoise, type GradientNoiseOptions } from './gradient-noise.js'
export { lbfgs, type LbfgsOptions } from './lbfgs.js'
export { larc, type LarcOptions } from './larc.js'
export { type Convex, convex, lionK, type LionKOptions } from './lion-k.js'
export { muon, type MuonAuxiliary, type MuonOptions, type MuonScale } from './muon.js'
export { newtonSchulz, type NewtonSchulzOptions } from './newton-schulz.js'
export {
  type Curvature,
  type CurvatureRequest,
  gaussNewton,
  type GaussNewtonOptions,
  hutchinson,
  type HutchinsonOptions,
} from './curvature.js'
export { tract, type TractOptions } from './tract.js'
export { sophiaG, type SophiaGOptions, sophiaH, type SophiaHOptions } from './sophia.js'
export { soap, type SoapOptions } from './soap.js'
export { normalizedGd, type NormalizedGdOptions } from './normalized-gd.js'
export { scheduleFreeAdamw, type ScheduleFreeOptions } from './schedule-free.js'
export { clipByGlobalNorm, globalNorm } from './clip.js'
export {
  type Examples,
  type Objective,
  objective,
  type ObjectivePart,
  type Outputs,
  type OwnExamples,
} from './objective.js'
export { asam, type AsamOptions, sam, type SamOptions } from './sam.js'
export { noDecay } from './options.js'
export * from './rules.gen.js'
export * as schedules from './schedules.js'
export { schedule, type Schedule, type ScheduleKind, type ScheduleSpec } from './schedules.js'

const BUILT_IN: Readonly<Record<string, (options: never) => Optimizer>> = {
  ...RULE_OPTIMIZERS,
  adafactor,
  adagradNorm,
  armijo,
  blockCoordinate,
  lbfgs,
  lionK,
  muon,
  normalizedGd,
  scheduleFreeAdamw,
  soap,
  sophiaG,
  sophiaH,
}

/** Names of the built-in optimizers, as the command line and configuration files have them. */
export const OPTIMIZERS: readonly string[] = Object.keys(BUILT_IN)

/**
 * A built-in optimizer by its name.
 * @throws SteepestError for an unknown name, saying the near one, or a wrong option
 */
export function optimizerNamed(name: string, options: RuleOptions & Record<string, unknown> = {}): Optimizer {
  if (!Object.hasOwn(BUILT_IN, name)) {
    const near = nearest(name, OPTIMIZERS)
    throw new SteepestError('OPTION', {
      who: 'optimizer',
      rule: `unknown optimizer \`${name}\``,
      fix: near ? `Did you mean \`${near}\`?` : `There are ${OPTIMIZERS.join(', ')}`,
    })
  }
  return (BUILT_IN[name] as (options: RuleOptions) => Optimizer)(options)
}
