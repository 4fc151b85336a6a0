import { checkOptions, SteepestError } from '../errors.js'
import type { StepData, StepSource } from '../train/data.js'
import type { Batch } from '../train/host.js'
import { permutation } from './permutation.js'
import { listed, type RowSource } from './row-store.js'

/** A micro-batch, and what its labels weigh. */
export interface Filled {
  readonly batch: Batch
  readonly weight: number
}

/** How rows become micro-batches. */
export interface Batcher<R> {
  /** Tokens of a row; 1 where rows are not packed by them. */
  size?(row: R): number
  /** How many rows of these sizes, from the first, fill one micro-batch; at least one, and where the rows end more than there are. */
  take(sizes: Iterable<number>): number
  /** The micro-batch of them, for rows that change with the epoch those of it; none where they are evaluated. */
  batch(rows: readonly R[], numbers: readonly number[], epoch?: number): Filled | Promise<Filled>
}

const isWaiting = (all: readonly (Filled | Promise<Filled>)[]): boolean => all.some((m) => m instanceof Promise)

const isList = <R>(rows: readonly R[] | RowSource<R>): rows is readonly R[] => Array.isArray(rows)
const sourceOf = <R>(rows: readonly R[] | RowSource<R>, batcher: Batcher<R>): RowSource<R> =>
  isList(rows) ? listed(rows, batcher.size) : rows

/** What is there at once is used at once. */
const thenOf = <A, B>(value: A | Promise<A>, next: (value: A) => B | Promise<B>): B | Promise<B> =>
  value instanceof Promise ? value.then(next) : next(value)

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

/** How many of the rows that stand from a place on fill a micro-batch. */
function countOf<R>(rows: RowSource<R>, batcher: Batcher<R>, order: (place: number) => number, first: number): number {
  const end = Math.min(rows.length, first + AHEAD)
  function* sizes() {
    for (let place = first; place < end; place++) yield rows.size(order(place))
  }
  return Math.min(end - first, batcher.take(sizes()))
}

/**
 * Gives shuffled rows, epoch after epoch without end. No row is split between two steps' micro-batches, and every row is seen once an epoch.
 * The position is an epoch and a place in it.
 */
export class RowLoader<R> implements StepSource {
  private readonly accumulate: number
  private readonly seed: number
  private readonly who: string
  private readonly rows: RowSource<R>
  private epoch = 0
  private at = 0
  private order: (place: number) => number

  constructor(
    rows: readonly R[] | RowSource<R>,
    private readonly batcher: Batcher<R>,
    options: RowLoaderOptions = {},
  ) {
    checkOptions('RowLoader', options, ['accumulate', 'seed', 'who'])
    this.accumulate = options.accumulate ?? 1
    this.seed = options.seed ?? 0
    this.who = options.who ?? 'data'
    if (rows.length === 0) throw new SteepestError('DATA', { who: this.who, rule: 'there are no rows' })
    this.rows = sourceOf(rows, batcher)
    this.order = permutation(rows.length, this.seed, 0)
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
      const numbers = this.taken()
      const { epoch } = this
      return thenOf(this.rows.read(numbers), (rows) => this.batcher.batch(rows, numbers, epoch))
    })
    return isWaiting(micros) ? Promise.all(micros).then(stepOf) : stepOf(micros as Filled[])
  }

  /** The numbers of the rows of the next micro-batch. */
  private taken(): number[] {
    if (this.at === this.rows.length) this.enter(this.epoch + 1, 0)
    const first = this.at
    this.at += countOf(this.rows, this.batcher, (place) => this.order(place), first)
    return Array.from({ length: this.at - first }, (_, i) => this.order(first + i))
  }

  /** Steps until every row was seen once, from where the loader stands, which goes there. */
  skipEpoch(): number {
    const end = this.epochs + 1
    let micros = 0
    for (; this.epochs < end; micros++) this.taken()
    return Math.ceil(micros / this.accumulate)
  }

  state(): unknown {
    return { epoch: this.epoch, at: this.at, seed: this.seed, rows: this.rows.checksum }
  }

  /** @throws SteepestError CHECKPOINT where the rows or the seed are others */
  restore(state: unknown): void {
    const { epoch, at, seed, rows } = (state ?? {}) as Record<string, number>
    if (seed !== this.seed || rows !== this.rows.checksum || !(at >= 0 && at <= this.rows.length)) {
      throw new SteepestError('CHECKPOINT', {
        who: this.who,
        rule: 'a run goes on with the data, the order and the seed that it began with',
        fix: 'Give the ones that it began with, or begin a new run',
      })
    }
    this.enter(epoch, at)
  }

  /** The rows in their order, once. */
  static async *once<R>(from: readonly R[] | RowSource<R>, batcher: Batcher<R>): AsyncGenerator<StepData> {
    const rows = sourceOf(from, batcher)
    for (let at = 0; at < rows.length; ) {
      const first = at
      at += countOf(rows, batcher, (place) => place, first)
      const numbers = Array.from({ length: at - first }, (_, i) => first + i)
      yield stepOf([await batcher.batch(await rows.read(numbers), numbers)])
    }
  }
}
