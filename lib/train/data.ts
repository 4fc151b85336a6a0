import { SteepestError } from '../errors.js'
import type { TypedArray } from '../tensor/dtype.js'
import { type Batch, HostArray } from './host.js'

/** The data of one step. */
export interface StepData {
  readonly microBatches: readonly Batch[]
  /** Weight of the labels of all micro-batches; absent where the model's loss is its own mean. */
  readonly weight?: number
  /** Tokens (or examples) that the step trains on. */
  readonly tokens: number
}

/** Gives the data of step after step; null when there is no more. */
export interface StepSource {
  next(): Promise<StepData | null> | StepData | null
  /** Where the source stands, as JSON: what the next `next()` depends on. */
  state?(): unknown
  restore?(state: unknown): void | Promise<void>
  /** What `tokens` of its steps counts, where that is something else, such as rows. */
  readonly unit?: string
  /** Gets the numbers of every step before the next is asked for; a loop then keeps no second step under way. */
  observe?(metrics: Readonly<Record<string, number>>): void
  close?(): void | Promise<void>
}

const isArray = (x: unknown): x is TypedArray => ArrayBuffer.isView(x)

function toBatch(x: unknown): Batch {
  if (typeof x !== 'object' || x === null) {
    throw new SteepestError('DATA', {
      who: 'train',
      rule: 'a batch must be a record of typed arrays or { data, shape }',
      got: typeof x,
    })
  }
  return Object.fromEntries(
    Object.entries(x).map(([k, v]) => {
      if (v instanceof HostArray) return [k, v]
      if (isArray(v)) return [k, new HostArray(v)]
      const { data, shape } = (v ?? {}) as { data?: TypedArray; shape?: number[] }
      if (!isArray(data))
        throw new SteepestError('DATA', {
          who: `batch.${k}`,
          rule: 'must be a typed array or { data, shape }',
          got: typeof v,
        })
      return [k, new HostArray(data, shape)]
    }),
  )
}

const isStepData = (x: unknown): x is StepData =>
  typeof x === 'object' && x !== null && Array.isArray((x as StepData).microBatches)

/** A source of steps from whatever gives batches; `accumulate` of them make a step. */
export function toSource(
  data: StepSource | Iterable<unknown> | AsyncIterable<unknown>,
  accumulate: number,
): StepSource {
  if (typeof (data as StepSource).next === 'function' && !(Symbol.asyncIterator in data) && !(Symbol.iterator in data))
    return data as StepSource
  const iterable = data as Iterable<unknown> | AsyncIterable<unknown>
  const iterator = Symbol.asyncIterator in iterable ? iterable[Symbol.asyncIterator]() : iterable[Symbol.iterator]()
  return {
    unit: 'rows',
    next: async () => {
      const batches: Batch[] = []
      while (batches.length < accumulate) {
        const item = await iterator.next()
        if (item.done) break
        if (isStepData(item.value)) return item.value
        batches.push(toBatch(item.value))
      }
      if (batches.length === 0) return null
      return { microBatches: batches, tokens: batches.reduce((n, b) => n + (Object.values(b)[0]?.shape[0] ?? 0), 0) }
    },
    close: async () => {
      await iterator.return?.()
    },
  }
}
