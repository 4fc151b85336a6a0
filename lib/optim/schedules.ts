import { checkOptions, SteepestError } from '../errors.js'

/** A schedule as data: what `schedule()` makes it of again. */
export type ScheduleSpec = { readonly kind: ScheduleKind } & Readonly<Record<string, number | string>>

/** Learning rate by 0-based step: a pure function that knows its description. */
export interface Schedule {
  (step: number): number
  readonly spec: ScheduleSpec
  toJSON(): ScheduleSpec
}

type Range = readonly [min: number, max: number]
type Defaults = Readonly<Record<string, number | string | undefined>>

const POSITIVE: Range = [Number.MIN_VALUE, Infinity]
const SHARE: Range = [0, 1]
const ANY: Range = [0, Infinity]

/** Ranges of the numbers that schedules take. */
const RANGES: Record<string, Range> = {
  lr: ANY,
  end: ANY,
  warmup: ANY,
  steps: POSITIVE,
  cycles: POSITIVE,
  power: POSITIVE,
  stable: ANY,
  decay: ANY,
  phases: [2, 3],
  floor: SHARE,
  every: POSITIVE,
  factor: SHARE,
  timescale: POSITIVE,
  rise: SHARE,
  startDivisor: POSITIVE,
  endDivisor: POSITIVE,
}
const CHOICES: Record<string, readonly string[]> = {
  shape: ['linear', 'cosine', '1-sqrt'],
  after: ['hold', 'continue'],
  anneal: ['cosine', 'linear'],
}

const halfCosine = (x: number) => 0.5 * (1 + Math.cos(Math.PI * x))
const lerp = (from: number, to: number, x: number) => from + (to - from) * x

interface Kind {
  /** Options with defaults; undefined: must be given. */
  readonly options: Defaults
  readonly at: (o: Record<string, number>, step: number, s: Record<string, string>) => number
}

/** Multiplies by step / warmup while that is below one: the first step has rate 0, as in Hugging Face's and nanoGPT's loops. */
const warm = (o: Record<string, number>, step: number, after: () => number) =>
  step < o.warmup ? (o.lr * step) / o.warmup : after()

const KINDS = {
  constant: { options: { lr: undefined, warmup: 0 }, at: (o, step) => warm(o, step, () => o.lr) },
  linear: {
    options: { lr: undefined, steps: undefined, warmup: 0, end: 0 },
    at: (o, step) =>
      warm(o, step, () => lerp(o.end, o.lr, Math.max(0, (o.steps - step) / Math.max(1, o.steps - o.warmup)))),
  },
  cosine: {
    options: { lr: undefined, steps: undefined, warmup: 0, end: 0, cycles: 0.5, after: 'hold' },
    at: (o, step, s) =>
      warm(o, step, () => {
        const x = (step - o.warmup) / Math.max(1, o.steps - o.warmup)
        const held = s.after === 'hold' ? Math.min(1, x) : x
        return o.end + (o.lr - o.end) * Math.max(0, halfCosine(2 * o.cycles * held))
      }),
  },
  cosineRestarts: {
    options: { lr: undefined, steps: undefined, warmup: 0, end: 0, cycles: 1 },
    at: (o, step) =>
      warm(o, step, () => {
        const x = (step - o.warmup) / Math.max(1, o.steps - o.warmup)
        return x >= 1 ? o.end : o.end + (o.lr - o.end) * Math.max(0, halfCosine((o.cycles * x) % 1))
      }),
  },
  wsd: {
    options: {
      lr: undefined,
      warmup: 0,
      stable: undefined,
      decay: undefined,
      floor: 0,
      shape: 'linear',
      warmupShape: 'linear',
      cycles: 0.5,
    },
    at: (o, step, s) => {
      const above = (x: number) => o.lr * Math.max(0, lerp(o.floor, 1, x))
      if (step < o.warmup) {
        const x = step / o.warmup
        if (s.warmupShape === 'cosine') return above(1 - halfCosine(x))
        return above(s.warmupShape === 'linear' ? x : 1 - Math.sqrt(1 - x))
      }
      const since = step - o.warmup - o.stable
      if (since < 0) return o.lr
      if (since >= o.decay) return o.lr * o.floor
      const x = since / o.decay
      if (s.shape === 'cosine') return above(halfCosine(2 * o.cycles * x))
      return above(s.shape === 'linear' ? 1 - x : 1 - Math.sqrt(x))
    },
  },
  oneCycle: {
    options: {
      lr: undefined,
      steps: undefined,
      rise: 0.3,
      startDivisor: 25,
      endDivisor: 1e4,
      anneal: 'cosine',
      phases: 2,
    },
    at: (o, step, s) => {
      const start = o.lr / o.startDivisor
      const end = start / o.endDivisor
      const top = o.rise * o.steps - 1
      const down: [number, number][] =
        o.phases === 3
          ? [
              [2 * top, start],
              [o.steps - 1, end],
            ]
          : [[o.steps - 1, end]]
      let [from, began] = [start, 0]
      for (const [until, to] of [[top, o.lr], ...down]) {
        if (step <= until) {
          const x = until > began ? (step - began) / (until - began) : 1
          return s.anneal === 'linear' ? lerp(from, to, x) : to + (from - to) * halfCosine(x)
        }
        ;[from, began] = [to, until]
      }
      return end
    },
  },
  polynomial: {
    options: { lr: undefined, steps: undefined, warmup: 0, end: 0, power: 1 },
    at: (o, step) =>
      warm(o, step, () =>
        step > o.steps ? o.end : o.end + (o.lr - o.end) * (1 - (step - o.warmup) / (o.steps - o.warmup)) ** o.power,
      ),
  },
  step: {
    options: { lr: undefined, every: undefined, factor: 0.1, warmup: 0 },
    at: (o, step) => warm(o, step, () => o.lr * o.factor ** Math.floor(step / o.every)),
  },
  exponential: {
    options: { lr: undefined, factor: undefined, warmup: 0 },
    at: (o, step) => warm(o, step, () => o.lr * o.factor ** (step - o.warmup)),
  },
  inverseSqrt: {
    options: { lr: undefined, warmup: 0, timescale: 0 },
    at: (o, step) =>
      warm(o, step, () => {
        const scale = o.timescale || o.warmup || 10_000
        return o.lr / Math.sqrt((step + scale - o.warmup) / scale)
      }),
  },
} satisfies Record<string, Kind>

/** The name of a course of the learning rate. */
export type ScheduleKind = keyof typeof KINDS

/**
 * A schedule from its description, as a checkpoint or a configuration file holds it.
 * @throws SteepestError for an unknown kind or option, or a number out of its range
 */
export function schedule(spec: ScheduleSpec): Schedule {
  const { kind, ...given } = spec
  const who = `optim.schedules.${kind}`
  if (!Object.hasOwn(KINDS, kind)) {
    throw new SteepestError('OPTION', {
      who: 'optim.schedule',
      rule: `the kind must be one of ${Object.keys(KINDS).join(', ')}`,
      got: String(kind),
    })
  }
  const { options, at } = KINDS[kind] as Kind
  checkOptions(who, given, Object.keys(options))
  const full: Record<string, number | string> = {}
  const numbers: Record<string, number> = {}
  const words: Record<string, string> = {}
  for (const [name, fallback] of Object.entries(options)) {
    const value = (given as Record<string, unknown>)[name] ?? fallback
    if (value === undefined) throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be given` })
    const choices = name === 'warmupShape' ? CHOICES.shape : CHOICES[name]
    if (choices) {
      if (!choices.includes(value as string))
        throw new SteepestError('OPTION', {
          who,
          rule: `\`${name}\` must be ${choices.join(' or ')}`,
          got: String(value),
        })
      words[name] = value as string
    } else {
      const [min, max] = name === 'timescale' ? ANY : RANGES[name]
      if (typeof value !== 'number' || !(value >= min && value <= max)) {
        const low = min === Number.MIN_VALUE ? '(0' : `[${min}`
        throw new SteepestError('OPTION', {
          who,
          rule: `\`${name}\` must be a number in ${low}, ${max === Infinity ? '∞)' : `${max}]`}`,
          got: String(value),
        })
      }
      numbers[name] = value
    }
    full[name] = value as number | string
  }
  const description = { kind, ...full } as ScheduleSpec
  return Object.assign((step: number) => at(numbers, step, words), { spec: description, toJSON: () => description })
}

/** One rate, after `warmup` steps of rising from 0. */
export const constant = (options: { lr: number; warmup?: number }): Schedule =>
  schedule({ kind: 'constant', ...options })

/** A straight line from `lr` to `end` (default 0) at step `steps`, after `warmup` steps of rising from 0. */
export const linear = (options: { lr: number; steps: number; warmup?: number; end?: number }): Schedule =>
  schedule({ kind: 'linear', ...options })

/**
 * Half a cosine from `lr` to `end` (default 0) at step `steps`, after `warmup` steps of rising from 0. Past `steps` the rate stays at `end`
 * (`after: 'hold'`) or follows the cosine up again, as Hugging Face's schedule does (`'continue'`). `cycles` (default 0.5) counts whole waves.
 */
export const cosine = (options: {
  lr: number
  steps: number
  warmup?: number
  end?: number
  cycles?: number
  after?: 'hold' | 'continue'
}): Schedule => schedule({ kind: 'cosine', ...options })

/** `cycles` half cosines one after the other, each from `lr` to `end` (SGDR, arXiv 1608.03983). */
export const cosineRestarts = (options: {
  lr: number
  steps: number
  warmup?: number
  end?: number
  cycles?: number
}): Schedule => schedule({ kind: 'cosineRestarts', ...options })

/**
 * Warm-up, `stable` steps at `lr`, and `decay` steps down to `floor` (a share of `lr`, default 0), along `shape`
 * (MiniCPM, arXiv 2404.06395; `1-sqrt`: arXiv 2405.18392). The warm-up too begins at `floor`.
 */
export const wsd = (options: {
  lr: number
  warmup?: number
  stable: number
  decay: number
  floor?: number
  shape?: 'linear' | 'cosine' | '1-sqrt'
  warmupShape?: 'linear' | 'cosine' | '1-sqrt'
  cycles?: number
}): Schedule => schedule({ kind: 'wsd', ...options })

/**
 * Up from lr / `startDivisor` to `lr` over the share `rise` of `steps`, then down to lr / `startDivisor` / `endDivisor`
 * (super-convergence, arXiv 1708.07120). With `phases: 3` the way down first mirrors the way up, as PyTorch's `three_phase` does.
 */
export const oneCycle = (options: {
  lr: number
  steps: number
  rise?: number
  startDivisor?: number
  endDivisor?: number
  anneal?: 'cosine' | 'linear'
  phases?: 2 | 3
}): Schedule => schedule({ kind: 'oneCycle', ...options })

/** From `lr` to `end` (default 0) at step `steps` by (1 − progress)^power, after `warmup` steps of rising from 0. */
export const polynomial = (options: {
  lr: number
  steps: number
  warmup?: number
  end?: number
  power?: number
}): Schedule => schedule({ kind: 'polynomial', ...options })

/** `lr` times `factor` (default 0.1) once more after every `every` steps. */
export const stepwise = (options: { lr: number; every: number; factor?: number; warmup?: number }): Schedule =>
  schedule({ kind: 'step', ...options })

/** `lr` times `factor` to the number of steps since the warm-up. */
export const exponential = (options: { lr: number; factor: number; warmup?: number }): Schedule =>
  schedule({ kind: 'exponential', ...options })

/** lr / √(1 + (step − warmup) / timescale) after `warmup` steps of rising from 0; the time scale is by default the warm-up, or 10,000 where there is none. */
export const inverseSqrt = (options: { lr: number; warmup?: number; timescale?: number }): Schedule =>
  schedule({ kind: 'inverseSqrt', ...options })
