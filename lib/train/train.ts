import { checkOptions, SteepestError } from '../errors.js'
import type { Optimizer } from '../optim/index.js'
import { allowedFrom, arenaWithin, Budget, choiceLine } from './budget.js'
import type { Allowed } from './budget-methods.js'
import { PACKED, type Packed } from '../graph/recompute-pack.js'
import type { Setup } from './budget-setup.js'
import { bytesFrom } from './bytes.js'
import { toSource, type StepData, type StepSource } from './data.js'
import type { TrainEvent } from './events.js'
import { checkSteps, type LoopOptions, trainWith } from './loop.js'
import { joinProcesses } from './parallel.js'
import { gradientNoise } from './noise.js'
import { Run, type TrainResult } from './run.js'
import { PeekedSource, splitEvaluation, splitSource } from './split.js'
import { Trainer, type Trainable } from './trainer.js'

/** How a model is trained. */
export interface FitOptions extends LoopOptions {
  /** The update rule; its `lr` is a number or a schedule. */
  optimizer: Optimizer
  /** Micro-batches in one step, weighted by their labels: the gradient is that of the one big batch. */
  accumulate?: number
  /** Largest norm of the whole gradient; 1 by default, null for none. */
  clip?: number | null
  /**
   * Memory that the run may take, in bytes or as `3GB`, `800MB`, `1.5GiB`: the planned peak of the process above what it holds when the run
   * begins. What is done to stay within it is chosen before the first step and told in the `start` event.
   */
  memoryBudget?: number | string
  /**
   * What may be done for the budget. Recomputation and smaller micro-batches leave the numbers as they are (but for the order of sums) and are
   * always allowed; the others are taken only where they are named, and only where exact means do not do.
   */
  allow?: readonly Allowed[]
  /**
   * `mpi`: the processes that `mpirun` has started train one model together, each on its share of the rows of every batch; all of them are given the
   * same model, data and options. Gradients are summed over all, so that the run goes the way of one process with the whole batch. The first process
   * evaluates, samples and writes; a budget is not for such runs yet.
   */
  parallel?: 'mpi'
  /**
   * Keeps activations in fewer bits between the forward and the backward pass, `bfloat16` or `8bit` (blocks of 256 numbers share a unit): all that are
   * float32, or, with a `memoryBudget`, as many as it asks for. The loss is exact, the gradients are those of activations that are rounded.
   * Masks and what norms and attention remember of sums are kept as they are.
   */
  activations?: Packed
}

const KNOWN = [
  'optimizer',
  'steps',
  'accumulate',
  'clip',
  'memoryBudget',
  'allow',
  'activations',
  'parallel',
  'seed',
  'evalData',
  'evalEvery',
  'metrics',
  'out',
  'saveEvery',
  'keep',
  'config',
  'tokenizer',
  'resume',
  'sampleEvery',
  'sample',
  'patience',
  'stopAfter',
  'allowNonFinite',
  'profile',
  'signal',
  'plan',
  'run',
]

/**
 * Trains `model` on `data`. The run is an async iterable of typed events, and awaitable. All training state lives in native memory; when the
 * run ends, the model's tensors hold the trained weights.
 *
 * @param data batches: an iterable or async iterable of records of typed arrays, or a source whose position can be saved
 */
export function train(
  model: Trainable,
  data: StepSource | Iterable<StepData> | AsyncIterable<StepData>,
  options: FitOptions,
): Run {
  checkOptions('train', options, KNOWN)
  const { optimizer, clip, accumulate, memoryBudget, allow, activations, parallel, ...loop } = options
  checkSteps(loop.steps)
  if (activations !== undefined && !PACKED.includes(activations)) {
    throw new SteepestError('OPTION', {
      who: 'train',
      rule: `\`activations\` must be ${PACKED.join(' or ')}`,
      got: String(activations),
    })
  }
  if (parallel !== undefined && (parallel !== 'mpi' || memoryBudget !== undefined)) {
    const rule =
      parallel === 'mpi' ? 'a run on several processes takes no `memoryBudget` yet' : "`parallel` must be 'mpi'"
    throw new SteepestError('OPTION', { who: 'train', rule, got: parallel === 'mpi' ? undefined : String(parallel) })
  }
  const processes = parallel && joinProcesses()
  const source = toSource(data, accumulate ?? 1)
  const writes = loop.out !== undefined || loop.resume !== undefined
  const setup: Setup = { model, optimizer, clip, seed: options.seed, split: 1, activations, writes }
  if (memoryBudget === undefined) return trainWith(new Trainer(model, { ...setup, processes }), source, loop)
  const budget = bytesFrom('memoryBudget', memoryBudget)
  return new Run(withinBudget(setup, source, loop, budget, allowedFrom('allow', allow ?? [])))
}

/** A run whose first step is looked at to choose how it fits into its memory. */
async function* withinBudget(
  setup: Setup,
  given: StepSource,
  loop: LoopOptions,
  budget: number,
  allow: readonly Allowed[],
): AsyncGenerator<TrainEvent, TrainResult> {
  const source = new PeekedSource(given)
  let trainer: Trainer
  let parts = 1
  let plan = loop.plan
  let finish: Setup['finish']
  try {
    const first = await source.peek()
    const choice = first && new Budget(setup, first).choose(budget, allow)
    const arena = choice ? arenaWithin(budget, choice) : undefined
    const noise = choice ? await gradientNoise(choice.setup, first, arenaWithin(budget, choice)) : undefined
    trainer = new Trainer(choice ? choice.setup.model : setup.model, { ...(choice ? choice.setup : setup), arena })
    parts = choice ? choice.setup.split : 1
    finish = choice?.setup.finish
    plan = choice ? { ...plan, fitted: choiceLine(budget, choice, noise) } : plan
  } catch (error) {
    await source.close()
    throw error
  }
  const evalData = loop.evalData && parts > 1 ? splitEvaluation(loop.evalData, parts) : loop.evalData
  const result = yield* trainWith(trainer, splitSource(source, parts), { ...loop, evalData, plan }).stream
  await finish?.()
  return result
}
