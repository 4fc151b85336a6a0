import { mul } from '../ops/elementwise.js'
import type { Optimizer } from '../optim/optimizer.js'
import { checkChoice, checkRange } from './options.js'
import { type Given, projectedMover } from './projected.js'
import { checkProjection, projecting, type ProjectionOptions } from './projection-options.js'
import { wrapOptimizer } from './wrap.js'

/** Options of `galore`. */
export interface GaloreOptions extends ProjectionOptions {
  /** Multiplies the steps of what is projected (α). Default 0.25. */
  scale?: number
  /**
   * What is summed over micro-batches: the `whole` gradients, or what they are in the `small` space, so that no gradient of a matrix is held from one
   * micro-batch to the next. Then a space is chosen by the first micro-batch of its step alone, and a clip sees the norm of what is in the spaces.
   * Default `whole`.
   */
  accumulation?: 'whole' | 'small'
}

/** @internal GaLore, with given bases where a test has some. */
export function galoreWith(base: Optimizer, options: GaloreOptions, given?: Given): Optimizer {
  const who = 'memory.galore'
  const { match, scale = 0.25, accumulation = 'whole' } = options
  const checked = checkProjection(who, options, ['scale', 'accumulation'])
  checkChoice(who, 'accumulation', accumulation, ['whole', 'small'])
  checkRange(who, 'scale', scale, 0, Infinity, { open: true })
  return wrapOptimizer(base, {
    name: 'galore',
    match,
    hyper: { rank: checked.rank, updateGap: checked.updateGap, scale },
    mover: (inner) =>
      projectedMover({
        who,
        inner,
        ...projecting(checked),
        given,
        onlyLow: accumulation === 'small',
        step({ low, up, move, scale: by }) {
          const { step, slots } = move(low, { scale: by })
          return { step: up(scale === 1 ? step : mul(step, scale)), slots }
        },
      }),
  })
}

/**
 * GaLore: any optimizer whose rule runs on gradients projected to a small space of their singular vectors, so that its states are small. The space
 * is chosen anew every `updateGap` steps. Embeddings, norms, biases and heads are moved by the optimizer itself. Weight decay acts on the
 * whole weight and is not scaled.
 *
 * State per matrix m × n with s = min(m, n): the rule's states in [r, max(m, n)] (`std`), `basis` [s, r], and a counter.
 * Source: Zhao et al., "GaLore", arXiv 2403.03507; their code runs it on `optim.adamwHf` with `method: 'svd'` and `stagger: false`.
 *
 * @example memory.galore(optim.adamw({ lr: 0.01 }), { rank: 128 })
 * @throws SteepestError for a wrong option, an optimizer that needs more than gradients, and where no parameter is taken
 */
export function galore(optimizer: Optimizer, options: GaloreOptions = {}): Optimizer {
  return galoreWith(optimizer, options)
}

/** Options of `qgalore`. */
export type QgaloreOptions = Omit<GaloreOptions, 'lazy'>

/**
 * Q-GaLore: GaLore whose bases are held in 4 bits (`basisBits`) and chosen less and less often where they hardly turn. Combine it with an
 * optimizer whose states are small too.
 *
 * State per matrix: as GaLore, the basis in r·s/2 bytes and 8 for each 256 of its numbers. Source: Zhang et al., "Q-GaLore", arXiv 2407.08296.
 *
 * @example memory.qgalore(optim.adamw({ lr: 0.01 }), { rank: 128 })
 */
export function qgalore(optimizer: Optimizer, options: QgaloreOptions = {}): Optimizer {
  return galoreWith(optimizer, { basisBits: 4, ...options, lazy: true })
}
