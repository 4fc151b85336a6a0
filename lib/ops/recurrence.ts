import { checkOptions, SteepestError } from '../errors.js'
import { normalizeAxis, sameShape, type Shape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { pad } from './assemble.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { cast, mul } from './elementwise.js'
import { broadcastTo, ones, slice } from './shape.js'

/** How a value is carried along an axis. */
export interface CumulativeOptions {
  /** The axis; negative ones count from the last. */
  axis: number
  /** From the last element to the first. Default: false. */
  reverse?: boolean
  /** Each result is without its own element, so that the first is 0 (sums) or 1 (products). Default: false. */
  exclusive?: boolean
}

const OPTIONS = ['axis', 'reverse', 'exclusive']

const cumsumRow = defineOp<{ axis: number; reverse: boolean; exclusive: boolean }>({
  name: 'cumsum',
  kind: 'kernel',
  doc: 'Sums of all elements up to each along an axis.',
  attrs: { axis: 'int', reverse: 'bool', exclusive: 'bool' },
  infer: ([x]) => {
    requireDtype('cumsum', x, [...FLOATS, 'int32'])
    return [{ shape: x.shape, dtype: x.dtype }]
  },
  vjp: ({ grads: [g], attrs }): Tensor[] => cumsumRow([g!], { ...attrs, reverse: !attrs.reverse }),
  batch: ({ inputs, attrs }): Tensor[] => cumsumRow(inputs, { ...attrs, axis: attrs.axis + 1 }),
  flops: ([x]) => sizeOf(x.shape),
})

/** Sums of all elements up to and with each along `axis`, carried in float64; int32 wraps, uint8 gives int32. */
export function cumsum(x: Tensor, options: CumulativeOptions): Tensor {
  checkOptions('cumsum', options, OPTIONS)
  const { axis, reverse = false, exclusive = false } = options
  const from = x.dtype === 'uint8' ? cast(x, 'int32') : x
  return cumsumRow([from], { axis: normalizeAxis('cumsum', axis, x.rank), reverse, exclusive })[0]
}

/** The elements moved by one place along `axis`, away from its start (or towards it); the free place holds `value`. */
function shift(x: Tensor, axis: number, away: boolean, value = 0): Tensor {
  if (x.shape[axis] === 0) return x
  const rest = slice(
    x,
    x.shape.map((d, i) => (i !== axis ? null : away ? [0, d - 1] : [1, d])),
  )
  return pad(
    rest,
    x.shape.map((_, i) => (i !== axis ? [0, 0] : away ? [1, 0] : [0, 1])),
    { value },
  )
}

const recurrenceRow = defineOp<{ axis: number; reverse: boolean }>({
  name: 'linearRecurrence',
  kind: 'kernel',
  doc: 'h[t] = a[t]·h[t−1] + b[t] along an axis, from h = 0.',
  attrs: { axis: 'int', reverse: 'bool' },
  infer: ([a, b]) => {
    requireDtype('linearRecurrence', a, FLOATS)
    if (!sameShape(a.shape, b.shape) || a.dtype !== b.dtype) {
      throw new SteepestError('SHAPE', {
        who: 'linearRecurrence',
        rule: 'factors and terms must have one shape and dtype',
        got: `${showAval(a)} and ${showAval(b)}`,
      })
    }
    return [{ shape: a.shape, dtype: a.dtype }]
  },
  vjp: ({ inputs: [a], outputs: [h], grads: [g], attrs: { axis, reverse } }): Tensor[] => {
    const [db] = recurrenceRow([shift(a, axis, reverse), g!], { axis, reverse: !reverse })
    return [mul(db, shift(h, axis, !reverse)), db]
  },
  batch: ({ inputs, batched, size, attrs }): Tensor[] => {
    const all = inputs.map((t, i) => (batched[i] ? t : broadcastTo(t, [size, ...t.shape])))
    return recurrenceRow(all, { ...attrs, axis: attrs.axis + 1 })
  },
  flops: ([x]) => 2 * sizeOf(x.shape),
})

/**
 * The first-order recurrence h[t] = a[t]·h[t−1] + b[t] along an axis with h[−1] = 0, carried in float64: decaying sums, generalized
 * advantages, diagonal state spaces.
 *
 * @param a factors, any shape @param b terms, the same shape
 * @param options.reverse runs from the last element to the first: h[t] = a[t]·h[t+1] + b[t]
 */
export function linearRecurrence(a: Tensor, b: Tensor, options: { axis: number; reverse?: boolean }): Tensor {
  checkOptions('linearRecurrence', options, ['axis', 'reverse'])
  return recurrenceRow([a, b], {
    axis: normalizeAxis('linearRecurrence', options.axis, a.rank),
    reverse: options.reverse ?? false,
  })[0]
}

/** Products of all elements up to and with each along `axis`, of floats. The gradient is exact where elements are zero. */
export function cumprod(x: Tensor, options: CumulativeOptions): Tensor {
  checkOptions('cumprod', options, OPTIONS)
  requireDtype('cumprod', x, FLOATS)
  const { reverse = false, exclusive = false } = options
  const axis = normalizeAxis('cumprod', options.axis, x.rank)
  const n = x.shape[axis]
  if (n === 0) return x
  const rest: [number, number][] = x.shape.map((_, i) => (i !== axis ? [0, 0] : reverse ? [n - 1, 0] : [0, n - 1]))
  const start: Shape = x.shape.map((d, i) => (i === axis ? 1 : d))
  if (exclusive) {
    const first = pad(ones(start, x.dtype), rest)
    return recurrenceRow([shift(x, axis, !reverse), first], { axis, reverse })[0]
  }
  const first = slice(
    x,
    x.shape.map((d, i) => (i !== axis ? null : reverse ? [d - 1, d] : [0, 1])),
  )
  return recurrenceRow([x, pad(first, rest)], { axis, reverse })[0]
}
