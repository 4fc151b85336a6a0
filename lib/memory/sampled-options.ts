import { SteepestError } from '../errors.js'
import type { SamplingDraw, SamplingMethod } from '../ops/sampling.js'

/** How weight gradients are sampled. */
export interface SampledOptions {
  /** Rows (tokens, examples) that are kept, as a part of all, in (0, 1]; never fewer than 10. Default 0.3. */
  ratio?: number
  /** The layers that are sampled, by the names of their weights: a pattern, names (or how they begin, up to a dot), or a function. Default all. */
  layers?: RegExp | readonly string[] | ((name: string) => boolean)
  /**
   * `winners` (default): rows whose part is large are kept for certain, the others drawn (WTA-CRS); `crs`: all are drawn; `topK`: the largest
   * with weight 1, which is biased.
   */
  method?: SamplingMethod
  /** `systematic` (default): at even distances, so that no row is drawn twice; `replacement`: each draw for itself, as in the paper. */
  draw?: SamplingDraw
  /** Bytes for the norms of output gradients by example, in [0, ∞); they are used where batches have `ids`. Default 16 MB. */
  cache?: number
  /**
   * Estimate the gradients of products of two activations, such as scores of queries and keys, too, where a model makes them with `matmul`: then
   * the gradients of activations are not exact, and nor are second derivatives. The op `attention` keeps no such product. Default false.
   */
  attention?: boolean
  /** What a remembered norm counts at least, as a part of their mean, in [0, 1]: a row that did not matter then may matter now. Default 0.05. */
  floor?: number
}

const LEAST = 10

/** Which names are chosen. */
export function chooser(layers: SampledOptions['layers']): (name: string) => boolean {
  if (layers === undefined) return () => true
  if (typeof layers === 'function') return layers
  if (layers instanceof RegExp) return (name) => new RegExp(layers.source, layers.flags.replace(/[gy]/g, '')).test(name)
  return (name) => layers.some((l) => name === l || name.startsWith(`${l}.`))
}

/** @throws SteepestError OPTION where the value is out of its range */
export function checkRange(who: string, name: string, value: number, holds: boolean, rule: string): void {
  if (!holds) throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be ${rule}`, got: String(value) })
}

function checkChoice(who: string, name: string, value: string, known: readonly string[]): void {
  const rule = `\`${name}\` must be ${known.slice(0, -1).join(', ')} or ${known.at(-1)}`
  if (!known.includes(value)) throw new SteepestError('OPTION', { who, rule, got: value })
}

/** What is common to all ways of sampling, checked: how rows are chosen, and how many of them. */
export function keeper(
  who: string,
  { ratio = 0.3, method = 'winners', draw = 'systematic' }: Pick<SampledOptions, 'ratio' | 'method' | 'draw'>,
): { keep(rows: number): number; method: SamplingMethod; draw: SamplingDraw } {
  checkRange(who, 'ratio', ratio, ratio > 0 && ratio <= 1, 'in (0, 1]')
  checkChoice(who, 'method', method, ['winners', 'crs', 'topK'])
  checkChoice(who, 'draw', draw, ['systematic', 'replacement'])
  // A ratio of decimals times a number of rows may come out a little below a whole number.
  return { keep: (rows) => Math.min(rows, Math.max(LEAST, Math.floor(rows * ratio + 1e-9))), method, draw }
}
