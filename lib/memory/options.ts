import { nearest, SteepestError } from '../errors.js'
import type { Tensor } from '../tensor/tensor.js'

/** Which parameters a method takes: a pattern of their names (paths: `h.0.attn.weight`), the names, or a function. */
export type Match = RegExp | readonly string[] | ((name: string, parameter: Tensor) => boolean)

/** Names of what is customarily left to the optimizer itself: embeddings and the layers that give the result. */
const OUTSIDE =
  /(^|[._])(wte|wpe|shared|lm_head|head|classifier|score|pooler|cls)([._]|$)|embed|relative_attention_bias/i

/** Whether a parameter is taken. By default matrices are, but for embeddings and heads (by their customary names). */
export function taker(who: string, match: Match | undefined): (name: string, p: Tensor) => boolean {
  if (match === undefined) return (name, p) => p.rank === 2 && p.size > 0 && !OUTSIDE.test(name)
  const matches = matcher(who, match)
  return (name, p) => p.rank >= 2 && p.size > 0 && matches(name, p)
}

/** @internal `match` as a function. */
export function matcher(who: string, match: Match): (name: string, p: Tensor) => boolean {
  if (match instanceof RegExp) {
    const pattern = new RegExp(match.source, match.flags.replace(/[gy]/g, ''))
    return (name) => pattern.test(name)
  }
  if (typeof match === 'function') return match
  if (Array.isArray(match)) return (name) => match.includes(name)
  throw new SteepestError('OPTION', {
    who,
    rule: '`match` must be a pattern, a list of names or a function',
    got: typeof match,
  })
}

/** @internal Throws where nothing is taken of what a model has. */
export function requireTaken(who: string, taken: readonly unknown[], named: readonly [string, Tensor][]): void {
  if (taken.length > 0) return
  throw new SteepestError('ARGUMENT', {
    who,
    rule: 'it takes none of these parameters',
    got: named
      .slice(0, 8)
      .map(([name, t]) => `${name} [${t.shape.join(', ')}]`)
      .join(', '),
    fix: 'Say which with `match`',
  })
}

/** @internal The part of a name up to its first number: a block of a model. */
export const numbered = (name: string): string | undefined => /^(?:.*?\.)?\d+(?=\.|$)/.exec(name)?.[0]

/** A whole number of `min` or more. */
export function checkWhole(who: string, name: string, value: number, min = 1): number {
  if (Number.isSafeInteger(value) && value >= min) return value
  throw new SteepestError('OPTION', {
    who,
    rule: `\`${name}\` must be a whole number of ${min} or more`,
    got: String(value),
  })
}

/** A finite number in [min, max], or above min where `open`. */
export function checkRange(
  who: string,
  name: string,
  value: number,
  min: number,
  max = Infinity,
  { open = false }: { open?: boolean } = {},
): number {
  if (typeof value === 'number' && (open ? value > min : value >= min) && value <= max && value < Infinity) return value
  const range = `${open ? '(' : '['}${min}, ${max === Infinity ? '∞)' : `${max}]`}`
  throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be in ${range}`, got: String(value) })
}

/** One of some words. */
export function checkChoice<T extends string | number>(who: string, name: string, value: T, choices: readonly T[]): T {
  if (choices.includes(value)) return value
  const near = nearest(String(value), choices.map(String))
  throw new SteepestError('OPTION', {
    who,
    rule: `\`${name}\` must be ${choices.slice(0, -1).join(', ')} or ${choices[choices.length - 1]}`,
    got: String(value),
    fix: near ? `Did you mean \`${near}\`?` : '',
  })
}

/** true or false. */
export function checkFlag(who: string, name: string, value: boolean): boolean {
  if (typeof value === 'boolean') return value
  throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be true or false`, got: String(value) })
}
