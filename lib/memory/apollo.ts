import { checkOptions } from '../errors.js'
import { add, cast, div, mul, reciprocal } from '../ops/elementwise.js'
import { norm } from '../ops/reduce.js'
import { full } from '../ops/shape.js'
import { argument } from '../optim/base.js'
import type { Optimizer } from '../optim/optimizer.js'
import type { Tensor } from '../tensor/tensor.js'
import { biasOf, limited, norms, requireProportional, TINY } from './growth.js'
import { checkChoice, checkFlag, checkRange, checkWhole, type Match } from './options.js'
import { type Given, projectedMover } from './projected.js'
import { PROJ_TYPES, type ProjType, spaceOf } from './projection.js'
import { seededProjector } from './projector.js'
import { wideOf } from './small.js'
import { wrapOptimizer } from './wrap.js'

/** Options of `apollo`. */
export interface ApolloOptions {
  /** Dimensions of the small space, 1 or more. Default 256. */
  rank?: number
  /** Steps are multiplied by the root of this (α), above 0. Default 1. */
  scale?: number
  /** Whether each `channel` (column, or row where the right side is small) has a factor of its own, or the whole `tensor` one. Default `channel`. */
  scaling?: 'channel' | 'tensor'
  /** The step grows by this factor at most (γ), in (1, ∞); null: by any. Default 1.01. */
  limiter?: number | null
  /** Which side becomes small. Default `std`, the shorter one. */
  projType?: Exclude<ProjType, 'full'>
  /** Steps between two choices of the space. Default 200. */
  updateGap?: number
  /** Which parameters; by default matrices but for embeddings and heads. Tensors of more axes are matrices [first, rest]. */
  match?: Match
  /** Whether matrices take turns. Default true; the authors' code has false. */
  stagger?: boolean
  /** Seed of the projections. Default 0. */
  seed?: number
}

/** Options of `apolloMini`. */
export type ApolloMiniOptions = Omit<ApolloOptions, 'rank' | 'scaling'>

const KEYS = ['rank', 'scale', 'scaling', 'limiter', 'projType', 'updateGap', 'match', 'stagger', 'seed']

/** @internal APOLLO, with given projections where a test has some. */
export function apolloWith(base: Optimizer, options: ApolloOptions, given?: Given): Optimizer {
  const who = 'memory.apollo'
  checkOptions(who, options, KEYS)
  const { rank = 256, scale: alpha = 1, scaling = 'channel', limiter = 1.01, projType = 'std' } = options
  const { updateGap = 200, match, stagger = true, seed = 0 } = options
  checkWhole(who, 'rank', rank)
  checkRange(who, 'scale', alpha, 0, Infinity, { open: true })
  checkChoice(who, 'scaling', scaling, ['channel', 'tensor'])
  if (limiter !== null) checkRange(who, 'limiter', limiter, 1, Infinity, { open: true })
  checkChoice(
    who,
    'projType',
    projType,
    PROJ_TYPES.filter((t) => t !== 'full'),
  )
  checkWhole(who, 'updateGap', updateGap)
  checkFlag(who, 'stagger', stagger)
  checkWhole(who, 'seed', seed, 0)
  return wrapOptimizer(base, {
    name: 'apollo',
    match,
    hyper: { rank, updateGap, scale: alpha },
    mover(inner) {
      requireProportional(who, inner)
      return projectedMover({
        who,
        inner,
        refresh: { gap: updateGap, stagger },
        states: 'keep',
        seed,
        given,
        projector: (rows, cols, dtype) => seededProjector(spaceOf(projType, rank, rows, cols), dtype),
        more: (p): Record<string, Tensor> => (limiter === null ? {} : { norm: full([], -1, wideOf(p)) }),
        step({ o, projector, g, scale, low, move, args }, { norm: before }) {
          const dtype = wideOf(o.p)
          const by = scale && cast(scale, dtype)
          const r = by ? mul(low, by) : low
          const bias = biasOf(inner, args)
          const { step: turned, slots } = move(r, { lr: bias ? reciprocal(bias) : full([], 1, 'float64') })
          const [own, given] = [turned, r].map((x) => norms(projector, x, scaling === 'tensor'))
          const factor = mul(div(own, add(given, TINY)), Math.sqrt(alpha))
          const scaled = mul(by ? mul(g, by) : g, factor)
          const limit = limiter !== null ? limited(norm(scaled), before, limiter) : undefined
          const rate = mul(argument(args, 0), o.lrScale)
          const whole = cast(mul(bias ? mul(rate, bias) : rate, -1), dtype)
          return {
            step: mul(scaled, limit ? div(whole, limit.divisor) : whole),
            slots: { ...slots, ...(limit ? { norm: limit.norm } : {}) },
          }
        },
      })
    },
  })
}

/**
 * APOLLO: steps along the gradient itself, each channel scaled as any optimizer would scale it in a small space of random directions. The
 * directions are drawn again at each step from a key: no basis is kept, and none is computed.
 *
 * State per matrix m × n: the rule's states in [r, max(m, n)], a key (8 bytes), a norm and a counter.
 * Source: Zhu et al., "APOLLO", arXiv 2412.05270; their code runs it on `optim.adamwHf` with `stagger: false`.
 *
 * @example memory.apollo(optim.adamw({ lr: 0.01 }), { rank: 256 })
 * @throws SteepestError as `fira`
 */
export function apollo(optimizer: Optimizer, options: ApolloOptions = {}): Optimizer {
  return apolloWith(optimizer, options)
}

/**
 * APOLLO with a single direction and one factor for the whole matrix: little more state than SGD has. `scale` is 128 where none is given.
 *
 * @example memory.apolloMini(optim.adamw({ lr: 0.01 }))
 */
export function apolloMini(optimizer: Optimizer, options: ApolloMiniOptions = {}): Optimizer {
  checkOptions(
    'memory.apolloMini',
    options,
    KEYS.filter((key) => key !== 'rank' && key !== 'scaling'),
  )
  return apolloWith(optimizer, { scale: 128, ...options, rank: 1, scaling: 'tensor' })
}
