import { checkOptions, SteepestError } from '../errors.js'
import type { DType, TypedArray } from '../tensor/dtype.js'
import type { StepData, StepSource } from '../train/data.js'
import { permutation } from './permutation.js'

/** One field of a data set: examples along the first axis; a bare array is one number an example. */
export type ArrayField = TypedArray | { readonly data: TypedArray; readonly shape: readonly number[] }

/** How arrays become steps. */
export interface ArraysOptions {
  /** Examples in a micro-batch; not more than there are. */
  readonly batch: number
  /** Micro-batches in a step; 1 where not given. */
  readonly accumulate?: number
  /** Whether every epoch has an order of its own; true where not given. */
  readonly shuffle?: boolean
  readonly seed?: number
  /** Epochs after which the data end; without end where not given. */
  readonly epochs?: number
}

interface Field {
  readonly data: TypedArray
  readonly shape: readonly number[]
  readonly dtype: DType
  /** Numbers an example. */
  readonly width: number
}

const KINDS = [Float32Array, Float64Array, Int32Array, Uint8Array]

const dtypeOf = (data: TypedArray): DType =>
  data instanceof Float32Array
    ? 'float32'
    : data instanceof Float64Array
      ? 'float64'
      : data instanceof Int32Array
        ? 'int32'
        : 'uint8'

function fieldOf(who: string, field: ArrayField): Field {
  const { data, shape } = ArrayBuffer.isView(field) ? { data: field, shape: [field.length] } : (field ?? {})
  if (!KINDS.some((kind) => data instanceof kind) || !Array.isArray(shape)) {
    const rule = 'must be a Float32Array, Float64Array, Int32Array or Uint8Array, or { data, shape }'
    throw new SteepestError('DATA', {
      who,
      rule,
      got: data === undefined ? typeof field : Object.prototype.toString.call(data).slice(8, -1),
    })
  }
  const size = shape.reduce((n, d) => n * d, 1)
  if (shape.length === 0 || size !== data.length) {
    const got = `[${shape.join(', ')}] for ${data.length} numbers`
    throw new SteepestError('SHAPE', {
      who,
      rule: 'the shape must have examples as its first axis and hold all numbers',
      got,
    })
  }
  return { data, shape, dtype: dtypeOf(data), width: shape[0] === 0 ? 0 : size / shape[0] }
}

/** A batch of a record of arrays; `who` for messages. */
export function batchOf(
  record: Readonly<Record<string, ArrayField>>,
  who = 'batch',
): Record<string, Omit<Field, 'width'>> {
  if (typeof record !== 'object' || record === null) {
    throw new SteepestError('DATA', {
      who,
      rule: 'must be a record of typed arrays or { data, shape }',
      got: typeof record,
    })
  }
  return Object.fromEntries(
    Object.entries(record).map(([name, field]) => {
      const { data, shape, dtype } = fieldOf(`${who}.${name}`, field)
      return [name, { data, shape, dtype }]
    }),
  )
}

/**
 * Gives steps from arrays that hold one example in each row. Batches are whole: what is left at the end of an epoch opens the
 * next one, or, in the last, is left out. With `accumulate` above 1, a model must divide its summed loss by `ctx.normalizer`,
 * which is the number of examples of the step.
 *
 * @throws SteepestError OPTION, SHAPE, or DATA where there are fewer examples than a batch has
 */
export function fromArrays(arrays: Readonly<Record<string, ArrayField>>, options: ArraysOptions): StepSource {
  const who = 'fromArrays'
  checkOptions(who, options, ['batch', 'accumulate', 'shuffle', 'seed', 'epochs'])
  const { batch, accumulate = 1, shuffle = true, seed = 0, epochs = Number.POSITIVE_INFINITY } = options
  for (const [name, value] of Object.entries({ batch, accumulate })) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new SteepestError('OPTION', {
        who,
        rule: `\`${name}\` must be a whole number of 1 or more`,
        got: String(value),
      })
    }
  }
  const fields = Object.entries(arrays).map(([name, field]) => [name, fieldOf(`arrays.${name}`, field)] as const)
  const examples = fields[0]?.[1].shape[0] ?? 0
  for (const [name, field] of fields) {
    if (field.shape[0] === examples) continue
    throw new SteepestError('SHAPE', {
      who: `arrays.${name}`,
      rule: `all fields must have as many examples as ${fields[0][0]}`,
      got: `${field.shape[0]} for ${examples}`,
    })
  }
  if (examples < batch) {
    const fix = examples > 0 ? `Give more, or a batch of at most ${examples}` : 'Give some'
    throw new SteepestError('DATA', {
      who,
      rule: 'there must be as many examples as a batch has',
      got: `${examples} for a batch of ${batch}`,
      fix,
    })
  }

  let epoch = 0
  let at = 0
  const orderOf = (of: number) => (shuffle ? permutation(examples, seed, of) : (place: number) => place)
  let order = orderOf(0)
  const take = (): number => {
    if (at === examples) {
      at = 0
      order = orderOf(++epoch)
    }
    return order(at++)
  }
  const microBatch = () => {
    const rows = Int32Array.from({ length: batch }, take)
    const gathered = fields.map(([name, { data, shape, dtype, width }]) => {
      const out = new (data.constructor as new (n: number) => TypedArray)(batch * width)
      rows.forEach((row, i) => out.set(data.subarray(row * width, (row + 1) * width), i * width))
      return [name, { data: out, shape: [batch, ...shape.slice(1)], dtype }] as const
    })
    const ids = { data: rows, shape: [batch], dtype: 'int32' as const }
    const normalized = { data: Uint8Array.of(1), shape: [1], dtype: 'uint8' as const }
    return { ids, ...(accumulate > 1 ? { normalized } : {}), ...Object.fromEntries(gathered) }
  }
  return {
    unit: 'rows',
    next(): StepData | null {
      const left = (epochs - epoch) * examples - at
      if (left < batch * accumulate) return null
      const microBatches = Array.from({ length: accumulate }, microBatch)
      const weight = batch * accumulate
      return { microBatches, tokens: weight, ...(accumulate > 1 ? { weight } : {}) }
    },
    state: () => ({ epoch, at, examples, seed, shuffle }),
    restore(state) {
      const from = state as { epoch: number; at: number; examples: number; seed: number; shuffle: boolean } | null
      if (from?.examples !== examples || from.seed !== seed || from.shuffle !== shuffle) {
        const got = `${examples} examples and seed ${seed} for ${from?.examples} and ${from?.seed}`
        throw new SteepestError('CHECKPOINT', {
          who,
          rule: 'a run goes on with the data, seed and shuffling that it began with',
          got,
        })
      }
      epoch = from.epoch
      at = from.at
      order = orderOf(epoch)
    },
  }
}
