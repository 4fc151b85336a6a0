import { native } from '../addon.js'
import { readAll } from '../graph/evaluate.js'
import type { LoadedTensor } from '../io/checkpoint.js'
import type { Safetensors, TensorSource } from '../io/safetensors.js'
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

/**
 * A tensor of a file. Where its numbers lie in the file as they do in memory, and the system can, it is that part of the file: nothing is read before it
 * is looked at, and what is changed is copied first. Else it is read piece by piece into native memory, and converted on the way.
 *
 * @param place where they lie so
 */
export async function loadTensor(
  aval: Aval,
  readPieces: LoadedTensor['readPieces'],
  place?: ReturnType<Safetensors['placeOf']>,
): Promise<Tensor> {
  const bytes = sizeOf(aval.shape) * bytesOf(aval.dtype)
  const { Buffer } = native()
  const buffer = place ? new Buffer(bytes, place.file, place.offset) : new Buffer(bytes)
  if (!buffer.mapped) await readPieces((piece, offset) => buffer.write(piece, offset), aval.dtype)
  return fromStorage({ buffer, bytes: buffer.bytes }, aval)
}
