import { checkOptions } from '../errors.js'
import { checkChoice, checkFlag, checkWhole, type Match } from './options.js'
import { PROJ_TYPES, type ProjType, spaceOf } from './projection.js'
import { basisProjector } from './projector.js'

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
  /** Whether matrices take turns, so that no step has to choose all spaces. Default true; the authors' code has false. */
  stagger?: boolean
}

/** @internal Options that are complete and checked. */
export type Projecting = Required<Omit<ProjectionOptions, 'match'>>

const KEYS = ['rank', 'updateGap', 'projType', 'match', 'states', 'method', 'rounds', 'stagger'] as const

/** @internal The options of a projecting method, checked. */
export function checkProjection(who: string, options: ProjectionOptions, more: readonly string[]): Projecting {
  checkOptions(who, options, [...KEYS, ...more])
  const { rank = 128, updateGap = 200, projType = 'std', states = 'keep' } = options
  const { method = 'power', rounds = 1, stagger = true } = options
  return {
    rank: checkWhole(who, 'rank', rank),
    updateGap: checkWhole(who, 'updateGap', updateGap),
    projType: checkChoice(who, 'projType', projType, PROJ_TYPES),
    states: checkChoice(who, 'states', states, ['keep', 'reset', 'rotate']),
    method: checkChoice(who, 'method', method, ['power', 'svd']),
    rounds: checkWhole(who, 'rounds', rounds),
    stagger: checkFlag(who, 'stagger', stagger),
  }
}

/** @internal What these options are to a projected mover. */
export const projecting = ({ rank, updateGap, projType, states, method, rounds, stagger }: Projecting) => ({
  refresh: { gap: updateGap, stagger },
  states,
  seed: 0,
  projector: (rows: number, cols: number, dtype: 'float32' | 'float64') =>
    basisProjector(spaceOf(projType, rank, rows, cols), { method, rounds }, dtype),
})
