import { checkOptions, SteepestError } from '../errors.js'
import { add, cast, div, mul, pow, sqrt } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import type { Tensor } from '../tensor/tensor.js'
import { checkPositive } from './options.js'
import type { ClipOptions, Optimizer } from './optimizer.js'
import { checkClip, clipped } from './clip.js'
import { smaller } from './through.js'
import { seedKey, wrapGradients } from './wrap.js'

/** Hyper-parameters of `gradientNoise`. */
export interface GradientNoiseOptions {
  /** Variance of the noise of the first step, in (0, ∞); the paper takes 0.01, 0.3 or 1. Default 0.01. */
  eta?: number
  /** The variance falls with the step to this power, in [0, ∞). Default 0.55. */
  gamma?: number
  /** Seed of the noise, a whole number in [0, 2^53). Default 0. */
  seed?: number
  /** `clip`: gradients are clipped, then the noise is added, as the paper has it. `noise`: the noise is clipped with them. Default `clip`. */
  first?: 'clip' | 'noise'
  /** Where the standard normal numbers come from; by default they are drawn (Philox) from seed, step and parameter. */
  draw?: (request: { name: string; shape: readonly number[]; dtype: 'float32' | 'float64' }) => Tensor
}

/** Keeps this noise apart from other random numbers of the same seed. */
const STREAM = 0x6e6f6973

/** Standard deviation at the step (counted from 1): √(eta / step^gamma). */
const spread = (t: Tensor, eta: number, gamma: number): Tensor => sqrt(div(eta, pow(t, gamma)))

/**
 * Adds noise to every gradient: independent normal numbers whose variance falls as eta / (1 + t)^gamma, t from 0. They are a function of seed,
 * step and parameter, so a resumed run draws the same. No state.
 * Source: Neelakantan et al., "Adding gradient noise improves learning for very deep networks", arXiv 1511.06807.
 * @param base any optimizer; its own `clip` comes before the noise
 */
export function gradientNoise(base: Optimizer, options: GradientNoiseOptions = {}): Optimizer {
  const who = 'optim.gradientNoise'
  checkOptions(who, options, ['eta', 'gamma', 'seed', 'first', 'draw'])
  const { eta = 0.01, gamma = 0.55, seed = 0, first = 'clip', draw } = options
  checkPositive(who, 'eta', eta)
  if (!(typeof gamma === 'number' && gamma >= 0))
    throw new SteepestError('OPTION', { who, rule: '`gamma` must be 0 or more', got: String(gamma) })
  if (first !== 'clip' && first !== 'noise')
    throw new SteepestError('OPTION', { who, rule: '`first` must be clip or noise', got: String(first) })
  const clip: ClipOptions | undefined = first === 'noise' && base.clip ? checkClip(who, base.clip) : undefined
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new SteepestError('OPTION', { who, rule: '`seed` must be a whole number in [0, 2^53)', got: String(seed) })
  const inside = clip ? { ...base, clip: undefined, ...smaller(base, (o) => ({ ...o, clip: undefined })) } : base
  return wrapGradients(inside, {
    who,
    name: 'gradientNoise',
    hyper: { eta, gamma, seed },
    change(grads, moved, { t }) {
      const sigma = spread(t, eta, gamma)
      const stepKey = random.foldIn(random.foldIn(seedKey(seed), STREAM), cast(t, 'int32'))
      const noisy = moved.map(({ name, site }): [string, Tensor] => {
        const g = grads[name]
        const dtype = g.dtype === 'float64' ? 'float64' : 'float32'
        const z = draw ? draw({ name, shape: g.shape, dtype }) : random.normal(stepKey, g.shape, { dtype, site })
        return [name, add(g, mul(z, cast(sigma, dtype)))]
      })
      const out = Object.fromEntries(noisy)
      if (!clip) return { grads: out }
      const clips = clipped(out, clip, undefined)
      return {
        grads: Object.fromEntries(
          Object.entries(clips.grads).map(([name, g]) => {
            const scale = clips.scale(name)
            return [name, scale ? mul(g, cast(scale, g.dtype)) : g]
          }),
        ),
      }
    },
  })
}
