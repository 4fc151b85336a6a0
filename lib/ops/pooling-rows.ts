import { SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type OpRow, withBatch } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add, div, mul } from './elementwise.js'
import { gather, scatterAdd, take } from './indexing.js'
import { argmax, max, sum } from './reduce.js'
import { broadcastTo, reshape, slice, tensor, zeros } from './shape.js'
import { windows } from './windows.js'

type Geometry = { size: number[]; stride: number[]; padding: number[]; counts: number[] }
type Max = Geometry & { dilation: number[] }
type Average = Geometry & { includePad: boolean }

const GEOMETRY = { size: 'ints', stride: 'ints', padding: 'ints' } as const
const pooled = ([n, c]: readonly number[], counts: readonly number[]): number[] => [n, c, ...counts]

function requireImage(who: string, x: Aval): void {
  requireDtype(who, x, FLOATS)
  if (x.shape.length !== 4)
    throw new SteepestError('SHAPE', { who, rule: 'the row takes [N, C, H, W]', got: showAval(x) })
  if (x.shape[2] * x.shape[3] > 2 ** 31 - 1)
    throw new SteepestError('SHAPE', { who, rule: 'a plane has at most 2³¹ − 1 places', got: showShape(x.shape) })
}

/** The windows of x with `value` around it; a last window that stands out of the padding sees it too. */
function windowsOf(who: string, x: Tensor, attrs: Geometry & { dilation?: number[] }, value: number): Tensor {
  const { size, stride, padding, counts, dilation = [1, 1] } = attrs
  const needed = counts.map((n, i) => (n - 1) * stride[i] + dilation[i] * (size[i] - 1) + 1 - padding[2 * i])
  const after = needed.map((n, i) => Math.max(0, n - x.shape[2 + i]))
  const cut = slice(x, [null, null, ...needed.map((n, i) => [0, Math.min(n, x.shape[2 + i])] as const)])
  return windows(
    who,
    cut,
    {
      size,
      stride,
      dilation,
      padding: [
        [padding[0], after[0]],
        [padding[2], after[1]],
      ],
    },
    value,
  )
}

const fold = (t: Tensor): Tensor => reshape(t, [t.shape[0] * t.shape[1], ...t.shape.slice(2)])
const unfold = (t: Tensor, size: number): Tensor =>
  reshape(t, [size, t.shape[0] / Math.max(1, size), ...t.shape.slice(1)])
// Every plane is alone, so that a new axis joins the batch.
const batchPlanes =
  <A extends Max | Average | { size: number[] }>(row: () => OpRow<A>) =>
  (ctx: BatchContext<A>): Tensor[] =>
    row()(
      ctx.inputs.map((_, i) => fold(withBatch(ctx, i))),
      ctx.attrs,
    ).map((t) => unfold(t, ctx.size))
const planes = (t: Tensor): Tensor => reshape(t, [t.shape[0] * t.shape[1], t.shape[2] * t.shape[3]])

/** @internal x [N, C, H, W] → the largest number of every window, and where in its plane that is. */
export const maxPoolRow: OpRow<Max> = defineOp<Max>({
  name: 'maxPool',
  kind: 'kernel',
  doc: 'The largest number of every window of [N, C, H, W], and its place in the plane: the first in row-major order, NaN before all.',
  attrs: { ...GEOMETRY, dilation: 'ints', counts: 'ints' },
  infer: ([x], { counts }) => {
    requireImage('maxPool', x)
    const shape = pooled(x.shape, counts)
    return [
      { shape, dtype: x.dtype },
      { shape, dtype: 'int32' },
    ]
  },
  vjp: ({ inputs: [x], outputs: [, index], grads: [g] }) => [
    g ? maxPoolBackwardRow([g, index], { size: x.shape.slice(2) })[0] : null,
  ],
  batch: batchPlanes<Max>(() => maxPoolRow),
  define: ([x], attrs) => {
    const seen = windowsOf('maxPool', x, attrs, Number.NEGATIVE_INFINITY)
    const { size, stride, padding, counts, dilation } = attrs
    const width = x.shape[3]
    const ints = (length: number, f: (i: number) => number) => tensor(Int32Array.from({ length }, (_, i) => f(i)))
    const within = ints(
      size[0] * size[1],
      (p) => Math.floor(p / size[1]) * dilation[0] * width + (p % size[1]) * dilation[1],
    )
    const corner = ints(counts[0] * counts[1], (p) => {
      const [i, j] = [Math.floor(p / counts[1]), p % counts[1]]
      return (i * stride[0] - padding[0]) * width + j * stride[1] - padding[2]
    })
    const place = argmax(seen, { axis: 2 })
    return [max(seen, { axis: 2 }), add(take(within, place, { axis: 0 }), reshape(corner, counts))]
  },
  flops: ([x], [y], { size }) => (sizeOf(x.shape) === 0 ? 0 : sizeOf(y.shape) * size[0] * size[1]),
  strided: [0],
})

/** @internal dy [N, C, H', W'] and places [N, C, H', W'] → [N, C, ...size]. */
export const maxPoolBackwardRow: OpRow<{ size: number[] }> = defineOp<{ size: number[] }>({
  name: 'maxPoolBackward',
  kind: 'kernel',
  doc: 'Gradient of maxPool: what every window got goes to the place that it had chosen.',
  attrs: { size: 'ints' },
  infer: ([dy, index], { size }) => {
    const x = { shape: pooled(dy.shape, size), dtype: dy.dtype }
    requireImage('maxPoolBackward', x)
    if (!sameShape(dy.shape, index.shape) || index.dtype !== 'int32') {
      throw new SteepestError('SHAPE', {
        who: 'maxPoolBackward',
        rule: 'the places must be int32 of the shape of the gradient',
        got: `${showAval(dy)} and ${showAval(index)}`,
      })
    }
    return [x]
  },
  vjp: ({ inputs: [dy, index], grads: [g] }) => [
    g ? reshape(gather(planes(g), planes(index), { axis: 1 }), dy.shape) : null,
    null,
  ],
  batch: batchPlanes<{ size: number[] }>(() => maxPoolBackwardRow),
  define: ([dy, index], { size }) => {
    const [n, c] = dy.shape
    const empty = zeros([n * c, size[0] * size[1]], dy.dtype)
    return [reshape(scatterAdd(empty, planes(index), planes(dy), { axis: 1 }), [n, c, ...size])]
  },
  flops: ([dy]) => sizeOf(dy.shape),
  strided: [0],
})

/** Numbers of places that the windows along one axis divide by. */
function seenAlong(length: number, i: number, { size, stride, padding, counts, includePad }: Average): number[] {
  return Array.from({ length: counts[i] }, (_, o) => {
    const start = o * stride[i] - padding[2 * i]
    const end = Math.min(start + size[i], length + padding[2 * i + 1])
    return includePad ? end - start : Math.min(end, length) - Math.max(start, 0)
  })
}
function divisor(x: Aval, attrs: Average, dtype: Tensor['dtype']): Tensor {
  const [rows, columns] = [0, 1].map((i) => tensor(seenAlong(x.shape[2 + i], i, attrs), { dtype }))
  return mul(reshape(rows, [rows.size, 1]), columns)
}

/** @internal x [N, C, H, W] → the mean of every window. */
export const avgPoolRow: OpRow<Average> = defineOp<Average>({
  name: 'avgPool',
  kind: 'kernel',
  doc: 'The mean of every window of [N, C, H, W]; zeros of the padding count where includePad says so.',
  attrs: { ...GEOMETRY, counts: 'ints', includePad: 'bool' },
  infer: ([x], { counts }) => {
    requireImage('avgPool', x)
    return [{ shape: pooled(x.shape, counts), dtype: x.dtype }]
  },
  vjp: ({ inputs: [x], grads: [g], attrs }) => [
    g ? avgPoolBackwardRow([g], { ...attrs, counts: x.shape.slice(2) })[0] : null,
  ],
  batch: batchPlanes<Average>(() => avgPoolRow),
  define: ([x], attrs) => [div(sum(windowsOf('avgPool', x, attrs, 0), { axis: 2 }), divisor(x, attrs, x.dtype))],
  flops: ([x], [y], { size }) => (sizeOf(x.shape) === 0 ? 0 : sizeOf(y.shape) * size[0] * size[1]),
  strided: [0],
})

/** @internal dy [N, C, H', W'] → [N, C, ...counts], the lengths of the input. */
export const avgPoolBackwardRow: OpRow<Average> = defineOp<Average>({
  name: 'avgPoolBackward',
  kind: 'kernel',
  doc: 'Gradient of avgPool: what every window got is shared by its places; `counts` are the lengths of the input.',
  attrs: { ...GEOMETRY, counts: 'ints', includePad: 'bool' },
  infer: ([dy], { counts }) => {
    const x = { shape: pooled(dy.shape, counts), dtype: dy.dtype }
    requireImage('avgPoolBackward', x)
    return [x]
  },
  vjp: ({ inputs: [dy], grads: [g], attrs }) => [
    g ? avgPoolRow([g], { ...attrs, counts: dy.shape.slice(2) })[0] : null,
  ],
  batch: batchPlanes<Average>(() => avgPoolBackwardRow),
  define: ([dy], attrs) => {
    // Every place of the windows at a time: its part goes to where it stands.
    const { size, stride, padding, counts } = attrs
    const x = { shape: pooled(dy.shape, counts), dtype: dy.dtype }
    const forward = { ...attrs, counts: dy.shape.slice(2) }
    const share = div(dy, divisor(x, forward, dy.dtype))
    const area = counts[0] * counts[1]
    let total = zeros([dy.shape[0] * dy.shape[1], area + 1], dy.dtype)
    for (let p = 0; p < size[0] * size[1]; p++) {
      const at = Int32Array.from({ length: dy.shape[2] * dy.shape[3] }, (_, k) => {
        const i = Math.floor(k / dy.shape[3]) * stride[0] - padding[0] + Math.floor(p / size[1])
        const j = (k % dy.shape[3]) * stride[1] - padding[2] + (p % size[1])
        return i < 0 || j < 0 || i >= counts[0] || j >= counts[1] ? area : i * counts[1] + j
      })
      const index = broadcastTo(tensor(at), [total.shape[0], at.length])
      total = scatterAdd(total, index, planes(share), { axis: 1 })
    }
    return [reshape(slice(total, [null, [0, area]]), x.shape)]
  },
  flops: ([dy], _, { size }) => sizeOf(dy.shape) * size[0] * size[1],
  strided: [0],
})
