import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, normalizeAxis, sameShape, type Shape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type BatchContext, defineOp, FLOATS, INTS, requireDtype } from './define.js'
import { cast } from './elementwise.js'
import { broadcastTo, transpose, zerosLike } from './shape.js'

const indexType = (who: string, indices: Tensor): Tensor => {
  requireDtype(who, indices, INTS, 'indices')
  return cast(indices, 'int32')
}

/** @internal The inputs of a batching rule, all with the new axis. */
export const everyBatched = ({ inputs, batched, size }: BatchContext<unknown>): Tensor[] =>
  inputs.map((t, i) => (batched[i] ? t : broadcastTo(t, [size, ...t.shape])))

// Whole slices of an axis ----------------------------------------------------------------------------------------------

/** @internal The first `batchDims` axes of both operands run together; the other axes of the indices take the place of `axis`. */
export type SliceAttrs = { axis: number; batchDims: number }

/** @internal */
export const takeRow = defineOp<SliceAttrs>({
  name: 'take',
  kind: 'kernel',
  faults: true,
  doc: 'Slices of an axis, by their indices.',
  attrs: { axis: 'int', batchDims: 'int' },
  infer: ([x, indices], { axis, batchDims }) => [
    {
      shape: [...x.shape.slice(0, axis), ...indices.shape.slice(batchDims), ...x.shape.slice(axis + 1)],
      dtype: x.dtype,
    },
  ],
  vjp: ({ inputs: [x, indices], grads: [g], attrs }): (Tensor | null)[] => [
    segmentSumRow([g!, indices], { ...attrs, segments: x.shape[attrs.axis], base: false })[0],
    null,
  ],
  batch: (ctx): Tensor[] => {
    const { inputs, batched, attrs } = ctx
    if (!batched[1] && attrs.batchDims === 0) return takeRow(inputs, { ...attrs, axis: attrs.axis + 1 })
    if (batched[0] || attrs.batchDims > 0)
      return takeRow(everyBatched(ctx), { axis: attrs.axis + 1, batchDims: attrs.batchDims + 1 })
    // One table for all: the new axis is one more axis of the indices.
    const [y] = takeRow(inputs, attrs)
    return [
      attrs.axis === 0 ? y : transpose(y, [attrs.axis, ...y.shape.map((_, i) => i).filter((i) => i !== attrs.axis)]),
    ]
  },
  flops: () => 0,
})

/** @internal `base`: a third operand, to which the sums are added. */
export type SegmentSumAttrs = SliceAttrs & { segments: number; base: boolean }

/** @internal */
export const segmentSumRow = defineOp<SegmentSumAttrs>({
  name: 'segmentSum',
  kind: 'kernel',
  faults: true,
  doc: 'Sums of the slices of an axis that have one index, or those sums added to another tensor.',
  attrs: { axis: 'int', batchDims: 'int', segments: 'int', base: 'bool' },
  infer: ([x, indices, base], { axis, batchDims, segments }) => {
    requireDtype('segmentSum', x, [...FLOATS, 'int32'])
    const rest = x.shape.slice(axis + indices.shape.length - batchDims)
    const out = { shape: [...x.shape.slice(0, axis), segments, ...rest], dtype: x.dtype }
    if (base && (!sameShape(base.shape, out.shape) || base.dtype !== out.dtype)) {
      throw new SteepestError('SHAPE', {
        who: 'segmentSum',
        rule: `what sums are added to must be ${showAval(out)}`,
        got: showAval(base),
      })
    }
    return [out]
  },
  vjp: ({ inputs: [, indices], grads: [g], attrs: { axis, batchDims, base } }): (Tensor | null)[] => [
    takeRow([g!, indices], { axis, batchDims })[0],
    null,
    ...(base ? [g] : []),
  ],
  batch: (ctx): Tensor[] => {
    const { inputs, batched, attrs } = ctx
    if (!batched[1] && attrs.batchDims === 0 && !attrs.base)
      return segmentSumRow(inputs, { ...attrs, axis: attrs.axis + 1 })
    return segmentSumRow(everyBatched(ctx), { ...attrs, axis: attrs.axis + 1, batchDims: attrs.batchDims + 1 })
  },
  flops: ([x]) => sizeOf(x.shape),
  inplace: [[0, 2]],
})

/**
 * The slices of an axis at the indices: the shape of the indices takes the place of the axis. The gradient adds up in the order of the
 * indices, in float32 or better. An index outside of [0, length) ends the run with an error.
 *
 * @param indices int32 or uint8 of any shape
 * @param options.axis 0 by default
 */
export function take(x: Tensor, indices: Tensor, options: { axis?: number } = {}): Tensor {
  checkOptions('take', options, ['axis'])
  const axis = normalizeAxis('take', options.axis ?? 0, x.rank)
  return takeRow([x, indexType('take', indices)], { axis, batchDims: 0 })[0]
}

/**
 * Rows of a table [classes, …] for ids of any shape: [...ids, …].
 *
 * @param ids int32 or uint8, each in [0, classes)
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  if (table.rank === 0)
    throw new SteepestError('SHAPE', {
      who: 'embedding',
      rule: 'the table must have at least one axis',
      got: showAval(table),
    })
  return takeRow([table, indexType('embedding', ids)], { axis: 0, batchDims: 0 })[0]
}

/**
 * Sums of the rows (of axis 0) with one id: [segments, …]; 0 where there is none. Adds in the order of the rows, in float32 or better.
 *
 * @param ids int32 or uint8, their shape is how the shape of `x` begins; each in [0, segments), in any order
 */
export function segmentSum(x: Tensor, ids: Tensor, segments: number): Tensor {
  requireSegments('segmentSum', x, ids, segments)
  return segmentSumRow([x, indexType('segmentSum', ids)], { axis: 0, batchDims: 0, segments, base: false })[0]
}

/** @internal */
export function requireSegments(who: string, x: Aval, ids: Aval, segments: number): void {
  if (!sameShape(x.shape.slice(0, ids.shape.length), ids.shape)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'the shape of the ids must be how the shape of the values begins',
      got: `${showShape(ids.shape)} for ${showShape(x.shape)}`,
    })
  }
  if (!Number.isSafeInteger(segments) || segments < 0) {
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'the number of segments must be a whole number of 0 or more',
      got: `${segments}`,
    })
  }
}

// Single elements along an axis ----------------------------------------------------------------------------------------

function requireAlong(who: string, x: Aval, indices: Aval, axis: number): void {
  const fits = (shape: Shape) =>
    shape.length === x.shape.length && shape.every((d, i) => i === axis || d === x.shape[i])
  if (fits(indices.shape)) return
  throw new SteepestError('SHAPE', {
    who,
    rule: `indices must have the shape of the values, but for axis ${axis}`,
    got: `${showShape(indices.shape)} for ${showShape(x.shape)}`,
  })
}

const gatherRow = defineOp<{ axis: number }>({
  name: 'gather',
  kind: 'kernel',
  faults: true,
  doc: 'One element along an axis per index.',
  attrs: { axis: 'int' },
  infer: ([x, indices], { axis }) => {
    requireAlong('gather', x, indices, axis)
    return [{ shape: indices.shape, dtype: x.dtype }]
  },
  vjp: ({ inputs: [x, indices], grads: [g], attrs }) => [scatterAdd(zerosLike(x), indices, g!, attrs), null],
  batch: (ctx): Tensor[] => gatherRow(everyBatched(ctx), { axis: ctx.attrs.axis + 1 }),
  flops: () => 0,
})

const scatterAddRow = defineOp<{ axis: number }>({
  name: 'scatterAdd',
  kind: 'kernel',
  faults: true,
  doc: 'Adds one element along an axis per index.',
  attrs: { axis: 'int' },
  infer: ([x, indices, updates], { axis }) => {
    requireDtype('scatterAdd', x, ['float32', 'float64', 'int32'])
    requireAlong('scatterAdd', x, indices, axis)
    if (!sameShape(updates.shape, indices.shape) || updates.dtype !== x.dtype) {
      throw new SteepestError('SHAPE', {
        who: 'scatterAdd',
        rule: 'updates must have the shape of the indices and the dtype of the values',
        got: `${showAval(updates)} for ${showShape(indices.shape)} and ${x.dtype}`,
      })
    }
    return [{ shape: x.shape, dtype: x.dtype }]
  },
  vjp: ({ inputs: [, indices], grads: [g], attrs, needs }) => [
    g,
    null,
    needs[2] ? gatherRow([g!, indices], attrs)[0] : null,
  ],
  batch: (ctx): Tensor[] => scatterAddRow(everyBatched(ctx), { axis: ctx.attrs.axis + 1 }),
  flops: ([, , updates]) => sizeOf(updates.shape),
  inplace: [[0, 0]],
})

/**
 * One element along an axis per index: y[…, j, …] = x[…, indices[…, j, …], …]. An index outside of [0, length) ends the run with an error.
 *
 * @param indices int32 or uint8, of the shape of `x` but for the axis; the result has its shape
 */
export function gather(x: Tensor, indices: Tensor, options: { axis: number }): Tensor {
  checkOptions('gather', options, ['axis'])
  return gatherRow([x, indexType('gather', indices)], { axis: normalizeAxis('gather', options.axis, x.rank) })[0]
}

/**
 * `x` with updates added along an axis: y[…, indices[…, j, …], …] += updates[…, j, …], in the order of j; bfloat16 adds in float32. The
 * same bits for any number of threads. An index outside of [0, length) ends the run with an error.
 *
 * @param indices int32 or uint8, of the shape of `x` but for the axis
 * @param updates of the shape of the indices and the dtype of `x`
 */
export function scatterAdd(x: Tensor, indices: Tensor, updates: Tensor, options: { axis: number }): Tensor {
  checkOptions('scatterAdd', options, ['axis'])
  const at = indexType('scatterAdd', indices)
  const axis = normalizeAxis('scatterAdd', options.axis, x.rank)
  if (x.dtype !== 'bfloat16') return scatterAddRow([x, at, updates], { axis })[0]
  return cast(scatterAddRow([cast(x, 'float32'), at, cast(updates, 'float32')], { axis })[0], 'bfloat16')
}

export { segmentMax, segmentMean } from './indexing-segment.js'
export { dynamicSlice, dynamicUpdateSlice } from './indexing-dynamic.js'
