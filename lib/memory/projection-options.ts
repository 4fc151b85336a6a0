import { checkOptions } from '../errors.js'
import { checkChoice, checkFlag, checkWhole, type Match } from './options.js'
import { PROJ_TYPES, type ProjType, spaceOf } from './projection.js'
import type { ProjectedParts } from './projected.js'
import { basisProjector } from './projector.js'
import { lazyProjector, quantizedProjector } from './quantized.js'

/** Options of methods that project gradients to a space of singular vectors. */
export interface ProjectionOptions {
  /** Dimensions of the small space, 1 or more. Default 128. */
  rank?: number
  /** Steps between two choices of the space. Default 200. */
  updateGap?: number
  /** Which side becomes small. Default `std`, the shorter one. */
  projType?: ProjType
  /** Which parameters; by default matrices but for embeddings and heads. Tensors of more axes are matrices [first, rest]. */
  match?: Match
  /**
   * What becomes of the states when the space changes: `keep` leaves them as they are (in the coordinates of before, as the authors do), `reset` begins
   * anew (the step count of the bias correction too), `rotate` brings them into the new coordinates. Default `keep`.
   */
  states?: 'keep' | 'reset' | 'rotate'
  /** How a space is found: `power`, a few rounds of block power iteration from the space of before, or `svd`, the exact one. Default `power`. */
  method?: 'power' | 'svd'
  /** Rounds of power iteration; the first choice takes twice as many and two more. Default 1. */
  rounds?: number
  /** Bits in which bases are held, 4, 8 or 32 (the dtype that is computed in); 4 and 8 with a scale and a zero for each 256 numbers. Default 32. */
  basisBits?: 4 | 8 | 32
  /**
   * Whether the gap of a matrix doubles when its first basis vector hardly turns: when the mean of its last five |cosines| is 0.4 or more, as in
   * Q-GaLore. Default false.
   */
  lazy?: boolean
  /** Whether matrices take turns, so that no step has to choose all spaces. Default true; the authors' code has false. */
  stagger?: boolean
}

/** @internal Options that are complete and checked. */
export type Projecting = Required<Omit<ProjectionOptions, 'match'>>

const KEYS = [
  'rank',
  'updateGap',
  'projType',
  'match',
  'states',
  'method',
  'rounds',
  'basisBits',
  'lazy',
  'stagger',
] as const

/** @internal The options of a projecting method, checked. */
export function checkProjection(who: string, options: ProjectionOptions, more: readonly string[]): Projecting {
  checkOptions(who, options, [...KEYS, ...more])
  const { rank = 128, updateGap = 200, projType = 'std', states = 'keep' } = options
  const { method = 'power', rounds = 1, stagger = true, basisBits = 32, lazy = false } = options
  return {
    rank: checkWhole(who, 'rank', rank),
    updateGap: checkWhole(who, 'updateGap', updateGap),
    projType: checkChoice(who, 'projType', projType, PROJ_TYPES),
    states: checkChoice(who, 'states', states, ['keep', 'reset', 'rotate']),
    method: checkChoice(who, 'method', method, ['power', 'svd']),
    rounds: checkWhole(who, 'rounds', rounds),
    basisBits: checkChoice(who, 'basisBits', basisBits, [4, 8, 32]),
    lazy: checkFlag(who, 'lazy', lazy),
    stagger: checkFlag(who, 'stagger', stagger),
  }
}

/** @internal What these options are to a projected mover. */
export function projecting(options: Projecting): Pick<ProjectedParts, 'refresh' | 'states' | 'seed' | 'projector'> {
  const { rank, updateGap, projType, states, method, rounds, basisBits, lazy, stagger } = options
  return {
    refresh: { gap: updateGap, stagger },
    states,
    seed: 0,
    projector(rows, cols, dtype) {
      const space = spaceOf(projType, rank, rows, cols)
      const whole = basisProjector(space, { method, rounds }, dtype)
      const shapes = [...(space.left ? [[rows, space.rank]] : []), ...(space.right ? [[cols, space.rank]] : [])]
      const held = basisBits === 32 ? whole : quantizedProjector(whole, shapes, basisBits)
      return lazy ? lazyProjector(held, { gap: updateGap, threshold: 0.4, window: 5 }) : held
    },
  }
}
