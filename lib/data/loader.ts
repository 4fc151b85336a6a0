import { crc32 } from 'node:zlib'
import { checkOptions, SteepestError } from '../errors.js'
import type { StepData, StepSource } from '../train/data.js'
import { Windows, windowsOf } from './pack.js'
import type { Tokens } from './tokens.js'
import { hash32, permutation } from './permutation.js'

/** How windows of a text become steps. */
export interface TextLoaderOptions {
  /** Tokens in a sequence. */
  readonly context: number
  /** Sequences in a micro-batch. */
  readonly batch: number
  /** Micro-batches in a step; 1 where not given. */
  readonly accumulate?: number
  /** Seed of the order; 0 where not given. */
  readonly seed?: number
  /** Whose text it is, for messages: the file. */
  readonly who?: string
  /** What `tokensChecksum` gives, for tokens of a file, which must have it. */
  readonly checksum?: number
}

/** Where a {@link TextLoader} stands; plain JSON. */
export interface TextPosition {
  readonly epoch: number
  /** Windows of the epoch that were given. */
  readonly at: number
  /** What the position depends on beside the text. */
  readonly context: number
  readonly seed: number
  /** Checksum of the text's tokens. */
  readonly text: number
}

/** Says to the trainer that the model divides by the weight of the whole step. */
const NORMALIZED = { data: Uint8Array.of(1), shape: [1], dtype: 'uint8' } as const

function checkCount(who: string, name: string, value: number): void {
  if (Number.isSafeInteger(value) && value >= 1) return
  throw new SteepestError('OPTION', {
    who,
    rule: `\`${name}\` must be a whole number of 1 or more`,
    got: String(value),
  })
}

type Waiting = Promise<void>[]

/** One micro-batch `[batch, context]`; rows beyond those that `fill` writes count for nothing. What is to be waited for goes to `waiting`. */
function tokenBatch(
  batch: number,
  context: number,
  rows: number,
  fill: (row: number, inputs: Int32Array, targets: Int32Array) => [window: number, read: Promise<void> | undefined],
  waiting: Waiting,
) {
  const inputs = new Int32Array(batch * context)
  const targets = new Int32Array(batch * context)
  const ids = new Int32Array(batch)
  targets.fill(-100, rows * context)
  for (let row = 0; row < rows; row++) {
    const [window, read] = fill(row, inputs, targets)
    ids[row] = window
    if (read) waiting.push(read)
  }
  const shape = [batch, context]
  return {
    inputIds: { data: inputs, shape, dtype: 'int32' as const },
    targets: { data: targets, shape, dtype: 'int32' as const },
    ids: { data: ids, shape: [batch], dtype: 'int32' as const },
    normalized: NORMALIZED,
  }
}

const whenRead = (waiting: Waiting, step: StepData): StepData | Promise<StepData> =>
  waiting.length === 0 ? step : Promise.all(waiting).then(() => step)

function bytesOf(tokens: Tokens): Uint8Array {
  if (tokens instanceof Int32Array) return new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength)
  throw new SteepestError('ARGUMENT', {
    who: 'TextLoader',
    rule: 'tokens of a file need their checksum',
    fix: 'Give `checksum: await tokensChecksum(pieces)`',
  })
}

/**
 * Gives shuffled windows of a text, epoch after epoch without end. Every epoch has another order and cuts the text at
 * other places. The position is two numbers, and going on from it takes no time, however far the run had come.
 */
export class TextLoader implements StepSource {
  private readonly options: Required<Omit<TextLoaderOptions, 'checksum'>>
  private readonly text: number
  /** Phases that leave at least one window. */
  private readonly phases: number
  private epoch = 0
  private at = 0
  private windows!: Windows
  private order!: (place: number) => number

  /**
   * @param pieces tokens; no window reaches across two pieces
   * @throws SteepestError OPTION, or DATA where no piece is longer than the context
   */
  constructor(
    private readonly pieces: readonly Tokens[],
    options: TextLoaderOptions,
  ) {
    checkOptions('TextLoader', options, ['context', 'batch', 'accumulate', 'seed', 'who', 'checksum'])
    const { context, batch, accumulate = 1, seed = 0, who = 'text', checksum } = options
    for (const [name, value] of Object.entries({ context, batch, accumulate })) checkCount('TextLoader', name, value)
    this.options = { context, batch, accumulate, seed, who }
    windowsOf(pieces, context, who)
    this.text = checksum ?? pieces.reduce((crc, p) => crc32(bytesOf(p), crc), 0)
    this.phases = Math.min(context, pieces.reduce((n, p) => Math.max(n, p.length), 0) - context)
    this.enter(0, 0)
  }

  /** Windows in the first epoch; those of others differ by a few. */
  get windowsPerEpoch(): number {
    return new Windows(this.pieces, this.options.context).count
  }

  private enter(epoch: number, at: number): void {
    const { context, seed } = this.options
    this.epoch = epoch
    this.at = at
    this.windows = new Windows(this.pieces, context, epoch === 0 ? 0 : hash32(seed, epoch, 1) % this.phases)
    this.order = permutation(this.windows.count, seed, epoch)
  }

  private take(row: number, inputs: Int32Array, targets: Int32Array): [number, Promise<void> | undefined] {
    if (this.at === this.windows.count) this.enter(this.epoch + 1, 0)
    const window = this.order(this.at++)
    return [window, this.windows.copy(window, row, inputs, targets)]
  }

  /** The data of the next step; the weight is the number of labels. Tokens of a file are waited for. */
  next(): StepData | Promise<StepData> {
    const { batch, context, accumulate } = this.options
    const fill = this.take.bind(this)
    const waiting: Waiting = []
    const microBatches = Array.from({ length: accumulate }, () => tokenBatch(batch, context, batch, fill, waiting))
    const tokens = accumulate * batch * context
    return whenRead(waiting, { microBatches, weight: tokens, tokens })
  }

  /** Where the next `next()` begins. */
  state(): TextPosition {
    const { context, seed } = this.options
    return { epoch: this.epoch, at: this.at, context, seed, text: this.text }
  }

  /**
   * Goes on from a position. The batch size may be another than it was.
   *
   * @throws SteepestError CHECKPOINT where the text, its split, the context or the seed is another
   */
  restore(state: unknown): void {
    const { context, seed, who } = this.options
    const from = state as Partial<TextPosition> | null
    const differs = (rule: string, got: string, fix: string): never => {
      throw new SteepestError('CHECKPOINT', { who, rule, got, fix })
    }
    const whole = (x: unknown): x is number => Number.isSafeInteger(x) && Number(x) >= 0
    if (!whole(from?.epoch) || !whole(from.at))
      differs('a data position has an epoch and a place in it', JSON.stringify(state), 'Resume from another checkpoint')
    const { epoch, at } = from as TextPosition
    if (from?.context !== context)
      differs(
        'a run goes on with the context that it began with',
        `${context} for ${from?.context}`,
        `Give a context of ${from?.context}`,
      )
    if (from?.seed !== seed)
      differs(
        'a run goes on with the seed that it began with',
        `${seed} for ${from?.seed}`,
        `Give the seed ${from?.seed}`,
      )
    if (from?.text !== this.text)
      differs(
        'the run was begun on another text, tokenizer or split',
        '',
        'Give the ones that it began with, or begin a new run',
      )
    this.enter(epoch, at)
    if (at > this.windows.count)
      differs(
        'a data position lies within its epoch',
        `${at} of ${this.windows.count}`,
        'Resume from another checkpoint',
      )
  }
}

/**
 * The windows of a validation part in order, once; the last batch is filled up with rows that count for nothing, so that all
 * have one shape.
 *
 * @param options `limit`: windows at most, evenly spaced over the text; all where not given
 * @throws SteepestError DATA where no piece is longer than the context
 */
export function evaluationSteps(
  pieces: readonly Tokens[],
  options: { readonly context: number; readonly batch: number; readonly limit?: number; readonly who?: string },
): () => AsyncGenerator<StepData> {
  checkOptions('evaluationSteps', options, ['context', 'batch', 'limit', 'who'])
  const { context, batch, limit = Number.POSITIVE_INFINITY, who = 'text' } = options
  for (const [name, value] of Object.entries({ context, batch })) checkCount('evaluationSteps', name, value)
  const windows = windowsOf(pieces, context, who)
  const count = Math.max(1, Math.min(windows.count, limit))
  return async function* steps() {
    for (let first = 0; first < count; first += batch) {
      const rows = Math.min(batch, count - first)
      const fill = (row: number, inputs: Int32Array, targets: Int32Array): [number, Promise<void> | undefined] => {
        const window = Math.floor(((first + row) * windows.count) / count)
        return [window, windows.copy(window, row, inputs, targets)]
      }
      const tokens = rows * context
      const waiting: Waiting = []
      const microBatches = [tokenBatch(batch, context, rows, fill, waiting)]
      yield await whenRead(waiting, { microBatches, weight: tokens, tokens })
    }
  }
}
