import { SteepestError, checkOptions } from '../errors.js'
import { native } from '../addon.js'
import { bytesOf, type DType, type TypedArray } from '../tensor/dtype.js'
import {
  type Aval,
  MAX_RANK,
  normalizeAxes,
  normalizeAxis,
  sameShape,
  type Shape,
  showShape,
  sizeOf,
} from '../tensor/shape.js'
import { makeNode, type Storage, type Tensor } from '../tensor/tensor.js'
import { toBytes } from '../tensor/bytes.js'
import { type BatchContext, defineOp, opNamed } from './define.js'
import { sum } from './reduce.js'
import { pad } from './assemble.js'

function requireRank(who: string, shape: Shape): void {
  if (shape.length > MAX_RANK)
    throw new SteepestError('SHAPE', { who, rule: `at most ${MAX_RANK} axes`, got: showShape(shape) })
  for (const d of shape) {
    if (!Number.isSafeInteger(d) || d < 0) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'lengths must be whole numbers of 0 or more',
        got: showShape(shape),
      })
    }
  }
}

// Leaves ---------------------------------------------------------------------------------------------------------------

const inputRow = defineOp<{ shape: number[]; dtype: DType }>({
  name: 'input',
  kind: 'leaf',
  doc: 'A value that is given when the program runs.',
  attrs: { shape: 'ints', dtype: 'dtype' },
  infer: (_, { shape, dtype }) => [{ shape, dtype }],
  vjp: () => [],
  impure: true,
})

const bufferRow = defineOp<{ shape: number[]; dtype: DType }>({
  name: 'buffer',
  kind: 'leaf',
  doc: 'Numbers in native memory.',
  attrs: { shape: 'ints', dtype: 'dtype' },
  infer: (_, { shape, dtype }) => [{ shape, dtype }],
  vjp: () => [],
  impure: true,
})

const constantRow = defineOp<{ value: number; dtype: DType }>({
  name: 'constant',
  kind: 'leaf',
  doc: 'One number, known when the graph is made.',
  attrs: { value: 'float', dtype: 'dtype' },
  infer: (_, { dtype }) => [{ shape: [], dtype }],
  vjp: () => [],
})

/** @internal A placeholder. */
export const placeholder = (aval: Aval): Tensor => inputRow([], { shape: [...aval.shape], dtype: aval.dtype })[0]

/** @internal A concrete tensor over native memory. */
export function fromStorage(storage: Storage, aval: Aval): Tensor {
  const t = bufferRow([], { shape: [...aval.shape], dtype: aval.dtype })[0]
  t.storage = storage
  return t
}

/** @internal Makes `t` a handle on native memory; what it was computed from can be forgotten. */
export function makeConcrete(t: Tensor, storage: Storage): void {
  t.node = bufferRow([], { shape: [...t.shape], dtype: t.dtype })[0].node
  t.storage = storage
}

/** Nested arrays of numbers, all rows of one length. */
export type NestedNumbers = number | boolean | readonly NestedNumbers[]

function flatten(data: NestedNumbers, shape: number[], depth: number, out: number[]): void {
  if (!Array.isArray(data)) {
    if (depth !== shape.length)
      throw new SteepestError('SHAPE', { who: 'tensor', rule: 'rows must all have the same depth and length' })
    out.push(Number(data))
    return
  }
  if (depth === shape.length || data.length !== shape[depth]) {
    throw new SteepestError('SHAPE', {
      who: 'tensor',
      rule: 'rows must all have the same depth and length',
      got: `a row of ${data.length}`,
    })
  }
  for (const row of data) flatten(row, shape, depth + 1, out)
}

const DTYPE_OF_ARRAY = new Map<string, DType>([
  ['Float32Array', 'float32'],
  ['Float64Array', 'float64'],
  ['Int32Array', 'int32'],
  ['Uint8Array', 'uint8'],
])

/**
 * A tensor with the given numbers.
 *
 * @param data a number, nested arrays of one depth, or a typed array (row-major)
 * @param options `dtype` defaults to that of the typed array, else float32; `shape` defaults to that of the data
 */
export function tensor(data: NestedNumbers | TypedArray, options: { dtype?: DType; shape?: Shape } = {}): Tensor {
  checkOptions('tensor', options, ['dtype', 'shape'])
  let values: TypedArray | number[]
  let shape: number[]
  if (ArrayBuffer.isView(data)) {
    values = data as TypedArray
    shape = [values.length]
  } else {
    shape = []
    for (let row: NestedNumbers = data; Array.isArray(row); row = row[0]) {
      shape.push(row.length)
      if (row.length === 0) break
    }
    const flat: number[] = []
    flatten(data, shape, 0, flat)
    values = flat
  }
  const dtype = options.dtype ?? DTYPE_OF_ARRAY.get(values.constructor.name) ?? 'float32'
  if (options.shape) {
    requireRank('tensor', options.shape)
    if (sizeOf(options.shape) !== values.length) {
      throw new SteepestError('SHAPE', {
        who: 'tensor',
        rule: 'the shape must hold as many elements as there are numbers',
        got: `${showShape(options.shape)} for ${values.length} numbers`,
      })
    }
    shape = [...options.shape]
  }
  requireRank('tensor', shape)
  const storage = new (native().Buffer)(values.length * bytesOf(dtype))
  storage.write(toBytes(values, dtype))
  return fromStorage({ buffer: storage, bytes: storage.bytes }, { shape, dtype })
}

/** A tensor of `shape` with every element `value`. */
export function full(shape: Shape, value: number, dtype: DType = 'float32'): Tensor {
  requireRank('full', shape)
  return broadcastTo(constantRow([], { value: Number(value), dtype })[0], shape)
}

/** A rank-0 constant. */
export const scalar = (value: number, dtype: DType = 'float32'): Tensor => constantRow([], { value, dtype })[0]

/** Zeros of `shape`. */
export const zeros = (shape: Shape, dtype: DType = 'float32'): Tensor => full(shape, 0, dtype)

/** Ones of `shape`. */
export const ones = (shape: Shape, dtype: DType = 'float32'): Tensor => full(shape, 1, dtype)

/** Zeros with the shape and dtype of `x`. */
export const zerosLike = (x: Aval): Tensor => full(x.shape, 0, x.dtype)

/** Ones with the shape and dtype of `x`. */
export const onesLike = (x: Aval): Tensor => full(x.shape, 1, x.dtype)

// Views ----------------------------------------------------------------------------------------------------------------

const only =
  <A>(f: (x: Tensor, ctx: BatchContext<A>) => Tensor) =>
  (ctx: BatchContext<A>) => [f(ctx.inputs[0], ctx)]

const reshapeRow = defineOp<{ shape: number[] }>({
  name: 'reshape',
  kind: 'view',
  doc: 'The same elements in row-major order under another shape.',
  attrs: { shape: 'ints' },
  infer: ([x], { shape }) => [{ shape, dtype: x.dtype }],
  vjp: ({ inputs: [x], grads: [g] }) => [reshape(g!, x.shape)],
  batch: only((x, { attrs, size }) => reshape(x, [size, ...attrs.shape])),
})

/** The same elements in row-major order under another shape; one length may be −1. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const target = [...shape]
  const free = target.indexOf(-1)
  if (free >= 0) {
    const rest = sizeOf(target.filter((_, i) => i !== free))
    target[free] = rest === 0 ? 0 : x.size / rest
  }
  requireRank(
    'reshape',
    target.map((d) => (d < 0 ? Number.NaN : d)),
  )
  if (sizeOf(target) !== x.size) {
    throw new SteepestError('SHAPE', {
      who: 'reshape',
      rule: 'the new shape must hold as many elements',
      got: `${showShape(x.shape)} to ${showShape(shape)}`,
    })
  }
  return sameShape(target, x.shape) ? x : reshapeRow([x], { shape: target })[0]
}

const transposeRow = defineOp<{ axes: number[] }>({
  name: 'transpose',
  kind: 'view',
  doc: 'Axes in another order.',
  attrs: { axes: 'ints' },
  infer: ([x], { axes }) => [{ shape: axes.map((a) => x.shape[a]), dtype: x.dtype }],
  vjp: ({ grads: [g], attrs: { axes } }) => [
    transpose(
      g!,
      axes.map((_, i) => axes.indexOf(i)),
    ),
  ],
  batch: only((x, { attrs: { axes } }) => transpose(x, [0, ...axes.map((a) => a + 1)])),
})

/** The axes in another order; without `axes`, reversed. Output axis i is input axis `axes[i]`. */
export function transpose(x: Tensor, axes?: readonly number[]): Tensor {
  const order = axes ? axes.map((a) => normalizeAxis('transpose', a, x.rank)) : x.shape.map((_, i) => x.rank - 1 - i)
  if (order.length !== x.rank || new Set(order).size !== x.rank) {
    throw new SteepestError('SHAPE', {
      who: 'transpose',
      rule: 'every axis must be named once',
      got: `[${order.join(', ')}] for ${showShape(x.shape)}`,
    })
  }
  return order.every((a, i) => a === i) ? x : transposeRow([x], { axes: order })[0]
}

/** Two axes exchanged. */
export function swapAxes(x: Tensor, a: number, b: number): Tensor {
  const axes = x.shape.map((_, i) => i)
  const i = normalizeAxis('swapAxes', a, x.rank)
  const j = normalizeAxis('swapAxes', b, x.rank)
  axes[i] = j
  axes[j] = i
  return transpose(x, axes)
}

const sliceRow = defineOp<{ starts: number[]; sizes: number[]; steps: number[] }>({
  name: 'slice',
  kind: 'view',
  doc: 'A regular part of every axis.',
  attrs: { starts: 'ints', sizes: 'ints', steps: 'ints' },
  infer: ([x], { sizes }) => [{ shape: sizes, dtype: x.dtype }],
  vjp: ({ inputs: [x], grads: [g], attrs: { starts, sizes, steps } }) => {
    let spread = g!
    steps.forEach((step, axis) => {
      if (step === 1 || sizes[axis] < 2) return
      // Zeros between the elements: pad each to a group of `step`, then cut the last group.
      const shape = spread.shape
      const grouped = reshape(spread, [...shape.slice(0, axis + 1), 1, ...shape.slice(axis + 1)])
      const padded = pad(
        grouped,
        grouped.shape.map((_, i) => (i === axis + 1 ? [0, step - 1] : [0, 0])),
      )
      const flat = reshape(padded, [...shape.slice(0, axis), shape[axis] * step, ...shape.slice(axis + 1)])
      spread = slice(
        flat,
        flat.shape.map((_, i) => (i === axis ? [0, (sizes[axis] - 1) * step + 1] : null)),
      )
    })
    return [
      pad(
        spread,
        x.shape.map((d, i) => [starts[i], d - starts[i] - spread.shape[i]]),
      ),
    ]
  },
  batch: only(
    (x, { attrs: { starts, sizes, steps }, size }): Tensor =>
      sliceRow([x], { starts: [0, ...starts], sizes: [size, ...sizes], steps: [1, ...steps] })[0],
  ),
})

/** What is taken of one axis: all (null), or [start, end) with an optional positive step; negative numbers count from the end. */
export type Range = null | readonly [start: number | null, end?: number | null, step?: number]

/** A part of `x`: one range per axis, missing ones are whole. Ends are clamped as in NumPy. */
export function slice(x: Tensor, ranges: readonly Range[]): Tensor {
  if (ranges.length > x.rank) {
    throw new SteepestError('SHAPE', {
      who: 'slice',
      rule: 'at most one range per axis',
      got: `${ranges.length} ranges for ${showShape(x.shape)}`,
    })
  }
  const starts: number[] = []
  const sizes: number[] = []
  const steps: number[] = []
  x.shape.forEach((d, i) => {
    const [from, to, by] = ranges[i] ?? [null]
    const step = by ?? 1
    if (!Number.isInteger(step) || step < 1) {
      throw new SteepestError('ARGUMENT', {
        who: 'slice',
        rule: 'a step must be a whole number of 1 or more',
        got: `${step}`,
        fix: 'Use flip to reverse an axis',
      })
    }
    const clamp = (v: number) => Math.min(Math.max(v < 0 ? v + d : v, 0), d)
    const start = clamp(from ?? 0)
    const end = clamp(to ?? d)
    starts.push(start)
    sizes.push(Math.max(0, Math.ceil((end - start) / step)))
    steps.push(step)
  })
  if (sameShape(sizes, x.shape) && steps.every((s) => s === 1)) return x
  return sliceRow([x], { starts, sizes, steps })[0]
}

const flipRow = defineOp<{ axes: number[] }>({
  name: 'flip',
  kind: 'view',
  doc: 'Axes reversed.',
  attrs: { axes: 'ints' },
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: ({ grads: [g], attrs: { axes } }) => [flip(g!, axes)],
  batch: only((x, { attrs: { axes } }) =>
    flip(
      x,
      axes.map((a) => a + 1),
    ),
  ),
})

/** The elements of the axes (all, unless named) in reverse order. */
export function flip(x: Tensor, axis?: number | readonly number[]): Tensor {
  const axes = normalizeAxes('flip', axis, x.rank)
  return axes.length === 0 ? x : flipRow([x], { axes })[0]
}

const broadcastRow = defineOp<{ shape: number[] }>({
  name: 'broadcastTo',
  kind: 'view',
  doc: 'Repeated along axes of length 1 and new leading axes, without a copy.',
  attrs: { shape: 'ints' },
  infer: ([x], { shape }) => [{ shape, dtype: x.dtype }],
  vjp: ({ inputs: [x], grads: [g], attrs: { shape } }) => {
    const lead = shape.length - x.rank
    const axes = shape.map((_, i) => i).filter((i) => i < lead || (x.shape[i - lead] === 1 && shape[i] !== 1))
    return [axes.length === 0 ? g : reshape(sum(g!, { axis: axes }), x.shape)]
  },
  batch: only((x, { attrs: { shape }, size }) => {
    const inner = x.shape.slice(1)
    const aligned = reshape(x, [size, ...new Array<number>(shape.length - inner.length).fill(1), ...inner])
    return broadcastTo(aligned, [size, ...shape])
  }),
})

/** `x` repeated, without a copy, to `shape` by NumPy's broadcasting rule. */
export function broadcastTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  requireRank('broadcastTo', shape)
  const lead = shape.length - x.rank
  if (lead < 0 || x.shape.some((d, i) => d !== 1 && d !== shape[lead + i])) {
    throw new SteepestError('SHAPE', {
      who: 'broadcastTo',
      rule: 'every axis, counted from the last, must have the target length or 1',
      got: `${showShape(x.shape)} to ${showShape(shape)}`,
    })
  }
  return broadcastRow([x], { shape: [...shape] })[0]
}

/** A new axis of length 1 at `axis`. */
export function expandDims(x: Tensor, axis: number): Tensor {
  const at = normalizeAxis('expandDims', axis, x.rank + 1)
  return reshape(x, [...x.shape.slice(0, at), 1, ...x.shape.slice(at)])
}

/** Without the axes of length 1 (all of them, unless named). */
export function squeeze(x: Tensor, axis?: number | readonly number[]): Tensor {
  const axes =
    axis === undefined ? x.shape.flatMap((d, i) => (d === 1 ? [i] : [])) : normalizeAxes('squeeze', axis, x.rank)
  for (const a of axes) {
    if (x.shape[a] !== 1)
      throw new SteepestError('SHAPE', {
        who: 'squeeze',
        rule: 'squeezed axes must have length 1',
        got: `axis ${a} of ${showShape(x.shape)}`,
      })
  }
  return reshape(
    x,
    x.shape.filter((_, i) => !axes.includes(i)),
  )
}

const aliasRow = defineOp<{ barrier: number }>({
  name: 'alias',
  kind: 'view',
  doc: 'The same value under another name; with a barrier number, never merged with another.',
  attrs: { barrier: 'int' },
  infer: ([x]) => [{ shape: x.shape, dtype: x.dtype }],
  vjp: ({ grads: [g] }) => [g],
  batch: only((x) => x),
})

/** @internal A fresh handle of the same value: what a transform differentiates with respect to. */
export const alias = (x: Tensor): Tensor => aliasRow([x], { barrier: 0 })[0]

let barriers = 0
/** @internal A fresh handle that common-subexpression elimination does not see through: recomputation starts here. */
export const barrier = (x: Tensor): Tensor => aliasRow([x], { barrier: ++barriers })[0]

/** `x` itself, laid out row-major in memory of its own. */
export const contiguous = (x: Tensor): Tensor =>
  makeNode(opNamed('elementwise'), [x], { constants: [], code: [], outputs: [0], shape: [...x.shape] })[0]
