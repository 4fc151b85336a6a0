import { SteepestError } from '../errors.js'
import type { Tokens } from './tokens.js'

/** How tokens are divided into a training and a validation part. */
export interface SplitOptions {
  /** Tokens in a sequence. */
  readonly context: number
  /** Share that is held back for validation, above 0 and at most 0.5; 0.1 where not given. */
  readonly validation?: number
  /** Whose tokens they are, for messages: the file. */
  readonly who?: string
}

/** The two parts of a text, each in pieces that do not touch those of the other. */
export interface Split<T extends Tokens = Int32Array> {
  readonly train: readonly T[]
  readonly validation: readonly T[]
}

/** Pieces that are held back at most; more would cut the training part without saying more. */
const MAX_PIECES = 32
/** Windows that a piece has at least before there are two. */
const LEAST_WINDOWS = 4

/**
 * Holds back evenly spaced pieces of a text, so that validation is like the rest in whatever order the text is. The parts are
 * views of `tokens`. Each has at least one whole window of `context` tokens and the one that follows; a validation share too
 * small for that is raised.
 *
 * @throws SteepestError OPTION, or DATA where the text is too short for two windows.
 */
export function splitTokens<T extends Tokens>(tokens: T, options: SplitOptions): Split<T> {
  const { context, validation = 0.1, who = 'text' } = options
  if (!(validation > 0 && validation <= 0.5)) {
    throw new SteepestError('OPTION', {
      who: 'splitTokens',
      rule: '`validation` must be above 0 and at most 0.5',
      got: String(validation),
    })
  }
  const n = tokens.length
  const held = Math.max(Math.round(n * validation), context + 1)
  if (n - held < context + 1) {
    const fits = Math.floor(n / 2) - 1
    throw new SteepestError('DATA', {
      who,
      rule: 'the text must be longer than the context, once for training and once for validation',
      got: `${n} tokens for a context of ${context}`,
      fix: fits >= 1 ? `Give a longer text, or a context of at most ${fits}` : 'Give a longer text',
    })
  }
  // With more than one piece, what stands between two of them must have room for a window too.
  const rest = Math.floor((n - held) / (context + 1))
  const pieces = Math.max(1, Math.min(MAX_PIECES, rest, Math.floor(held / (LEAST_WINDOWS * (context + 1)))))
  const train: T[] = []
  const parts: T[] = []
  for (let i = 0; i < pieces; i++) {
    const begin = Math.round((i * n) / pieces)
    const end = Math.round(((i + 1) * n) / pieces)
    const cut = end - Math.floor(held / pieces)
    train.push(tokens.subarray(begin, cut) as T)
    parts.push(tokens.subarray(cut, end) as T)
  }
  return { train, validation: parts }
}
