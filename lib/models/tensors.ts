import { native } from '../addon.js'
import { readAll } from '../graph/evaluate.js'
import type { LoadedTensor } from '../io/checkpoint.js'
import type { TensorSource } from '../io/safetensors.js'
import { fromStorage } from '../ops/shape.js'
import { toBytes } from '../tensor/bytes.js'
import { bytesOf } from '../tensor/dtype.js'
import { type Aval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** A tensor as a file takes it, computed when it is written. */
export const sourceOf = (name: string, t: Tensor): TensorSource => ({
  name,
  dtype: t.dtype,
  shape: t.shape,
  read: async () => {
    const { buffer, byteOffset, byteLength } = toBytes((await readAll([t]))[0], t.dtype)
    return new Uint8Array(buffer, byteOffset, byteLength)
  },
})

/** A tensor of a file, read piece by piece into native memory and converted on the way. */
export async function loadTensor(aval: Aval, readPieces: LoadedTensor['readPieces']): Promise<Tensor> {
  const buffer = new (native().Buffer)(sizeOf(aval.shape) * bytesOf(aval.dtype))
  await readPieces((bytes, offset) => buffer.write(bytes, offset), aval.dtype)
  return fromStorage({ buffer, bytes: buffer.bytes }, aval)
}
