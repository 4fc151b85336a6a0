import { checkOptions, SteepestError } from '../errors.js'
import type { StepData, StepSource } from '../train/data.js'

/** How the number of micro-batches grows. */
export interface GrowingOptions {
  /** Micro-batches of the first step, a whole number of 1 or more; a variance of micro-batches needs two. Default 2. */
  readonly start?: number
  /** Micro-batches of a step at most. Default 4096. */
  readonly max?: number
  /** Take the next power of two, so that few programs are made. Default false. */
  readonly doubling?: boolean
}

interface Position {
  readonly batches: number
  readonly inner: unknown
}

/**
 * Steps that grow as `optim.adaptiveBatch` asks: each takes that many steps of `source` (of one micro-batch each) as its micro-batches, never
 * fewer than before. A training loop waits for each step before it asks for the next, so a run does not depend on time.
 * The position has the size of the steps.
 */
export function growing(source: StepSource, options: GrowingOptions = {}): StepSource {
  const who = 'data.growing'
  checkOptions(who, options, ['start', 'max', 'doubling'])
  const { start = 2, max = 4096, doubling = false } = options
  for (const [name, value] of Object.entries({ start, max }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw new SteepestError('OPTION', {
        who,
        rule: `\`${name}\` must be a whole number of 1 or more`,
        got: String(value),
      })
  let batches = Math.min(start, max)
  const grown: StepSource = {
    unit: source.unit,
    async next(): Promise<StepData | null> {
      const parts: StepData[] = []
      while (parts.length < batches) {
        const part = await source.next()
        if (part === null) return null
        if (part.microBatches.length !== 1 || part.weight !== undefined)
          throw new SteepestError('DATA', {
            who,
            rule: 'the source must give one micro-batch a step, whose loss is its own mean',
            got: `${part.microBatches.length}${part.weight === undefined ? '' : ' with a weight'}`,
          })
        parts.push(part)
      }
      return {
        microBatches: parts.flatMap((part) => part.microBatches),
        tokens: parts.reduce((n, part) => n + part.tokens, 0),
      }
    },
    observe({ neededBatches }) {
      if (neededBatches === undefined || Number.isNaN(neededBatches)) return
      const wanted = Math.min(Math.ceil(neededBatches), max)
      batches = Math.max(batches, doubling ? Math.min(2 ** Math.ceil(Math.log2(Math.max(1, wanted))), max) : wanted)
    },
    state: (): Position => ({ batches, inner: source.state?.() }),
    async restore(state) {
      const from = state as Position
      batches = from.batches
      await source.restore?.(from.inner)
    },
    close: () => source.close?.(),
  }
  return grown
}
