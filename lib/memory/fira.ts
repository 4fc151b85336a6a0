import { SteepestError } from '../errors.js'
import { add, cast, div, mul, reciprocal, sub } from '../ops/elementwise.js'
import { norm } from '../ops/reduce.js'
import { full } from '../ops/shape.js'
import { argument } from '../optim/base.js'
import type { Optimizer } from '../optim/optimizer.js'
import type { Tensor } from '../tensor/tensor.js'
import { biasOf, limited, norms, requireProportional, TINY } from './growth.js'
import { checkChoice, checkRange } from './options.js'
import { type Given, projectedMover } from './projected.js'
import { checkProjection, projecting, type ProjectionOptions } from './projection-options.js'
import { wideOf } from './small.js'
import { wrapOptimizer } from './wrap.js'

/** Options of `fira`. */
export interface FiraOptions extends ProjectionOptions {
  /** Multiplies the steps in the small space (α). Default 0.25. */
  alpha?: number
  /** How what is outside of the space is scaled: by `column` (row, where the right side is small) or for the whole `matrix`. Default `column`. */
  scaling?: 'column' | 'matrix'
  /** What is outside: `paper`, the gradient without its projection, or `code`, without α times it, as the authors' code has it. Default `paper`. */
  residual?: 'paper' | 'code'
  /** What is outside grows by this factor per step at most (γ), in (1, ∞); null: by any. Default 1.01. */
  limiter?: number | null
}

/** @internal Fira, with given bases where a test has some. */
export function firaWith(base: Optimizer, options: FiraOptions, given?: Given): Optimizer {
  const who = 'memory.fira'
  const { match, alpha = 0.25, scaling = 'column', residual = 'paper', limiter = 1.01 } = options
  const checked = checkProjection(who, options, ['alpha', 'scaling', 'residual', 'limiter'])
  checkRange(who, 'alpha', alpha, 0, Infinity, { open: true })
  checkChoice(who, 'scaling', scaling, ['column', 'matrix'])
  checkChoice(who, 'residual', residual, ['paper', 'code'])
  if (limiter !== null) checkRange(who, 'limiter', limiter, 1, Infinity, { open: true })
  if (checked.projType === 'full' && scaling === 'column') {
    throw new SteepestError('OPTION', {
      who,
      rule: 'with `projType` full there are no columns to scale by',
      fix: "Say scaling: 'matrix'",
    })
  }
  return wrapOptimizer(base, {
    name: 'fira',
    match,
    hyper: { rank: checked.rank, updateGap: checked.updateGap, alpha },
    mover(inner) {
      requireProportional(who, inner)
      return projectedMover({
        who,
        inner,
        ...projecting(checked),
        given,
        more: (p): Record<string, Tensor> => (limiter === null ? {} : { norm: full([], -1, wideOf(p)) }),
        step({ o, projector, g, scale, low, up, move, args }, { norm: before }) {
          const dtype = wideOf(o.p)
          const by = scale && cast(scale, dtype)
          const r = by ? mul(low, by) : low
          const bias = biasOf(inner, args)
          // The step at a learning rate of one: what the paper calls the corrected gradient, with its sign turned.
          const { step: turned, slots } = move(r, { lr: bias ? reciprocal(bias) : full([], 1, 'float64') })
          const [own, given] = [turned, r].map((x) => norms(projector, x, scaling === 'matrix'))
          const inside = up(residual === 'code' ? mul(r, alpha) : r)
          const outside = mul(sub(by ? mul(g, by) : g, inside), div(own, add(given, TINY)))
          const rate = mul(argument(args, 0), o.lrScale)
          const whole = cast(bias ? mul(rate, bias) : rate, dtype)
          const limit = limiter !== null ? limited(norm(outside), before, limiter) : undefined
          const back = up(mul(turned, mul(whole, alpha)))
          return {
            step: sub(back, mul(outside, limit ? div(whole, limit.divisor) : whole)),
            slots: { ...slots, ...(limit ? { norm: limit.norm } : {}) },
          }
        },
      })
    },
  })
}

/**
 * Fira: GaLore whose step also has what is outside of the small space, scaled as the rule scales what is inside, with a limit to its growth. The
 * same states as GaLore and one number per matrix more (`norm`).
 *
 * Source: Chen et al., "Fira", arXiv 2410.01623; their code runs it on `optim.adamwHf` with `residual: 'code'`, `method: 'svd'` and `stagger: false`.
 *
 * @example memory.fira(optim.adamw({ lr: 0.01 }), { rank: 128 })
 * @throws SteepestError as `galore`, and for rules whose steps are not proportional to the learning rate
 */
export function fira(optimizer: Optimizer, options: FiraOptions = {}): Optimizer {
  return firaWith(optimizer, options)
}
