import type { Tensor } from '../tensor/tensor.js'
import type { Objective } from './objective.js'
import type { Schedule } from './schedules.js'

/** A learning rate in [0, ∞): one number, a schedule, or any function of the 0-based step. */
export type LearningRate = number | Schedule | ((step: number) => number)

/** Parameters that are treated apart from the others, chosen by name. Where several groups match, later ones win key by key. */
export interface ParameterGroup {
  /** A pattern, names, or a function of the parameter's name (its path: `h.0.attn.weight`). */
  match: RegExp | readonly string[] | ((name: string, parameter: Tensor) => boolean)
  /** Multiplies the learning rate, in [0, ∞). Default 1. */
  lrScale?: number
  /** Leave these as they are: no update, no state. Default false. */
  frozen?: boolean
  /** Any hyper-parameter of the optimizer that differs here: `weightDecay: 0`. */
  [hyper: string]: unknown
}

/** How gradients are shortened before they are used: one of `globalNorm`, `norm` and `value`. */
export interface ClipOptions {
  /** Largest norm of all gradients together, in (0, ∞): they are multiplied by min(1, max / (norm + 1e-6)). */
  globalNorm?: number
  /** The same with the norm of each tensor, in (0, ∞). */
  norm?: number
  /** Largest absolute value of a single number, in (0, ∞). */
  value?: number
  /** Order of the norm in (0, ∞]; default 2, `Infinity` is the largest absolute value. */
  order?: number
  /** Added to a norm, above 0. Default 1e-6. */
  eps?: number
}

/** Options of every optimizer. */
export interface RuleOptions {
  /** Learning rate in [0, ∞), or how it runs over the steps. */
  lr?: LearningRate
  /** Parameters with settings of their own. */
  groups?: readonly ParameterGroup[]
  /** Shortens gradients before they are used: `{ globalNorm }`, `{ norm }` of each tensor or `{ value }`, with an `order` of the norm. Default none. */
  clip?: ClipOptions
  /**
   * How a bfloat16 weight keeps what it moves by less than its last bit: `master` (default) hides the 16 low bits of a float32 weight
   * beside it, `stochastic` rounds up or down with the right mean (needs a key), `nearest` loses it.
   */
  rounding?: 'master' | 'stochastic' | 'nearest'
}

/** What an optimizer remembers. A tree of tensors: it passes through `compile` and into checkpoints as it is. */
export interface OptimizerState {
  /** Updates done so far, an int32 scalar. */
  readonly step: Tensor
  /** States by slot (`m`, `v`, …; `low` for hidden bits) and parameter name. */
  readonly slots: Readonly<Record<string, Readonly<Record<string, Tensor>>>>
}

/** What a training loop gives an update beside the gradients. */
export interface UpdateContext {
  /** float64 [k], k ≥ 2: learning rate and step count from 1, as a training loop passes them. In place of `lr`. */
  args?: Tensor
  /** Learning rate of this step, a scalar; by default the optimizer's own. A compiled function takes it as an argument. */
  lr?: Tensor | number
  /** Scalar that multiplies the gradients first: one over the number of examples, a loss scale taken back. */
  scale?: Tensor
  /** int32 [2], for stochastic rounding; the same for all steps. */
  key?: Tensor
  /** Stop the run, and change nothing, at a gradient that is not finite. Default false. */
  check?: boolean
  /** The gradients are clipped already: leave out the optimizer's own clip. Default false. */
  clipped?: boolean
}

/** What an update gives. */
export interface Updated<P> {
  params: P
  state: OptimizerState
  /** Norm of all gradients before clipping, a scalar; there where `clip.globalNorm` is. */
  norm?: Tensor
}

/** What a training loop gives a step beside the objective. */
export interface StepContext extends Omit<UpdateContext, 'scale'> {
  /** What the loop wants the gradients multiplied by, given all of them (a tree like the parameters): its clip. */
  scaleOf?(grads: unknown): Tensor | undefined
  /** The norm that `scaleOf` clips at, for gradients that the loop does not see. */
  clipNorm?: number
}

/** What a step gives. */
export interface Stepped<P> extends Updated<P> {
  /** The loss at the parameters that the step began with, a scalar. */
  loss: Tensor
  /** Numbers of the step to tell, scalars by name. */
  metrics?: Readonly<Record<string, Tensor>>
}

/** Moves parameters by their gradients. Pure: gives new tensors; inside a compiled step they take the place of the old ones in memory. */
export interface Optimizer {
  readonly name: string
  /** The update rule that runs (`adam` with amsgrad is another than without). */
  readonly rule: string
  /** Hyper-parameters as they are used, groups apart. */
  readonly hyper: Readonly<Record<string, number | boolean>>
  readonly lr: LearningRate
  /** The highest learning rate of its schedule. */
  readonly peakLr: number
  /** Kind of its schedule: `constant` for a number, `own` for a bare function. */
  readonly schedule: string
  /** How it clips gradients, unless its update is told that they are clipped. */
  readonly clip?: ClipOptions
  /** Learning rate of the step-th update, counted from 1; schedules count from 0, as they do in PyTorch. */
  lrAt(step: number): number
  /** Names of the parameters that it moves: all but the frozen ones. */
  moved(params: unknown): readonly string[]
  /** State for parameters that have not been updated yet. `params` is a module, a record, or any tree of tensors. */
  init(params: unknown): OptimizerState
  /**
   * One step.
   * @param grads a tree like `params`, or a record by parameter name; frozen parameters may be missing in a record
   * @throws SteepestError where a gradient or a state is missing or does not fit
   */
  update<P>(params: P, grads: unknown, state: OptimizerState, context?: UpdateContext): Updated<P>
  /**
   * One step of an optimizer that needs more of the objective than its gradient: SAM, L-BFGS, Sophia's estimator. Where it is there,
   * `update` is an error, and a training loop calls `step`.
   */
  step?<P>(objective: Objective<P>, params: P, state: OptimizerState, context?: StepContext): Stepped<P>
  /** The weights to evaluate, use and save; the same as those that are trained but for schedule-free optimizers. */
  evalParams<P>(params: P, state: OptimizerState): P
  /** The same optimizer with its states in eight bits; absent where it cannot keep them so, or does already. */
  in8bits?(): Optimizer
  /** Bytes of state that `init` allocates, by slot. */
  stateBytes(params: unknown): Record<string, number>
}
