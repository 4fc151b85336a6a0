import type { Parts, Stores } from '../../data/parts.js'
import { type Batcher, RowLoader } from '../../data/row-loader.js'
import type { StoreOptions } from '../../data/row-store.js'
import type { Tokenizer } from '../../data/tokenizer.js'
import type { FolderModel } from '../../models/hf.js'
import type { StepData } from '../data.js'
import type { Classes } from './classes.js'

/** The rows of a data set for one model, and how they are given. */
export interface Rows {
  readonly count: number
  readonly validationCount: number
  readonly context: number
  /** What a step is counted in, where that is not tokens. */
  readonly unit?: 'rows' | 'images'
  /** What was done to rows that were too long; empty where nothing was. */
  readonly notes: readonly string[]
  loader(options: { batch: number; accumulate: number; seed: number }): RowLoader<unknown>
  evaluation(batch: number): () => AsyncGenerator<StepData>
  /** Whether rows are read or made when their turn comes: then they are made ahead of the step. */
  readonly slow?: boolean
  /** Some rows as a person reads them; what is learned stands between ⟦ and ⟧. */
  preview(count: number): string[]
  /** Gives memory and disk back. */
  close(): Promise<void>
}

/** What rows are made of, and for which model. */
export interface RowsOptions {
  readonly model: FolderModel
  readonly tokenizer: Tokenizer
  readonly folder: string
  readonly parts: Parts
  readonly context?: number
  readonly learnPrompts?: boolean
  readonly classes?: Classes
  /** Where rows go that are too many for memory. */
  readonly storage?: StoreOptions
}

/** What was done to rows that were too long, for the plan. */
export const note = (cut: number, context: number, dropped = 0): string[] => [
  ...(cut > 0 ? [`${cut} rows are longer than ${context} tokens and were cut`] : []),
  ...(dropped > 0 ? [`${dropped} of them had nothing left to learn and were left out`] : []),
]

/** How rows that are stored are given to a model. */
interface Giving<R> extends Pick<Rows, 'context' | 'unit' | 'notes'> {
  batcher(batch: number, seed: number): Batcher<R>
  show(row: R): string
}

/** Rows that are stored, for a model. */
export function storedRows<R extends object>(
  { parts }: RowsOptions,
  { train, validation, close }: Stores<R>,
  { batcher, show, ...about }: Giving<R>,
): Rows {
  return {
    ...about,
    count: train.length,
    validationCount: validation.length,
    slow: train.spilled,
    loader: ({ batch, accumulate, seed }) =>
      new RowLoader(train, batcher(batch, seed), { accumulate, seed, who: parts.data }) as RowLoader<unknown>,
    evaluation: (batch) => () => RowLoader.once(validation, batcher(batch, 0)),
    preview: (count) => train.first.slice(0, count).map(show),
    close,
  }
}
