import { checkOptions, SteepestError } from '../errors.js'
import { add, mul, sub } from '../ops/elementwise.js'
import { reshape } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { COMMON } from './base.js'
import { checkClip } from './clip.js'
import { defineOptimizer } from './define.js'
import { type FusedOptions, STORAGE } from './eight-bits.js'
import { newtonSchulz } from './newton-schulz.js'
import { checkGroups, groupOf } from './options.js'
import type { LearningRate, Optimizer, ParameterGroup } from './optimizer.js'
import { routed } from './route.js'
import { adamw } from './rules.gen.js'

/** How the step of a matrix [a, b] is scaled. */
export type MuonScale = 'original' | 'matchRmsAdamw' | 'spectral' | 'none'

/** Hyper-parameters of the AdamW that moves what Muon does not. */
export interface MuonAuxiliary {
  /** Its learning rate; follows the schedule of the whole, in proportion. Default 3e-4. */
  lr?: number
  /** Default [0.9, 0.95]. */
  betas?: readonly [number, number]
  /** Default 1e-10. */
  eps?: number
  /** Default 0. */
  weightDecay?: number
}

/** Hyper-parameters of `muon`. */
export interface MuonOptions extends FusedOptions {
  /**
   * `keller`, the authors' code: eps is added to the norm; kernels [out, in, kh, kw] are matrices [out, in·kh·kw]; no decay unless asked for.
   * `torch`, as `torch.optim.Muon` runs it: eps is the least norm, matrices only, learning rate 1e-3 and decay 0.1. Default `keller`.
   */
  variant?: 'keller' | 'torch'
  /** Share of the old mean of the gradient, in [0, 1). Default 0.95. */
  momentum?: number
  /** Look ahead: the gradient blended with the new mean. Default true. */
  nesterov?: boolean
  /** Decoupled decay: the weight is multiplied by 1 − lr · this before the step, in [0, ∞). Default 0, `torch`: 0.1. */
  weightDecay?: number
  /**
   * How the step of a matrix [a, b] is scaled: by √max(1, a/b) (`original`), 0.2 √max(a, b) (`matchRmsAdamw`), √(a/b) (`spectral`), or not
   * (`none`). Default `original`.
   */
  scale?: MuonScale
  /** Rounds of `newtonSchulz`. Default 5. */
  steps?: number
  /** Its coefficients. Default 3.4445, −4.775, 2.0315. */
  coefficients?: readonly [number, number, number]
  /** Its guard of the norm. Default 1e-7. */
  eps?: number
  /** What its products are computed in; by default float32 (float64 for a float64 parameter). The authors' code takes bfloat16. */
  dtype?: DType
  /** Settings of the AdamW that moves the other parameters. */
  auxiliary?: MuonAuxiliary
  /**
   * Names of parameters that AdamW moves whatever their shape; by default tables of embeddings and output layers of usual names.
   * Those with fewer than two axes always are (`torch`: all that are no matrices). A group's `auxiliary: true` or `false` comes before this.
   */
  auxiliaryMatch?: RegExp
}

const TABLES = /(^|\.)(wte|wpe|embed(ding|dings|_tokens)?|shared|lm_head)(\.|$)/
const CORE = [...STORAGE, 'momentum', 'nesterov', 'weightDecay'] as const
const AUXILIARY = [...STORAGE, 'beta1', 'beta2', 'betas', 'eps', 'weightDecay'] as const
const SCALES: Readonly<Record<MuonScale, (a: number, b: number) => number>> = {
  original: (a, b) => Math.sqrt(Math.max(1, a / b)),
  matchRmsAdamw: (a, b) => 0.2 * Math.sqrt(Math.max(a, b)),
  spectral: (a, b) => Math.sqrt(a / b),
  none: () => 1,
}

const blend = (a: Tensor, b: Tensor, share: Tensor | number): Tensor => add(a, mul(sub(b, a), share))
/** Keeps of a group what one of the two optimizers knows. */
const only = (group: ParameterGroup, keys: readonly string[]): ParameterGroup =>
  Object.fromEntries(
    Object.entries(group).filter(([key]) => ['match', 'lrScale', 'frozen', ...keys].includes(key)),
  ) as unknown as ParameterGroup
const times = (lr: LearningRate, ratio: number): LearningRate =>
  typeof lr === 'number' ? lr * ratio : (step) => lr(step) * ratio

/**
 * Muon: the mean gradient of every matrix, made nearly orthogonal by five Newton–Schulz rounds; embeddings, output layers, biases and gains go
 * to an AdamW of its own. Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon), commit 857d1ad; `torch`: PyTorch 2.15.
 * Learning rate 0.02 where none is given (`torch`: 1e-3). State per parameter: m (mean of the gradient); of AdamW's: m and v.
 * @throws SteepestError for an unknown option or one out of its range
 */
export function muon(options: MuonOptions = {}): Optimizer {
  const who = 'optim.muon'
  checkOptions(who, options, [
    ...COMMON,
    ...STORAGE,
    ...['variant', 'momentum', 'nesterov', 'weightDecay', 'scale', 'steps', 'coefficients', 'eps', 'dtype'],
    ...['auxiliary', 'auxiliaryMatch'],
  ])
  const {
    variant = 'keller',
    groups = [],
    clip,
    rounding,
    states,
    min8bitSize,
    scale = 'original',
    steps,
    coefficients,
    eps,
    dtype,
  } = options
  const { momentum = 0.95, nesterov = true, auxiliary = {}, auxiliaryMatch = TABLES } = options
  if (variant !== 'keller' && variant !== 'torch')
    throw new SteepestError('OPTION', { who, rule: '`variant` must be keller or torch', got: String(variant) })
  if (!Object.hasOwn(SCALES, scale))
    throw new SteepestError('OPTION', {
      who,
      rule: `\`scale\` must be ${Object.keys(SCALES).join(', ')}`,
      got: String(scale),
    })
  checkOptions(`${who}: auxiliary`, auxiliary, ['lr', 'betas', 'eps', 'weightDecay'])
  checkGroups(who, groups, ['auxiliary', ...CORE, ...AUXILIARY])
  const torch = variant === 'torch'
  const lr = options.lr ?? (torch ? 1e-3 : 0.02)

  const isMatrix = (p: Tensor) => (torch ? p.rank === 2 : p.rank >= 2) && p.size > 0
  const goesToAuxiliary = (name: string, p: Tensor): boolean => {
    const { hyper } = groupOf(groups, name, p)
    return !isMatrix(p) || (typeof hyper.auxiliary === 'boolean' ? hyper.auxiliary : auxiliaryMatch.test(name))
  }
  const core = defineOptimizer({
    name: 'muon',
    hyper: { momentum: 0.95, nesterov: true, weightDecay: torch ? 0.1 : 0 },
    ranges: { momentum: '[0, 1)', weightDecay: '[0, inf)' },
    slots: { m: 0 },
    moments: { m: 'either' },
    prepare: ({ lr: rate, hyper }) => ({ shrink: sub(1, mul(rate, hyper.weightDecay)) }),
    step({ p, g, slots, lr: rate, c: { shrink }, hyper }) {
      const m = blend(slots.m, g, 1 - hyper.momentum)
      const u = hyper.nesterov ? blend(g, m, hyper.momentum) : m
      // The authors' code scales a kernel by its last two axes, [kh, kw], though it is flattened before.
      const [a, b] = p.shape.slice(-2)
      const matrix = p.rank > 3 ? reshape(u, [p.shape[0], sizeOf(p.shape.slice(1))]) : u
      const straight = newtonSchulz(matrix, { steps, coefficients, eps, dtype, guard: torch ? 'least' : 'add' })
      const step = mul(reshape(straight, p.shape), mul(rate, SCALES[scale](a, b)))
      return { p: sub(mul(p, shrink), step), m }
    },
  })
  const main = core({
    lr,
    momentum,
    nesterov,
    weightDecay: options.weightDecay,
    rounding,
    states,
    min8bitSize,
    groups: [...groups.map((g) => only(g, CORE)), { match: goesToAuxiliary, frozen: true }],
  })
  const own = auxiliary.lr ?? 3e-4
  const ratio = main.peakLr > 0 ? own / main.peakLr : 1
  const rest = adamw({
    betas: [0.9, 0.95],
    eps: 1e-10,
    weightDecay: 0,
    ...auxiliary,
    lr: times(lr, ratio),
    rounding,
    states,
    min8bitSize,
    groups: [...groups.map((g) => only(g, AUXILIARY)), { match: (name, p) => !goesToAuxiliary(name, p), frozen: true }],
  })
  const whole = routed(
    { name: 'muon', rule: 'muon', hyper: { ...main.hyper, auxiliaryLr: own }, clip: clip && checkClip(who, clip) },
    [
      { optimizer: main, lrRatio: 1 },
      { optimizer: rest, lrRatio: ratio },
    ],
  )
  return { ...whole, in8bits: states === '8bit' ? undefined : () => muon({ ...options, states: '8bit' }) }
}
