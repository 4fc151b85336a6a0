import { checkOptions, SteepestError } from '../errors.js'
import { type DType, promote } from '../tensor/dtype.js'
import { normalizeAxis, type Shape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOp, INTS, requireDtype } from './define.js'
import { add, cast, equal, greaterEqual, lessEqual, where } from './elementwise.js'
import { broadcastTo, expandDims, reshape, slice } from './shape.js'

interface AxisOption {
  /** The axis; negative ones count from the last. Default: 0. */
  axis?: number
}

const requireCount = (who: string, what: string, n: number, least = 0): void => {
  if (!Number.isSafeInteger(n) || n < least) {
    throw new SteepestError('ARGUMENT', {
      who,
      rule: `${what} must be a whole number of ${least} or more`,
      got: `${n}`,
    })
  }
}

// Joining and cutting --------------------------------------------------------------------------------------------------

const concatRow = defineOp<{ axis: number }>({
  name: 'concat',
  kind: 'kernel',
  doc: 'Tensors one after another along an axis.',
  attrs: { axis: 'int' },
  strided: 'all',
  infer: (inputs, { axis }) => {
    const [first, ...rest] = inputs
    for (const x of rest) {
      const fits =
        x.shape.length === first.shape.length &&
        x.dtype === first.dtype &&
        x.shape.every((d, i) => i === axis || d === first.shape[i])
      if (!fits) {
        throw new SteepestError('SHAPE', {
          who: 'concat',
          rule: `all must have one dtype and one shape, but for axis ${axis}`,
          got: `${showAval(first)} and ${showAval(x)}`,
        })
      }
    }
    return [
      {
        shape: first.shape.map((d, i) => (i === axis ? inputs.reduce((n, x) => n + x.shape[axis], 0) : d)),
        dtype: first.dtype,
      },
    ]
  },
  vjp: ({ inputs, grads: [g], attrs: { axis }, needs }) => {
    let at = 0
    return inputs.map((x, i) => {
      const start = at
      at += x.shape[axis]
      return needs[i] ? part(g!, axis, start, at) : null
    })
  },
  batch: ({ inputs, batched, size, attrs }): Tensor[] =>
    concatRow(
      inputs.map((x, i) => (batched[i] ? x : broadcastTo(x, [size, ...x.shape]))),
      { axis: attrs.axis + 1 },
    ),
  flops: () => 0,
})

const part = (x: Tensor, axis: number, start: number, end: number): Tensor =>
  slice(
    x,
    x.shape.map((_, i) => (i === axis ? [start, end] : null)),
  )

/** The tensors one after another along an axis; their other lengths are equal. Mixed dtypes become the widest of them. */
export function concat(tensors: readonly Tensor[], options: AxisOption = {}): Tensor {
  checkOptions('concat', options, ['axis'])
  if (tensors.length === 0)
    throw new SteepestError('ARGUMENT', { who: 'concat', rule: 'there must be at least one tensor' })
  const axis = normalizeAxis('concat', options.axis ?? 0, tensors[0].rank)
  const dtype = tensors.map((t) => t.dtype).reduce(promote)
  return tensors.length === 1
    ? tensors[0]
    : concatRow(
        tensors.map((t) => cast(t, dtype)),
        { axis },
      )[0]
}

/** Tensors of one shape side by side along a new axis. */
export function stack(tensors: readonly Tensor[], options: AxisOption = {}): Tensor {
  checkOptions('stack', options, ['axis'])
  if (tensors.length === 0)
    throw new SteepestError('ARGUMENT', { who: 'stack', rule: 'there must be at least one tensor' })
  const axis = normalizeAxis('stack', options.axis ?? 0, tensors[0].rank + 1)
  return concat(
    tensors.map((t) => expandDims(t, axis)),
    { axis },
  )
}

/**
 * The parts of `x` along an axis, as views.
 *
 * @param parts how many equal parts, or the length of each; lengths must add up to that of the axis
 */
export function split(x: Tensor, parts: number | readonly number[], options: AxisOption = {}): Tensor[] {
  checkOptions('split', options, ['axis'])
  const axis = normalizeAxis('split', options.axis ?? 0, x.rank)
  const n = x.shape[axis]
  if (typeof parts === 'number') requireCount('split', 'the number of parts', parts, 1)
  const lengths = typeof parts === 'number' ? new Array<number>(parts).fill(n / parts) : parts
  if (lengths.some((d) => !Number.isInteger(d) || d < 0) || lengths.reduce((a, b) => a + b, 0) !== n) {
    throw new SteepestError('SHAPE', {
      who: 'split',
      rule:
        typeof parts === 'number'
          ? 'the parts must be equal'
          : 'the lengths must be whole and add up to that of the axis',
      got: `${typeof parts === 'number' ? `${parts} parts` : `[${parts.join(', ')}]`} of a length of ${n}`,
      fix: typeof parts === 'number' ? 'Give a list of lengths' : undefined,
    })
  }
  let at = 0
  return lengths.map((d) => part(x, axis, at, (at += d)))
}

// Padding and repeating ------------------------------------------------------------------------------------------------

/** @internal */
export type PadAttrs = { before: number[]; after: number[]; value: number }

const padRow = defineOp<PadAttrs>({
  name: 'pad',
  kind: 'kernel',
  doc: 'A value around the elements.',
  attrs: { before: 'ints', after: 'ints', value: 'float' },
  strided: 'all',
  infer: ([x], { before, after }) => [{ shape: x.shape.map((d, i) => before[i] + d + after[i]), dtype: x.dtype }],
  vjp: ({ inputs: [x], grads: [g], attrs: { before } }) => [
    slice(
      g!,
      x.shape.map((d, i) => [before[i], before[i] + d]),
    ),
  ],
  batch: ({ inputs, attrs }): Tensor[] =>
    padRow(inputs, { ...attrs, before: [0, ...attrs.before], after: [0, ...attrs.after] }),
  flops: () => 0,
})

/**
 * `x` with a value around it.
 *
 * @param widths one pair per axis: how many places before and after
 * @param options.value what they hold; 0 by default
 */
export function pad(x: Tensor, widths: readonly (readonly number[])[], options: { value?: number } = {}): Tensor {
  checkOptions('pad', options, ['value'])
  if (widths.length !== x.rank || widths.some((w) => w.length !== 2)) {
    throw new SteepestError('SHAPE', {
      who: 'pad',
      rule: 'there must be one pair of widths per axis',
      got: `${widths.length} for ${showShape(x.shape)}`,
    })
  }
  for (const w of widths) for (const n of w) requireCount('pad', 'widths', n)
  if (widths.every(([a, b]) => a === 0 && b === 0)) return x
  return padRow([x], { before: widths.map((w) => w[0]), after: widths.map((w) => w[1]), value: options.value ?? 0 })[0]
}

/** `x` repeated as a whole; `counts` says how often along each axis, counted from the last. Missing ones are 1. */
export function tile(x: Tensor, counts: readonly number[]): Tensor {
  for (const n of counts) requireCount('tile', 'counts', n)
  const rank = Math.max(x.rank, counts.length)
  const shape = [...new Array<number>(rank - x.rank).fill(1), ...x.shape]
  const times = [...new Array<number>(rank - counts.length).fill(1), ...counts]
  return interleave(reshape(x, shape), times, (n, d) => [n, d])
}

/** Every element `count` times in a row along an axis. */
export function repeat(x: Tensor, count: number, options: AxisOption = {}): Tensor {
  checkOptions('repeat', options, ['axis'])
  requireCount('repeat', 'the count', count)
  const axis = normalizeAxis('repeat', options.axis ?? 0, x.rank)
  return interleave(
    x,
    x.shape.map((_, i) => (i === axis ? count : 1)),
    (n, d) => [d, n],
  )
}

/** Repeats axes by a broadcast beside (`order`: before or after) each axis that is repeated, so that the rank stays small. */
function interleave(x: Tensor, times: readonly number[], order: (n: number, d: number) => number[]): Tensor {
  let y = x
  times.forEach((n, axis) => {
    if (n === 1) return
    const around = (...middle: number[]): Shape => [...y.shape.slice(0, axis), ...middle, ...y.shape.slice(axis + 1)]
    const d = y.shape[axis]
    // Leading and trailing axes are flattened: a broadcast adds an axis, and the rank is bounded.
    const [outer, inner] = [sizeOf(y.shape.slice(0, axis)), sizeOf(y.shape.slice(axis + 1))]
    const flat = reshape(y, [outer, ...order(1, d), inner])
    y = reshape(broadcastTo(flat, [outer, ...order(n, d), inner]), around(n * d))
  })
  return y
}

// Patterns -------------------------------------------------------------------------------------------------------------

const iotaRow = defineOp<{ start: number; step: number; size: number; dtype: DType }>({
  name: 'iota',
  kind: 'kernel',
  doc: 'start + i step.',
  attrs: { start: 'float', step: 'float', size: 'int', dtype: 'dtype' },
  infer: (_, { size, dtype }) => [{ shape: [size], dtype }],
  vjp: () => [],
  flops: (_, [y]) => y.shape[0],
})

interface ArangeOptions {
  /** Default: 1; may be negative, not 0. */
  step?: number
  /** Default: int32 where start and step are whole, else float32. */
  dtype?: DType
}

/** start, start + step, … below (with a negative step: above) `stop`. `arange(n)` counts from 0. */
export function arange(stop: number, options?: ArangeOptions): Tensor
export function arange(start: number, stop: number, options?: ArangeOptions): Tensor
export function arange(first: number, second?: number | ArangeOptions, third?: ArangeOptions): Tensor {
  const [start, stop] = typeof second === 'number' ? [first, second] : [0, first]
  const options = (typeof second === 'number' ? third : second) ?? {}
  checkOptions('arange', options, ['step', 'dtype'])
  const { step = 1 } = options
  const size = Math.max(0, Math.ceil((stop - start) / step))
  if (!Number.isSafeInteger(size)) {
    throw new SteepestError('ARGUMENT', {
      who: 'arange',
      rule: 'start, stop and step must be finite and the step not 0',
      got: `${start}, ${stop}, ${step}`,
    })
  }
  const dtype = options.dtype ?? (Number.isInteger(start) && Number.isInteger(step) ? 'int32' : 'float32')
  return iotaRow([], { start, step, size, dtype })[0]
}

/** Row and column numbers of the last two axes, ready to be compared. */
const numbers = (rows: number, columns: number): [Tensor, Tensor] => [reshape(arange(rows), [rows, 1]), arange(columns)]

function triangle(who: string, x: Tensor, diagonal: number, keep: (row: Tensor, column: Tensor) => Tensor): Tensor {
  if (x.rank < 2) throw new SteepestError('SHAPE', { who, rule: 'there must be at least 2 axes', got: showAval(x) })
  const [row, column] = numbers(x.shape[x.rank - 2], x.shape[x.rank - 1])
  return where(keep(add(row, diagonal), column), x, 0)
}

/** The elements of the last two axes on and below a diagonal, zeros above. Diagonal 0 is the main one, 1 that above it. */
export const tril = (x: Tensor, diagonal = 0): Tensor => triangle('tril', x, diagonal, greaterEqual)

/** The elements of the last two axes on and above a diagonal, zeros below. Diagonal 0 is the main one, 1 that above it. */
export const triu = (x: Tensor, diagonal = 0): Tensor => triangle('triu', x, diagonal, lessEqual)

/** Ones on the main diagonal of [rows, columns], zeros elsewhere; square by default. */
export function eye(rows: number, options: { columns?: number; dtype?: DType } = {}): Tensor {
  checkOptions('eye', options, ['columns', 'dtype'])
  const { columns = rows, dtype = 'float32' } = options
  requireCount('eye', 'rows', rows)
  requireCount('eye', 'columns', columns)
  return cast(equal(...numbers(rows, columns)), dtype)
}

/**
 * A new last axis of length `classes` with a 1 at each index and zeros elsewhere; an index that is no class gives zeros alone.
 *
 * @param indices int32 or uint8 of any shape
 */
export function oneHot(indices: Tensor, classes: number, options: { dtype?: DType } = {}): Tensor {
  checkOptions('oneHot', options, ['dtype'])
  requireDtype('oneHot', indices, INTS, 'indices')
  requireCount('oneHot', 'classes', classes)
  return cast(equal(expandDims(indices, indices.rank), arange(classes)), options.dtype ?? 'float32')
}
