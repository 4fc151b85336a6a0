import { isFloat } from '../tensor/dtype.js'
import { sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOp, FLOATS, INTS, requireDtype } from './define.js'
import { cast, div, equal, maximum, mul } from './elementwise.js'
import { everyBatched, requireSegments, segmentSum, segmentSumRow, type SliceAttrs, takeRow } from './indexing.js'
import { ones, reshape } from './shape.js'

const segmentMaxRow = defineOp<SliceAttrs & { segments: number }>({
  name: 'segmentMax',
  kind: 'kernel',
  faults: true,
  doc: 'The greatest of the slices of an axis that have one index.',
  attrs: { axis: 'int', batchDims: 'int', segments: 'int' },
  infer: ([x, indices], { axis, batchDims, segments }) => {
    requireDtype('segmentMax', x, [...FLOATS, 'int32'])
    return [
      {
        shape: [...x.shape.slice(0, axis), segments, ...x.shape.slice(axis + indices.shape.length - batchDims)],
        dtype: x.dtype,
      },
    ]
  },
  vjp: ({ inputs: [x, indices], outputs: [y], grads: [g], attrs }) => {
    const { axis, batchDims } = attrs
    const at = (t: Tensor) => takeRow([t, indices], { axis, batchDims })[0]
    const hit = cast(equal(x, at(y)), x.dtype)
    // Of a segment without slices nothing is taken, but its share has to be a number.
    const shares = maximum(segmentSumRow([hit, indices], { ...attrs, base: false })[0], 1)
    return [mul(hit, at(div(g!, shares))), null]
  },
  batch: (ctx): Tensor[] => {
    const { inputs, batched, attrs } = ctx
    if (!batched[1]) return segmentMaxRow(inputs, { ...attrs, axis: attrs.axis + 1 })
    return segmentMaxRow(everyBatched(ctx), { ...attrs, axis: attrs.axis + 1, batchDims: attrs.batchDims + 1 })
  },
  flops: ([x]) => sizeOf(x.shape),
})

/**
 * The greatest of the rows (of axis 0) with one id, element by element: [segments, …]. Where there is none: −∞, for int32 the least of all
 * numbers. Its gradient goes in equal shares to all elements that are as great.
 *
 * @param ids int32 or uint8, their shape is how the shape of `x` begins; each in [0, segments), in any order
 */
export function segmentMax(x: Tensor, ids: Tensor, segments: number): Tensor {
  requireSegments('segmentMax', x, ids, segments)
  requireDtype('segmentMax', ids, INTS, 'ids')
  return segmentMaxRow([x, cast(ids, 'int32')], { axis: 0, batchDims: 0, segments })[0]
}

/**
 * The mean of the rows (of axis 0) with one id: [segments, …]; 0 where there is none. Integers give float32.
 *
 * @param ids int32 or uint8, their shape is how the shape of `x` begins; each in [0, segments), in any order
 */
export function segmentMean(x: Tensor, ids: Tensor, segments: number): Tensor {
  requireSegments('segmentMean', x, ids, segments)
  const from = isFloat(x.dtype) ? x : cast(x, 'float32')
  const counts = maximum(segmentSum(ones(ids.shape, 'int32'), ids, segments), 1)
  const aligned = reshape(counts, [segments, ...new Array<number>(x.rank - ids.rank).fill(1)])
  return div(segmentSum(from, ids, segments), cast(aligned, from.dtype))
}
