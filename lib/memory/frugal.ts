import { checkOptions } from '../errors.js'
import { add, sub } from '../ops/elementwise.js'
import type { Optimizer } from '../optim/optimizer.js'
import { type BlockOrder, frugalBlocks, type GivenActive } from './frugal-blocks.js'
import { roundEven, stateless } from './frugal-rest.js'
import { checkChoice, checkFlag, checkRange, checkWhole, type Match } from './options.js'
import { type Given, projectedMover } from './projected.js'
import { type ProjType, spaceOf } from './projection.js'
import { basisProjector, coordinateProjector, type Projector } from './projector.js'
import { wrapOptimizer } from './wrap.js'

/**
 * What the part that has states is made of: columns, rows or single elements of every matrix at random, a space of singular vectors of it or a random
 * one, or whole matrices (`blocks`).
 */
export type FrugalChoice = 'columns' | 'rows' | 'elements' | 'svd' | 'random' | 'blocks'

/** Options of `frugal`. */
export interface FrugalOptions {
  /** Part of the weights that has states, in [0, 1]. Default 0.25. */
  density?: number
  /** What that part is made of. Default `columns`. */
  choice?: FrugalChoice
  /** Which side `svd` and `random` make small. Default `std`. */
  projType?: Exclude<ProjType, 'full'>
  /** In which order matrices are active where whole ones are chosen. Default `random`. */
  order?: BlockOrder
  /** Steps between two choices. Default 200. */
  updateGap?: number
  /** The rule for everything else, which has no state: `signSgd`, `sgd`, or `none`. Default `signSgd`. */
  outside?: 'signSgd' | 'sgd' | 'none'
  /** Multiplies the learning rate of what is taken. Default 1. */
  lrScale?: number
  /** Multiplies the learning rate of the part without states once more. Default 1. */
  outsideLrScale?: number
  /** Whether states and their step count begin anew at a choice. Default true. */
  reset?: boolean
  /** Which parameters; by default matrices but for embeddings and heads. Tensors of more axes are matrices [first, rest]. */
  match?: Match
  /** Whether matrices take turns, so that no step has to choose for all. Default true; the authors' code has false. */
  stagger?: boolean
  /** Seed of what is chosen at random. Default 0. */
  seed?: number
}

const CHOICES: readonly FrugalChoice[] = ['columns', 'rows', 'elements', 'svd', 'random', 'blocks']

/** The part with states, which may be empty. */
function projectorOf(
  { density, choice, projType }: { density: number; choice: Exclude<FrugalChoice, 'blocks'>; projType: ProjType },
  rows: number,
  cols: number,
  dtype: 'float32' | 'float64',
): Projector {
  if (choice === 'svd' || choice === 'random') {
    const side = spaceOf(projType, 1, rows, cols)
    const rank = Math.min(roundEven((side.left ? rows : cols) * density), rows, cols)
    if (rank === 0) return coordinateProjector('columns', rows, cols, 0)
    return basisProjector(spaceOf(projType, rank, rows, cols), { method: choice, rounds: 1 }, dtype)
  }
  const of = choice === 'columns' ? cols : choice === 'rows' ? rows : rows * cols
  return coordinateProjector(choice, rows, cols, Math.floor(of * density))
}

/** @internal FRUGAL, with given choices where a test has some. */
export function frugalWith(base: Optimizer, options: FrugalOptions, given?: Given, active?: GivenActive): Optimizer {
  const who = 'memory.frugal'
  checkOptions(who, options, [
    'density',
    'choice',
    'projType',
    'order',
    'updateGap',
    'outside',
    'lrScale',
    'outsideLrScale',
    'reset',
    'match',
    'stagger',
    'seed',
  ])
  const { density = 0.25, choice = 'columns', projType = 'std', updateGap = 200, outside = 'signSgd' } = options
  const { lrScale = 1, outsideLrScale = 1, reset = true, match, stagger = true, seed = 0, order = 'random' } = options
  checkRange(who, 'density', density, 0, 1)
  checkChoice(who, 'choice', choice, CHOICES)
  checkChoice(who, 'order', order, ['random', 'ascending', 'descending', 'mirror'])
  checkChoice(who, 'projType', projType, ['std', 'reverseStd', 'left', 'right'])
  checkWhole(who, 'updateGap', updateGap)
  checkChoice(who, 'outside', outside, ['signSgd', 'sgd', 'none'])
  checkRange(who, 'lrScale', lrScale, 0)
  checkRange(who, 'outsideLrScale', outsideLrScale, 0)
  checkFlag(who, 'reset', reset)
  checkFlag(who, 'stagger', stagger)
  checkWhole(who, 'seed', seed, 0)
  if (choice === 'blocks') {
    const rest = { outside, lrScale, outsideLrScale, reset, match, seed }
    return frugalBlocks(base, who, { density, updateGap, order, ...rest }, active)
  }

  return wrapOptimizer(base, {
    name: 'frugal',
    match,
    hyper: { density, updateGap, lrScale, outsideLrScale },
    mover: (inner) =>
      projectedMover({
        who,
        inner,
        refresh: { gap: updateGap, stagger },
        states: reset ? 'reset' : 'keep',
        seed,
        given,
        projector: (rows, cols, dtype) => projectorOf({ density, choice, projType }, rows, cols, dtype),
        step(at) {
          const { projector, g, low, up, put, move, scale } = at
          const { step, slots } = move(low, { scale, lrScale })
          const factor = lrScale * outsideLrScale
          // The sign of what rounding leaves of nothing would be no step at all.
          if (outside === 'none' || projector.whole) return { step: up(step), slots }
          if (!projector.space) return { step: put(stateless(outside, at, g, factor)!, step), slots }
          const rest = stateless(outside, at, sub(g, up(low)), factor)!
          return { step: add(up(step), rest), slots }
        },
      }),
  })
}

/**
 * FRUGAL: a part of every matrix is moved by any optimizer, with its states; the rest by a rule that has none. The part is chosen anew every
 * `updateGap` steps. With density 1 it is the optimizer itself, with density 0 sign descent. Decoupled weight decay acts on the whole
 * weight, at the learning rate without `lrScale`.
 *
 * State per matrix m × n: the rule's states for ⌊density · n⌋ columns (rows, elements), their numbers `chosen`, and two counters; for `svd`
 * and `random` as GaLore, at rank density · s. Source: Zmushko et al., "FRUGAL", arXiv 2411.07837.
 *
 * @example memory.frugal(optim.adamw({ lr: 1e-3 }), { density: 0.25 })
 * @throws SteepestError for a wrong option, an optimizer that needs more than gradients, and where no parameter is taken
 */
export function frugal(optimizer: Optimizer, options: FrugalOptions = {}): Optimizer {
  return frugalWith(optimizer, options)
}
