import type { Tensor } from '../tensor/tensor.js'
import type { DType } from '../tensor/dtype.js'
import { cast } from './elementwise.js'
import type { Attrs, BatchContext } from './define.js'
import { broadcastTo, reshape } from './shape.js'

/** What `defineOp` gives: the function that makes nodes of a row. */
export type OpRow<A extends Attrs> = (inputs: readonly Tensor[], attrs: A) => Tensor[]

/** Input `i` with the new axis, repeated where it has none. */
export function withBatch<A>(ctx: BatchContext<A>, i: number): Tensor {
  const t = ctx.inputs[i]
  return ctx.batched[i] ? t : broadcastTo(t, [ctx.size, ...t.shape])
}

/** A batched tensor of rank r + 1 with axes of length 1 after the new one, so that its r axes stand under the last of `rank`. */
export const alignBatched = (t: Tensor, rank: number): Tensor =>
  reshape(t, [t.shape[0], ...new Array<number>(rank - t.rank).fill(1), ...t.shape.slice(1)])

/** The dtype in which statistics of `dtype` are held. */
export const statisticsOf = (dtype: DType): DType => (dtype === 'float64' ? 'float64' : 'float32')

/** `x` in the dtype in which the kernels compute it. */
export const wide = (x: Tensor): Tensor => cast(x, statisticsOf(x.dtype))
