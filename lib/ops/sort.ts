import { checkOptions, SteepestError } from '../errors.js'
import { DTYPES } from '../tensor/dtype.js'
import { type Aval, normalizeAxis, sameShape, type Shape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOp, requireDtype } from './define.js'
import { gather } from './indexing.js'
import { broadcastTo, expandDims, reshape, swapAxes } from './shape.js'

const NOT_SMOOTH = 'its outputs are indices, which are constant almost everywhere'

const logOf = (n: number): number => Math.max(1, Math.ceil(Math.log2(Math.max(2, n))))

function requireAxis(who: string, x: Aval): void {
  if (x.shape.length === 0)
    throw new SteepestError('SHAPE', { who, rule: 'the input needs at least one axis', got: showAval(x) })
  if (x.shape[x.shape.length - 1] >= 2 ** 31) {
    throw new SteepestError('SHAPE', { who, rule: 'the axis must be shorter than 2^31', got: showAval(x) })
  }
}

const argsortRow = defineOp<{ descending: boolean }>({
  name: 'argsort',
  kind: 'kernel',
  doc: 'Stable order of each row (last axis): int32 indices. NaN comes last in either direction, −0 equals 0.',
  attrs: { descending: 'bool' },
  infer: ([x]) => {
    requireDtype('argsort', x, DTYPES)
    requireAxis('argsort', x)
    return [{ shape: x.shape, dtype: 'int32' }]
  },
  vjp: NOT_SMOOTH,
  batch: ({ inputs, attrs }): Tensor[] => argsortRow(inputs, attrs),
  flops: ([x]) => sizeOf(x.shape) * logOf(x.shape[x.shape.length - 1]),
  strided: 'all',
})

const topKRow = defineOp<{ k: number; largest: boolean }>({
  name: 'topK',
  kind: 'kernel',
  doc: 'Indices (int32) of the k first of each row (last axis) in descending (or ascending) order; ties by index, NaN last.',
  attrs: { k: 'int', largest: 'bool' },
  infer: ([x], { k }) => {
    requireDtype('topK', x, DTYPES)
    requireAxis('topK', x)
    const n = x.shape[x.shape.length - 1]
    if (!Number.isInteger(k) || k < 0 || k > n) {
      throw new SteepestError('ARGUMENT', {
        who: 'topK',
        rule: `k must be a whole number in [0, ${n}], the length of the axis`,
        got: `${k}`,
      })
    }
    return [{ shape: [...x.shape.slice(0, -1), k], dtype: 'int32' }]
  },
  vjp: NOT_SMOOTH,
  batch: ({ inputs, attrs }): Tensor[] => topKRow(inputs, attrs),
  flops: ([x], _, { k }) => sizeOf(x.shape) + sizeOf(x.shape.slice(0, -1)) * k * logOf(k),
  strided: 'all',
})

const searchsortedRow = defineOp<{ right: boolean }>({
  name: 'searchsorted',
  kind: 'kernel',
  doc: 'Where each value would be inserted in its ascending row: before (left) or after (right) equal ones; int32.',
  attrs: { right: 'bool' },
  infer: ([sorted, values]) => {
    const who = 'searchsorted'
    requireAxis(who, sorted)
    requireAxis(who, values)
    if (sorted.dtype !== values.dtype) {
      throw new SteepestError('DTYPE', {
        who,
        rule: 'both inputs must have one dtype',
        got: `${showAval(sorted)} and ${showAval(values)}`,
      })
    }
    if (!sameShape(sorted.shape.slice(0, -1), values.shape.slice(0, -1))) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'all axes but the last must be equal',
        got: `${showAval(sorted)} and ${showAval(values)}`,
        fix: 'A sorted input with one axis serves values of any shape',
      })
    }
    return [{ shape: values.shape, dtype: 'int32' }]
  },
  vjp: NOT_SMOOTH,
  batch: ({ inputs, batched, size, attrs }): Tensor[] =>
    searchsortedRow(
      inputs.map((x, i) => (batched[i] ? x : broadcastTo(expandDims(x, 0), [size, ...x.shape]))),
      attrs,
    ),
  flops: ([sorted, values]) => sizeOf(values.shape) * logOf(sorted.shape[sorted.shape.length - 1]),
})

/** `f` along `axis`: the axis goes last and comes back. */
function along(x: Tensor, axis: number, f: (x: Tensor) => Tensor): Tensor {
  return axis === x.rank - 1 ? f(x) : swapAxes(f(swapAxes(x, axis, -1)), axis, -1)
}

/** How a sort runs. */
export interface SortOptions {
  /** Axis that is sorted; default the last. */
  axis?: number
  /** Largest first; default false. NaN comes last in either direction. */
  descending?: boolean
}

/**
 * The indices (int32) that sort `x` along an axis; stable: equal elements keep their order, −0 equals 0, NaN comes last.
 *
 * @throws SteepestError on an axis out of range or a scalar
 */
export function argsort(x: Tensor, options: SortOptions = {}): Tensor {
  checkOptions('argsort', options, ['axis', 'descending'])
  requireAxis('argsort', x)
  const axis = normalizeAxis('argsort', options.axis ?? -1, x.rank)
  return along(x, axis, (rows) => argsortRow([rows], { descending: options.descending ?? false })[0])
}

/** `x` sorted along an axis (stable, NaN last). Gradients go back to where the elements came from. */
export function sort(x: Tensor, options: SortOptions = {}): Tensor {
  checkOptions('sort', options, ['axis', 'descending'])
  const axis = options.axis ?? -1
  return gather(x, argsort(x, options), { axis })
}

/** How topK chooses. */
export interface TopKOptions {
  /** Axis along which is chosen; default the last. */
  axis?: number
  /** Largest (default) or smallest. */
  largest?: boolean
}

/**
 * The k largest (or smallest) elements along an axis, best first, and their int32 indices. Ties go to the smaller index; NaN
 * is chosen only when nothing else is left. Gradients go back through the values.
 */
export function topK(x: Tensor, k: number, options: TopKOptions = {}): { values: Tensor; indices: Tensor } {
  checkOptions('topK', options, ['axis', 'largest'])
  requireAxis('topK', x)
  const axis = normalizeAxis('topK', options.axis ?? -1, x.rank)
  const indices = along(x, axis, (rows) => topKRow([rows], { k, largest: options.largest ?? true })[0])
  return { values: gather(x, indices, { axis }), indices }
}

/**
 * Where `values` would be inserted into `sorted` (ascending along its last axis, NaN last) to keep it sorted; int32 in
 * [0, n], in the shape of `values`. `sorted` has one axis, or all axes but the last equal to those of `values`.
 *
 * @param options `side` 'left' (default): before equal elements; 'right': after them
 */
export function searchsorted(sorted: Tensor, values: Tensor, options: { side?: 'left' | 'right' } = {}): Tensor {
  const who = 'searchsorted'
  checkOptions(who, options, ['side'])
  const side = options.side ?? 'left'
  if (side !== 'left' && side !== 'right')
    throw new SteepestError('OPTION', { who, rule: "side must be 'left' or 'right'", got: `${side}` })
  const attrs = { right: side === 'right' }
  if (sorted.rank !== 1 || values.rank === 1) return searchsortedRow([sorted, values], attrs)[0]
  const shape: Shape = values.shape
  return reshape(searchsortedRow([sorted, reshape(values, [values.size])], attrs)[0], shape)
}
