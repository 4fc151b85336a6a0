import { SteepestError } from '../errors.js'
import type { ConfigJson } from './hf.js'

/** Rotary positions of a model, as its `config.json` has them. */
export interface Rope {
  /** Base of the angles; 10000 by default. */
  base: number
  /** How angles are changed for long contexts. */
  kind: 'default' | 'linear' | 'dynamic' | 'yarn' | 'longrope' | 'llama3'
  /** Parameters of the kind by their names in `config.json`. */
  parameters: ConfigJson
  /** `max_position_embeddings`. */
  context: number
}

/** Angles per position of each pair of components, and the factor of the turned queries and keys. */
export interface Angles {
  frequencies: number[]
  factor: number
}

const KINDS = ['default', 'linear', 'dynamic', 'yarn', 'longrope', 'llama3']

/** Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (before), of a `config.json`. */
export function readRope(who: string, config: ConfigJson, own: unknown = config.rope_parameters): Rope {
  const given = (own ?? config.rope_scaling ?? {}) as ConfigJson
  const kind = (given.rope_type ?? given.type ?? 'default') as Rope['kind']
  if (!KINDS.includes(kind))
    throw new SteepestError('FORMAT', { who, rule: `\`rope_type\` must be ${KINDS.join(', ')}`, got: String(kind) })
  return {
    base: Number(given.rope_theta ?? config.rope_theta ?? 10000),
    kind,
    // What longrope needs and older files have outside.
    parameters: { original_max_position_embeddings: config.original_max_position_embeddings ?? undefined, ...given },
    context: Number(config.max_position_embeddings ?? 2048),
  }
}

/** A length whose angles are those of `length`; few, so that one program serves many lengths. */
export function sameAngles({ kind, parameters, context }: Rope, length: number): number {
  if (kind === 'dynamic') return Math.max(length, context)
  if (kind !== 'longrope') return context
  const before = Number(parameters.original_max_position_embeddings ?? context)
  return length > before ? before + 1 : before
}

const correctionDim = (turns: number, dim: number, base: number, context: number) =>
  (dim * Math.log(context / (turns * 2 * Math.PI))) / (2 * Math.log(base))

/**
 * Angles for rows of `length` tokens and heads of `dim` components. Sources: Su et al. 2021 (default); Chen et al. 2023, position
 * interpolation (linear); NTK-aware scaling by the row's length (dynamic); Peng et al. 2023 (YaRN); Ding et al. 2024 (LongRoPE); Llama 3.1.
 */
export function ropeAngles(who: string, rope: Rope, dim: number, length: number): Angles {
  const { base, kind, parameters, context } = rope
  const half = Array.from({ length: dim / 2 }, (_, i) => i)
  const plain = (b: number) => half.map((i) => b ** ((-2 * i) / dim))
  const number = (key: string, fallback?: number): number => {
    const value = parameters[key] ?? fallback
    if (typeof value === 'number' && Number.isFinite(value)) return value
    throw new SteepestError('FORMAT', {
      who,
      rule: `rotary positions of kind ${kind} need the number \`${key}\``,
      got: JSON.stringify(value) ?? 'nothing',
    })
  }
  switch (kind) {
    case 'default':
      return { frequencies: plain(base), factor: 1 }
    case 'linear':
      return { frequencies: plain(base).map((f) => f / number('factor')), factor: 1 }
    case 'dynamic': {
      const factor = number('factor')
      const seen = Math.max(length, context)
      const grown = ((factor * seen) / context - (factor - 1)) ** (dim / (dim - 2))
      return { frequencies: plain(base * grown), factor: 1 }
    }
    case 'llama3': {
      const factor = number('factor')
      const low = number('low_freq_factor')
      const high = number('high_freq_factor')
      const before = number('original_max_position_embeddings')
      const frequencies = plain(base).map((f) => {
        const turns = (before * f) / (2 * Math.PI)
        if (turns < low) return f / factor
        if (turns > high) return f
        const smooth = (turns - low) / (high - low)
        return ((1 - smooth) * f) / factor + smooth * f
      })
      return { frequencies, factor: 1 }
    }
    case 'yarn': {
      const before = number('original_max_position_embeddings', context)
      const factor = number('factor', context / before)
      const round = parameters.truncate !== false
      const bounds = [number('beta_fast', 32), number('beta_slow', 1)].map((t) => correctionDim(t, dim, base, before))
      const low = Math.max(round ? Math.floor(bounds[0]) : bounds[0], 0)
      let high = Math.min(round ? Math.ceil(bounds[1]) : bounds[1], dim - 1)
      if (low === high) high += 0.001
      const frequencies = plain(base).map((f, i) => {
        const ramp = Math.min(1, Math.max(0, (i - low) / (high - low)))
        return (f / factor) * ramp + f * (1 - ramp)
      })
      const scale = (s: number, m = 1) => (s <= 1 ? 1 : 0.1 * m * Math.log(s) + 1)
      const { mscale, mscale_all_dim: all } = parameters
      const both = mscale && all
      const own = both ? scale(factor, number('mscale')) / scale(factor, number('mscale_all_dim')) : scale(factor)
      return { frequencies, factor: number('attention_factor', own) }
    }
    case 'longrope': {
      const before = number('original_max_position_embeddings', context)
      const list = parameters[length > before ? 'long_factor' : 'short_factor']
      if (!Array.isArray(list) || list.length !== dim / 2)
        throw new SteepestError('FORMAT', { who, rule: `longrope needs ${dim / 2} factors`, got: JSON.stringify(list) })
      const factor = number('factor', context / before)
      const own = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(before))
      return { frequencies: plain(base).map((f, i) => f / Number(list[i])), factor: number('attention_factor', own) }
    }
  }
}
