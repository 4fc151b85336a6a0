import { checkOptions, SteepestError } from '../errors.js'
import { add, cast, div, greater, logicalAnd, minimum, mul, where } from '../ops/elementwise.js'
import { globalNorm } from '../ops/update.js'
import type { Tensor } from '../tensor/tensor.js'
import { checkPositive } from './options.js'
import type { Optimizer } from './optimizer.js'
import { wideOf, wrapGradients } from './wrap.js'

/** Hyper-parameters of `larc`. */
export interface LarcOptions {
  /** Learning rate of a tensor over the ratio of its norms, in (0, ∞). Default 0.02. */
  trustCoeff?: number
  /** Never above the learning rate of `base` (LARC's clip), or in its place as a factor (LARC's scale). Default true. */
  clip?: boolean
  /** Added to the denominator, in [0, ∞). Default 1e-8. */
  eps?: number
  /** L2 penalty: this times the weight is added to the gradient before it is scaled; leave that of `base` at 0. In [0, ∞). Default 0. */
  weightDecay?: number
}

/**
 * Layer-wise adaptive rate clipping around any optimizer: each tensor's gradient (with its L2 penalty) is multiplied by
 * min(c ‖w‖ / (‖g‖ + decay ‖w‖ + eps) / lr, 1), so that no tensor moves faster than its own size allows. Tensors that are zero, or whose
 * gradient is, keep their gradient. No state.
 * Source: You, Gitman, Ginsburg, arXiv 1708.03888, as NVIDIA's Apex runs it.
 */
export function larc(base: Optimizer, options: LarcOptions = {}): Optimizer {
  const who = 'optim.larc'
  checkOptions(who, options, ['trustCoeff', 'clip', 'eps', 'weightDecay'])
  const { trustCoeff = 0.02, clip = true, eps = 1e-8, weightDecay = 0 } = options
  checkPositive(who, 'trustCoeff', trustCoeff)
  for (const [name, value] of Object.entries({ eps, weightDecay }))
    if (!(typeof value === 'number' && value >= 0))
      throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be 0 or more`, got: String(value) })
  return wrapGradients(base, {
    who,
    name: 'larc',
    hyper: { trustCoeff, trustClip: clip, trustEps: eps, trustDecay: weightDecay },
    change(grads, moved, { lr }) {
      const scaled = moved.map(({ name, p }): [string, Tensor] => {
        const g = grads[name]
        const w = cast(p, wideOf(p))
        const [size, slope] = [w, g].map((x) => cast(globalNorm([x]), 'float64'))
        const some = logicalAnd(greater(size, 0), greater(slope, 0))
        const own = div(mul(size, trustCoeff), add(add(slope, mul(size, weightDecay)), eps))
        const ratio = where(some, clip ? minimum(div(own, lr), 1) : own, 1)
        const decayed = weightDecay === 0 ? g : add(g, where(some, mul(w, weightDecay), 0))
        return [name, mul(decayed, cast(ratio, g.dtype))]
      })
      return { grads: Object.fromEntries(scaled) }
    },
  })
}
