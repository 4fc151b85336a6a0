import { crc32 } from 'node:zlib'
import { checkOptions, SteepestError } from '../errors.js'
import type { StepData, StepSource } from '../train/data.js'
import type { Batch } from '../train/host.js'
import { permutation } from './permutation.js'

/** A micro-batch, and what its labels weigh. */
export interface Filled {
  readonly batch: Batch
  readonly weight: number
}

/** How rows become micro-batches. */
export interface Batcher<R> {
  /** How many of these rows, from the first, fill one micro-batch; at least one. */
  take(rows: readonly R[]): number
  /** The micro-batch of them, for rows that change with the epoch those of it; none where they are evaluated. */
  batch(rows: readonly R[], numbers: readonly number[], epoch?: number): Filled | Promise<Filled>
}

const isWaiting = (all: readonly (Filled | Promise<Filled>)[]): boolean => all.some((m) => m instanceof Promise)

function stepOf(micros: readonly Filled[]): StepData {
  const weight = micros.reduce((n, m) => n + m.weight, 0)
  return { microBatches: micros.map((m) => m.batch), weight, tokens: weight }
}

/** How a {@link RowLoader} gives its rows. */
export interface RowLoaderOptions {
  /** Micro-batches in a step; 1 where not given. */
  readonly accumulate?: number
  /** Seed of the order; 0 where not given. */
  readonly seed?: number
  /** Whose rows they are, for messages: the file. */
  readonly who?: string
}

/** Rows that a batcher looks at, at most, to fill a micro-batch. */
const AHEAD = 4096

/**
 * Gives shuffled rows, epoch after epoch without end. No row is split between two steps' micro-batches, and every row is seen once an epoch.
 * The position is an epoch and a place in it.
 */
export class RowLoader<R> implements StepSource {
  private readonly accumulate: number
  private readonly seed: number
  private readonly who: string
  private readonly checksum: number
  private epoch = 0
  private at = 0
  private order: (place: number) => number

  constructor(
    private readonly rows: readonly R[],
    private readonly batcher: Batcher<R>,
    options: RowLoaderOptions = {},
  ) {
    checkOptions('RowLoader', options, ['accumulate', 'seed', 'who'])
    this.accumulate = options.accumulate ?? 1
    this.seed = options.seed ?? 0
    this.who = options.who ?? 'data'
    if (rows.length === 0) throw new SteepestError('DATA', { who: this.who, rule: 'there are no rows' })
    this.checksum = crc32(JSON.stringify([rows.length, rows.at(0), rows.at(-1)]))
    this.order = permutation(rows.length, this.seed, 0)
  }

  private numbers(): number[] {
    if (this.at === this.rows.length) this.enter(this.epoch + 1, 0)
    return Array.from({ length: Math.min(AHEAD, this.rows.length - this.at) }, (_, i) => this.order(this.at + i))
  }

  private enter(epoch: number, at: number): void {
    this.epoch = epoch
    this.at = at
    this.order = permutation(this.rows.length, this.seed, epoch)
  }

  /** Epochs that were given, with the part of the one that is under way. */
  get epochs(): number {
    return this.epoch + this.at / this.rows.length
  }

  next(): StepData | Promise<StepData> {
    const micros = Array.from({ length: this.accumulate }, () => {
      const [numbers, rows] = this.taken()
      return this.batcher.batch(rows, numbers, this.epoch)
    })
    return isWaiting(micros) ? Promise.all(micros).then(stepOf) : stepOf(micros as Filled[])
  }

  /** The rows of the next micro-batch. */
  private taken(): [numbers: number[], rows: R[]] {
    const numbers = this.numbers()
    const rows = numbers.map((n) => this.rows[n])
    const count = this.batcher.take(rows)
    this.at += count
    return [numbers.slice(0, count), rows.slice(0, count)]
  }

  /** Steps until every row was seen once, from where the loader stands, which goes there. */
  skipEpoch(): number {
    const end = this.epochs + 1
    let micros = 0
    for (; this.epochs < end; micros++) this.taken()
    return Math.ceil(micros / this.accumulate)
  }

  state(): unknown {
    return { epoch: this.epoch, at: this.at, seed: this.seed, rows: this.checksum }
  }

  /** @throws SteepestError CHECKPOINT where the rows or the seed are others */
  restore(state: unknown): void {
    const { epoch, at, seed, rows } = (state ?? {}) as Record<string, number>
    if (seed !== this.seed || rows !== this.checksum || !(at >= 0 && at <= this.rows.length)) {
      throw new SteepestError('CHECKPOINT', {
        who: this.who,
        rule: 'a run goes on with the data, the order and the seed that it began with',
        fix: 'Give the ones that it began with, or begin a new run',
      })
    }
    this.enter(epoch, at)
  }

  /** The rows in their order, once. */
  static async *once<R>(rows: readonly R[], batcher: Batcher<R>): AsyncGenerator<StepData> {
    for (let at = 0; at < rows.length; ) {
      const left = rows.slice(at, at + AHEAD)
      const taken = batcher.take(left)
      const numbers = left.slice(0, taken).map((_, i) => at + i)
      at += taken
      yield stepOf([await batcher.batch(left.slice(0, taken), numbers)])
    }
  }
}
