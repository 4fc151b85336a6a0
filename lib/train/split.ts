import type { StepData, StepSource } from './data.js'
import { type Batch, HostArray } from './host.js'

/** What a batch has for each of its examples: all but the mark that says what its loss is divided by. */
const byExample = (batch: Batch): [string, HostArray][] =>
  Object.entries(batch).filter(([name]) => name !== 'normalized')

const rowsOf = (batch: Batch): number => byExample(batch)[0]?.[1].shape[0] ?? 1

/** Micro-batches in more parts, each with a share of the rows of every array. */
export function splitBatches(batches: readonly Batch[], parts: number): readonly Batch[] {
  if (parts === 1) return batches
  return batches.flatMap((batch) => {
    const rows = rowsOf(batch) / parts
    return Array.from({ length: parts }, (_, part) => {
      const pieces = byExample(batch).map(([name, { data, shape }]): [string, HostArray] => {
        const size = data.length / parts
        return [name, new HostArray(data.slice(part * size, (part + 1) * size), [rows, ...shape.slice(1)])]
      })
      return { ...batch, ...Object.fromEntries(pieces) }
    })
  })
}

/** Labels that are not counted: with them the mean of a batch is not that of the means of its parts. */
const hasUncounted = (batch: Batch): boolean =>
  Object.values(batch).some(({ data }) => data instanceof Int32Array && data.some((x) => x < 0))

/**
 * The numbers of parts that micro-batches may be cut into, ascending from 1, such that the gradient of the step is the same but for the order
 * of its sums: the model's loss is divided by the weight of the whole step, or is a mean over rows that all count alike.
 */
export function splitsOf({ microBatches, weight }: StepData): number[] {
  const rows = rowsOf(microBatches[0])
  const even = microBatches.every((b) => byExample(b).every(([, a]) => a.shape[0] === rows))
  if (!even || (weight === undefined && microBatches.some(hasUncounted))) return [1]
  return Array.from({ length: rows }, (_, i) => i + 1).filter((n) => rows % n === 0)
}

/** Batches to evaluate on, in parts too, where they can be cut. */
export const splitEvaluation = (
  data: () => Iterable<StepData> | AsyncIterable<StepData>,
  parts: number,
): (() => AsyncIterable<StepData>) =>
  async function* () {
    for await (const step of data()) {
      const fits = splitsOf(step).includes(parts)
      yield fits ? { ...step, microBatches: splitBatches(step.microBatches, parts) } : step
    }
  }

/** A source whose steps are changed on their way, and that is as the given one in all else. */
export const mappedSource = (source: StepSource, change: (data: StepData) => StepData): StepSource => ({
  unit: source.unit,
  next: async () => {
    const data = await source.next()
    return data && change(data)
  },
  state: source.state && (() => source.state!()),
  restore: source.restore && ((state) => source.restore!(state)),
  observe: source.observe && ((metrics) => source.observe!(metrics)),
  close: source.close && (() => source.close!()),
})

/** A source whose micro-batches are cut into parts. */
export const splitSource = (source: StepSource, parts: number): StepSource =>
  parts === 1
    ? source
    : mappedSource(source, (data) => ({ ...data, microBatches: splitBatches(data.microBatches, parts) }))

/** A source whose first step can be looked at before it is taken. */
export class PeekedSource implements StepSource {
  private ahead: { data: StepData | null; before: unknown } | undefined
  readonly unit?: string
  readonly state?: () => unknown
  readonly restore?: (state: unknown) => void | Promise<void>
  readonly observe?: StepSource['observe']

  constructor(private readonly source: StepSource) {
    this.unit = source.unit
    if (source.observe) this.observe = (metrics) => source.observe!(metrics)
    if (source.state) this.state = () => (this.ahead ? this.ahead.before : source.state!())
    if (source.restore) {
      this.restore = (state) => {
        this.ahead = undefined
        return source.restore!(state)
      }
    }
  }

  async peek(): Promise<StepData | null> {
    if (!this.ahead) {
      const before = this.source.state?.()
      this.ahead = { before, data: await this.source.next() }
    }
    return this.ahead.data
  }

  async next(): Promise<StepData | null> {
    const { ahead } = this
    this.ahead = undefined
    return ahead ? ahead.data : this.source.next()
  }

  async close(): Promise<void> {
    await this.source.close?.()
  }
}
