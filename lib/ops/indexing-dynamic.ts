import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, normalizeAxis, type Shape, showAval, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOp, INTS, requireDtype } from './define.js'
import { cast } from './elementwise.js'
import { everyBatched, type SliceAttrs } from './indexing.js'
import { zeros, zerosLike } from './shape.js'

const withLength = (shape: Shape, axis: number, n: number): number[] => shape.map((d, i) => (i === axis ? n : d))

const sliceRow = defineOp<SliceAttrs & { size: number }>({
  name: 'dynamicSlice',
  kind: 'kernel',
  faults: true,
  doc: 'A part of an axis that begins where a tensor says.',
  attrs: { axis: 'int', batchDims: 'int', size: 'int' },
  infer: ([x], { axis, size }) => [{ shape: withLength(x.shape, axis, size), dtype: x.dtype }],
  vjp: ({ inputs: [x, start], grads: [g], attrs: { axis, batchDims } }): (Tensor | null)[] => [
    updateRow([zerosLike(x), g!, start], { axis, batchDims })[0],
    null,
  ],
  batch: (ctx): Tensor[] => {
    const { inputs, batched, attrs } = ctx
    if (!batched[1] && attrs.batchDims === 0) return sliceRow(inputs, { ...attrs, axis: attrs.axis + 1 })
    return sliceRow(everyBatched(ctx), { ...attrs, axis: attrs.axis + 1, batchDims: attrs.batchDims + 1 })
  },
  flops: () => 0,
})

const updateRow = defineOp<SliceAttrs>({
  name: 'dynamicUpdateSlice',
  kind: 'kernel',
  faults: true,
  doc: 'The values with a part of an axis replaced, from where a tensor says.',
  attrs: { axis: 'int', batchDims: 'int' },
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: ({ inputs: [, update, start], grads: [g], attrs, needs }): (Tensor | null)[] => [
    needs[0] ? updateRow([g!, zeros(update.shape, update.dtype), start], attrs)[0] : null,
    needs[1] ? sliceRow([g!, start], { ...attrs, size: update.shape[attrs.axis] })[0] : null,
    null,
  ],
  batch: (ctx): Tensor[] => {
    const { batched, attrs } = ctx
    if (batched[2] || attrs.batchDims > 0)
      return updateRow(everyBatched(ctx), { axis: attrs.axis + 1, batchDims: attrs.batchDims + 1 })
    const [x, update] = everyBatched(ctx)
    return updateRow([x, update, ctx.inputs[2]], { ...attrs, axis: attrs.axis + 1 })
  },
  flops: () => 0,
  inplace: [[0, 0]],
})

function startOf(who: string, start: Tensor): Tensor {
  requireDtype(who, start, INTS, 'the start')
  if (start.rank !== 0)
    throw new SteepestError('SHAPE', { who, rule: 'the start must be one number', got: showAval(start) })
  return cast(start, 'int32')
}

function requireLength(who: string, x: Aval, axis: number, size: number): void {
  if (Number.isSafeInteger(size) && size >= 0 && size <= x.shape[axis]) return
  throw new SteepestError('SHAPE', {
    who,
    rule: `the part must have a length in [0, ${x.shape[axis]}], that of the axis`,
    got: `${size}`,
  })
}

/**
 * `size` places of an axis, from `start` on. A part that is not within the axis ends the run with an error.
 *
 * @param start int32 or uint8, one number
 */
export function dynamicSlice(x: Tensor, start: Tensor, options: { axis: number; size: number }): Tensor {
  checkOptions('dynamicSlice', options, ['axis', 'size'])
  const axis = normalizeAxis('dynamicSlice', options.axis, x.rank)
  requireLength('dynamicSlice', x, axis, options.size)
  return sliceRow([x, startOf('dynamicSlice', start)], { axis, batchDims: 0, size: options.size })[0]
}

/**
 * `x` with `update` in the place of as many places of an axis, from `start` on; in place where nothing else reads `x`. A part that is not
 * within the axis ends the run with an error.
 *
 * @param update of the dtype and shape of `x` but for the axis
 * @param start int32 or uint8, one number
 */
export function dynamicUpdateSlice(x: Tensor, update: Tensor, start: Tensor, options: { axis: number }): Tensor {
  checkOptions('dynamicUpdateSlice', options, ['axis'])
  const axis = normalizeAxis('dynamicUpdateSlice', options.axis, x.rank)
  const fits =
    update.rank === x.rank && update.dtype === x.dtype && update.shape.every((d, i) => i === axis || d === x.shape[i])
  if (!fits) {
    throw new SteepestError('SHAPE', {
      who: 'dynamicUpdateSlice',
      rule: `the update must have the dtype and shape of the values, but for axis ${axis}`,
      got: `${showAval(update)} for ${showShape(x.shape)}`,
    })
  }
  requireLength('dynamicUpdateSlice', x, axis, update.shape[axis])
  return updateRow([x, update, startOf('dynamicUpdateSlice', start)], { axis, batchDims: 0 })[0]
}
