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
