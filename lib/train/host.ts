import { SteepestError } from '../errors.js'
import { bytesOf, type DType, type TypedArray } from '../tensor/dtype.js'
import { type Aval, type Shape, sizeOf } from '../tensor/shape.js'

/** Numbers of a batch before they are in native memory. */
export class HostArray {
  readonly data: TypedArray
  readonly shape: Shape
  readonly dtype: DType

  /** @param shape defaults to one axis */
  constructor(data: TypedArray, shape: Shape = [data.length]) {
    if (sizeOf(shape) !== data.length) {
      throw new SteepestError('SHAPE', {
        who: 'batch',
        rule: 'the shape must hold as many elements as there are numbers',
        got: `[${shape.join(', ')}] for ${data.length}`,
      })
    }
    this.data = data
    this.shape = shape
    this.dtype =
      data instanceof Float32Array
        ? 'float32'
        : data instanceof Float64Array
          ? 'float64'
          : data instanceof Int32Array
            ? 'int32'
            : 'uint8'
  }
}

/** A batch: a record of arrays, by the names that the model's `loss` knows. */
export type Batch = Readonly<Record<string, HostArray>>

/** Bytes of a value in native memory. */
export const avalBytes = (a: Aval): number => sizeOf(a.shape) * bytesOf(a.dtype)

/** A text that is equal for batches that one program serves. */
export const signature = (batch: Batch): string =>
  Object.keys(batch)
    .sort()
    .map((k) => `${k}:${batch[k].dtype}[${batch[k].shape.join(',')}]`)
    .join(' ')

/** Batches of one kind as one, along a new first axis. */
export function stacked(batches: readonly Batch[]): Batch {
  const [first] = batches
  if (batches.some((b) => signature(b) !== signature(first))) {
    throw new SteepestError('SHAPE', {
      who: 'train',
      rule: 'an optimizer that evaluates the objective itself needs micro-batches of one shape',
      got: batches.map(signature).join(' and '),
      fix: 'Let the loader pad them to one length, or do not accumulate',
    })
  }
  return Object.fromEntries(
    Object.entries(first).map(([k, { data, shape }]) => {
      if (batches.length === 1) return [k, new HostArray(data, [1, ...shape])]
      const all = new (data.constructor as new (n: number) => TypedArray)(data.length * batches.length)
      batches.forEach((b, i) => all.set(b[k].data as never, i * data.length))
      return [k, new HostArray(all, [batches.length, ...shape])]
    }),
  )
}
