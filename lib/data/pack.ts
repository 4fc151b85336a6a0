import { SteepestError } from '../errors.js'
import { copyTokens, type Tokens } from './tokens.js'

/** Joins documents to one stream of tokens, each followed by `endOfText` (left out where undefined). */
export function joinDocuments(documents: Iterable<Int32Array>, endOfText: number | undefined): Int32Array {
  const all = [...documents]
  const extra = endOfText === undefined ? 0 : 1
  const out = new Int32Array(all.reduce((n, d) => n + d.length + extra, 0))
  let at = 0
  for (const document of all) {
    out.set(document, at)
    at += document.length
    if (endOfText !== undefined) out[at++] = endOfText
  }
  return out
}

/**
 * Pieces of text cut into windows: window i is `context` tokens and, as its targets, the tokens that follow each of them. Windows
 * do not overlap except in that one token, and none reaches across two pieces. With a `phase` they begin that many tokens
 * later in every piece, so that another epoch cuts at other places.
 */
export class Windows {
  /** Windows in all. */
  readonly count: number
  private readonly pieces: readonly Tokens[]
  /** Windows before each piece. */
  private readonly before: Float64Array

  constructor(
    pieces: readonly Tokens[],
    readonly context: number,
    readonly phase = 0,
  ) {
    this.pieces = pieces
    this.before = new Float64Array(pieces.length)
    let count = 0
    pieces.forEach((piece, i) => {
      this.before[i] = count
      count += Math.max(0, Math.floor((piece.length - 1 - phase) / context))
    })
    this.count = count
  }

  /** Writes window `index` into row `row` of two arrays of `[rows, context]`; that of a file is there when the promise is. */
  copy(index: number, row: number, inputs: Int32Array, targets: Int32Array): Promise<void> | undefined {
    if (!(index >= 0 && index < this.count)) throw new RangeError(`window ${index} of ${this.count}`)
    let low = 0
    let high = this.pieces.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.before[middle] <= index) low = middle
      else high = middle - 1
    }
    const begin = this.phase + (index - this.before[low]) * this.context
    const window = new Int32Array(this.context + 1)
    const write = () => {
      inputs.set(window.subarray(0, this.context), row * this.context)
      targets.set(window.subarray(1), row * this.context)
    }
    const waiting = copyTokens(this.pieces[low], begin, window)
    if (waiting) return waiting.then(write)
    write()
    return undefined
  }
}

/** Windows of pieces of which at least one is long enough. */
export function windowsOf(pieces: readonly Tokens[], context: number, who: string): Windows {
  const windows = new Windows(pieces, context)
  if (windows.count > 0) return windows
  const longest = pieces.reduce((n, p) => Math.max(n, p.length), 0)
  throw new SteepestError('DATA', {
    who,
    rule: 'the text must be longer than the context',
    got: `${longest} tokens for a context of ${context}`,
    fix: longest > 1 ? `Give a longer text, or a context of at most ${longest - 1}` : 'Give a longer text',
  })
}
