import { checkOptions, SteepestError } from '../errors.js'
import type { StepData, StepSource } from '../train/data.js'
import { type ArrayField, batchOf } from './arrays.js'

/** How a generator becomes steps. */
export interface GeneratorOptions {
  /** Batches in a step; 1 where not given. */
  readonly accumulate?: number
  /** How often the generator is begun; once where not given. */
  readonly epochs?: number
}

/** Position of a {@link fromGenerator}; plain JSON. */
interface Position {
  readonly epoch: number
  readonly taken: number
}

/**
 * Gives steps from batches that a function makes: records of typed arrays, or of `{ data, shape }`. `make` is called with the number
 * of the epoch, and must make the same batches for the same number: a resumed run goes on by taking again, and leaving out, those
 * that the epoch had given. What is left at its end and is no whole step is left out.
 *
 * With `accumulate` above 1, a record may have a field `weight` with one number, the weight of its labels (the rows of its first
 * field where it has none); the model must divide its summed loss by `ctx.normalizer`.
 *
 * @throws SteepestError OPTION, or DATA and SHAPE where a batch is none
 */
export function fromGenerator(
  make: (epoch: number) => Iterable<unknown> | AsyncIterable<unknown>,
  options: GeneratorOptions = {},
): StepSource {
  checkOptions('fromGenerator', options, ['accumulate', 'epochs'])
  const { accumulate = 1, epochs = 1 } = options
  if (!Number.isSafeInteger(accumulate) || accumulate < 1) {
    throw new SteepestError('OPTION', {
      who: 'fromGenerator',
      rule: '`accumulate` must be a whole number of 1 or more',
      got: String(accumulate),
    })
  }
  let epoch = 0
  let taken = 0
  let iterator: Iterator<unknown> | AsyncIterator<unknown> | undefined
  const begin = () => {
    const batches = make(epoch)
    iterator = Symbol.asyncIterator in batches ? batches[Symbol.asyncIterator]() : batches[Symbol.iterator]()
  }
  const take = async (): Promise<unknown> => {
    while (epoch < epochs) {
      if (!iterator) begin()
      const item = await iterator!.next()
      if (!item.done) {
        taken++
        return item.value
      }
      if (taken === 0)
        throw new SteepestError('DATA', {
          who: 'fromGenerator',
          rule: 'an epoch must have at least one batch',
          got: `none in epoch ${epoch}`,
        })
      iterator = undefined
      epoch++
      taken = 0
    }
    return undefined
  }
  return {
    unit: 'rows',
    async next(): Promise<StepData | null> {
      const microBatches: ReturnType<typeof batchOf>[] = []
      let weight = 0
      let tokens = 0
      while (microBatches.length < accumulate) {
        const item = await take()
        if (item === undefined) return null
        const { weight: given, ...fields } = item as Record<string, ArrayField>
        const batch = batchOf(fields)
        const rows = Object.values(batch)[0]?.shape[0] ?? 0
        tokens += rows
        weight += given === undefined ? rows : Number(ArrayBuffer.isView(given) ? given[0] : given)
        microBatches.push(batch)
      }
      if (accumulate === 1) return { microBatches, tokens }
      const normalized = { data: Uint8Array.of(1), shape: [1], dtype: 'uint8' as const }
      return { microBatches: microBatches.map((batch) => ({ ...batch, normalized })), tokens, weight }
    },
    state: (): Position => ({ epoch, taken }),
    async restore(state) {
      const from = state as Position
      await iterator?.return?.()
      iterator = undefined
      epoch = from.epoch
      taken = 0
      while (taken < from.taken) {
        if ((await take()) === undefined || epoch !== from.epoch) {
          throw new SteepestError('CHECKPOINT', {
            who: 'fromGenerator',
            rule: 'the generator must make the batches that it made before',
            got: `fewer than ${from.taken} in epoch ${from.epoch}`,
          })
        }
      }
    },
    async close() {
      await iterator?.return?.()
    },
  }
}
