import { SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type OpRow, withBatch } from './batching.js'
import { type ConvGeometry, defineConv, defineInputBackward, defineWeightBackward } from './conv-define.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add } from './elementwise.js'
import { sum } from './reduce.js'
import { broadcastTo, expandDims, reshape, transpose } from './shape.js'

type Geometry = { stride: number[]; padding: number[]; dilation: number[]; groups: number }
type Forward = Geometry & { bias: boolean }
type Input = Geometry & { size: number[] }
type Weight = Geometry & { kernel: number[]; bias: boolean }

const GEOMETRY = { stride: 'ints', padding: 'ints', dilation: 'ints', groups: 'int' } as const
const geometryOf = ({ stride, padding, dilation, groups }: Geometry): Geometry => ({
  stride,
  padding,
  dilation,
  groups,
})

/** @internal Windows along one axis; negative where not even one fits. */
export const countOf = (length: number, size: number, i: number, { stride, padding, dilation }: ConvGeometry): number =>
  Math.floor((length + padding[2 * i] + padding[2 * i + 1] - dilation[i] * (size - 1) - 1) / stride[i]) + 1

/** Throws unless x [N, C, H, W] and w [O, C/groups, kh, kw] fit; gives the lengths of the output. */
function lengthsOf(who: string, x: Aval, w: Aval, geometry: Geometry): number[] {
  requireDtype(who, x, FLOATS)
  if (w.dtype !== x.dtype) {
    throw new SteepestError('DTYPE', {
      who,
      rule: 'the operands must have one dtype',
      got: `${showAval(x)} and ${showAval(w)}`,
    })
  }
  const { groups } = geometry
  const fits = x.shape.length === 4 && w.shape.length === 4 && Number.isSafeInteger(groups) && groups >= 1
  if (!fits || w.shape[1] * groups !== x.shape[1] || w.shape[0] % groups !== 0) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'x must be [N, C, H, W] and the weight [O, C/groups, kh, kw], with groups dividing both channels',
      got: `${showShape(x.shape)} and ${showShape(w.shape)} in ${groups} groups`,
    })
  }
  const counts = [0, 1].map((i) => countOf(x.shape[2 + i], w.shape[2 + i], i, geometry))
  if (counts.some((n) => n < 1) || w.shape[2] * w.shape[3] === 0) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'the window must fit into the padded input',
      got: `${showShape(w.shape.slice(2))} for ${showShape(x.shape)}`,
    })
  }
  return counts
}

function requireGradient(who: string, x: Aval, w: Aval, dy: Aval, geometry: Geometry): void {
  const wanted = { shape: [x.shape[0], w.shape[0], ...lengthsOf(who, x, w, geometry)], dtype: x.dtype }
  if (!sameShape(dy.shape, wanted.shape) || dy.dtype !== wanted.dtype) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `the output's gradient must be ${showAval(wanted)}`,
      got: showAval(dy),
    })
  }
}

const work = (n: number, w: readonly number[], out: readonly number[]): number => 2 * n * sizeOf(w) * sizeOf(out)

// Under vmap the new axis joins the batch where the other operand has none, and becomes groups or channels of a group where it has.

/** [B, N, C, …] → [B·N, C, …] */
const joinBatch = (t: Tensor): Tensor => reshape(t, [t.shape[0] * t.shape[1], ...t.shape.slice(2)])
/** [B·N, …] → [B, N, …] */
const splitBatch = (t: Tensor, size: number): Tensor =>
  reshape(t, [size, t.shape[0] / Math.max(1, size), ...t.shape.slice(1)])
/** [B, N, C, …] → [N, B·C, …] */
const joinGroups = (t: Tensor): Tensor => {
  const [b, n, c, ...rest] = t.shape
  return reshape(transpose(t, [1, 0, 2, ...rest.map((_, i) => 3 + i)]), [n, b * c, ...rest])
}
/** [N, B·C, …] → [B, N, C, …] */
const splitGroups = (t: Tensor, size: number): Tensor => {
  const [n, c, ...rest] = t.shape
  return transpose(reshape(t, [n, size, c / size, ...rest]), [1, 0, 2, ...rest.map((_, i) => 3 + i)])
}
/** [B, N, groups · C, …] → [N, groups · B · C, …] */
const joinChannels = (t: Tensor, groups: number): Tensor => {
  const [b, n, c, ...rest] = t.shape
  const order = [1, 2, 0, 3, ...rest.map((_, i) => 4 + i)]
  return reshape(transpose(reshape(t, [b, n, groups, c / groups, ...rest]), order), [n, b * c, ...rest])
}
/** [N, groups · B · C, …] → [B, N, groups · C, …] */
const splitChannels = (t: Tensor, size: number, groups: number): Tensor => {
  const [n, c, ...rest] = t.shape
  const each = c / groups / size
  const order = [2, 0, 1, 3, ...rest.map((_, i) => 4 + i)]
  return reshape(transpose(reshape(t, [n, groups, size, each, ...rest]), order), [size, n, groups * each, ...rest])
}
/** [B, groups · O, …] → [groups · B · O, …], and back. */
const joinOutputs = (t: Tensor, groups: number): Tensor => {
  const joined = joinChannels(expandDims(t, 1), groups)
  return reshape(joined, joined.shape.slice(1))
}
const splitOutputs = (t: Tensor, size: number, groups: number): Tensor => {
  const split = splitChannels(expandDims(t, 0), size, groups)
  return reshape(split, [size, ...split.shape.slice(2)])
}
/** [B, O, C, …] → [O, B · C, …], and back. */
const joinInputs = (w: Tensor): Tensor => joinGroups(w)
const splitInputs = (w: Tensor, size: number): Tensor => splitGroups(w, size)

function batchForward(ctx: BatchContext<Forward>): Tensor[] {
  const { attrs, batched, size } = ctx
  const [x, w] = ctx.inputs
  const { groups } = attrs
  const plain = { ...attrs, bias: false }
  let y: Tensor
  if (!batched[1]) {
    const shared = attrs.bias && !batched[2]
    const operands = [joinBatch(withBatch(ctx, 0)), w, ...(shared ? [ctx.inputs[2]] : [])]
    y = splitBatch(convRow(operands, { ...attrs, bias: shared })[0], size)
    if (shared) return [y]
  } else if (!batched[0]) {
    y = splitChannels(convRow([x, joinOutputs(w, groups)], plain)[0], size, groups)
  } else {
    y = splitGroups(convRow([joinGroups(x), joinBatch(w)], { ...plain, groups: size * groups })[0], size)
  }
  if (!attrs.bias) return [y]
  const bias = ctx.inputs[2]
  return [add(y, batched[2] ? reshape(bias, [size, 1, bias.shape[1], 1, 1]) : reshape(bias, [bias.shape[0], 1, 1]))]
}

/** @internal x [N, C, H, W], w [O, C/groups, kh, kw], bias [O] → [N, O, H', W']. */
export const convRow: OpRow<Forward> = defineOp<Forward>({
  name: 'conv',
  kind: 'kernel',
  doc: 'Cross-correlation of [N, C, H, W] with [O, C/groups, kh, kw], plus a bias per channel; one axis is a height of one.',
  attrs: { ...GEOMETRY, bias: 'bool' },
  infer: ([x, w, bias], attrs) => {
    const counts = lengthsOf('conv', x, w, attrs)
    if (attrs.bias && (!sameShape(bias.shape, [w.shape[0]]) || bias.dtype !== x.dtype)) {
      throw new SteepestError('SHAPE', {
        who: 'conv',
        rule: `the bias must be ${showAval({ shape: [w.shape[0]], dtype: x.dtype })}`,
        got: showAval(bias),
      })
    }
    return [{ shape: [x.shape[0], w.shape[0], ...counts], dtype: x.dtype }]
  },
  vjp: ({ inputs: [x, w], grads: [g], needs, attrs }) => {
    if (!g) return needs.map(() => null)
    const geometry = geometryOf(attrs)
    const dx = needs[0] ? inputBackwardRow([g, w], { ...geometry, size: x.shape.slice(2) })[0] : null
    const bias = attrs.bias && needs[2]
    if (!needs[1]) return [dx, null, ...(attrs.bias ? [bias ? sum(g, { axis: [0, 2, 3] }) : null] : [])]
    const [dw, db] = weightBackwardRow([x, g], { ...geometry, kernel: w.shape.slice(2), bias })
    return [dx, dw, ...(attrs.bias ? [db ?? null] : [])]
  },
  batch: batchForward,
  define: ([x, w, bias], attrs) => [defineConv(x, w, attrs.bias ? bias : undefined, attrs)],
  flops: ([x, w], [y]) => work(x.shape[0], w.shape, y.shape.slice(2)),
  strided: [0, 1, 2],
})

/** @internal dy [N, O, H', W'], w [O, C/groups, kh, kw] → [N, C, ...size]. */
export const inputBackwardRow: OpRow<Input> = defineOp<Input>({
  name: 'convInputBackward',
  kind: 'kernel',
  doc: 'Gradient of conv by its input, from the gradient of the output and the weight; the transposed convolution.',
  attrs: { ...GEOMETRY, size: 'ints' },
  infer: ([dy, w], attrs) => {
    const x = { shape: [dy.shape[0], w.shape[1] * attrs.groups, ...attrs.size], dtype: dy.dtype }
    requireGradient('convInputBackward', x, w, dy, attrs)
    return [x]
  },
  vjp: ({ inputs: [dy, w], grads: [g], needs, attrs }) => {
    if (!g) return [null, null]
    const geometry = geometryOf(attrs)
    return [
      needs[0] ? convRow([g, w], { ...geometry, bias: false })[0] : null,
      needs[1] ? weightBackwardRow([g, dy], { ...geometry, kernel: w.shape.slice(2), bias: false })[0] : null,
    ]
  },
  batch: (ctx) => {
    const { attrs, batched, size } = ctx
    const [dy, w] = ctx.inputs
    const { groups } = attrs
    if (!batched[1]) return [splitBatch(inputBackwardRow([joinBatch(dy), w], attrs)[0], size)]
    if (!batched[0]) return [splitChannels(inputBackwardRow([dy, joinInputs(w)], attrs)[0], size, groups)]
    return [splitGroups(inputBackwardRow([joinGroups(dy), joinBatch(w)], { ...attrs, groups: size * groups })[0], size)]
  },
  define: ([dy, w], attrs) => [defineInputBackward(dy, w, attrs.size, attrs)],
  flops: ([dy, w]) => work(dy.shape[0], w.shape, dy.shape.slice(2)),
  strided: [0, 1],
})

/** @internal x [N, C, H, W], dy [N, O, H', W'] → [O, C/groups, ...kernel] and, with `bias`, [O]. */
export const weightBackwardRow: OpRow<Weight> = defineOp<Weight>({
  name: 'convWeightBackward',
  kind: 'kernel',
  doc: 'Gradients of conv by its weight and, where asked for, its bias, from the input and the gradient of the output.',
  attrs: { ...GEOMETRY, kernel: 'ints', bias: 'bool' },
  infer: ([x, dy], attrs) => {
    const w = { shape: [dy.shape[1], x.shape[1] / attrs.groups, ...attrs.kernel], dtype: x.dtype }
    requireGradient('convWeightBackward', x, w, dy, attrs)
    return [w, ...(attrs.bias ? [{ shape: [dy.shape[1]], dtype: x.dtype }] : [])]
  },
  vjp: ({ inputs: [x, dy], grads: [gw, gb], needs, attrs }) => {
    const geometry = geometryOf(attrs)
    const dx = gw && needs[0] ? inputBackwardRow([dy, gw], { ...geometry, size: x.shape.slice(2) })[0] : null
    if (!needs[1]) return [dx, null]
    if (gw) return [dx, convRow([x, gw, ...(gb ? [gb] : [])], { ...geometry, bias: Boolean(gb) })[0]]
    return [dx, gb ? broadcastTo(reshape(gb, [gb.shape[0], 1, 1]), dy.shape) : null]
  },
  batch: (ctx) => {
    const { attrs, batched, size } = ctx
    const [x, dy] = ctx.inputs
    const { groups } = attrs
    if (batched[0] && batched[1]) {
      const all = weightBackwardRow([joinGroups(x), joinGroups(dy)], { ...attrs, groups: size * groups })
      return all.map((t) => splitBatch(t, size))
    }
    if (batched[1]) {
      return weightBackwardRow([x, joinChannels(dy, groups)], attrs).map((t) => splitOutputs(t, size, groups))
    }
    const [dw, db] = weightBackwardRow([joinChannels(x, groups), dy], attrs)
    return [splitInputs(dw, size), ...(db ? [broadcastTo(db, [size, ...db.shape])] : [])]
  },
  define: ([x, dy], attrs) => {
    const { weight, bias } = defineWeightBackward(x, dy, attrs.kernel, attrs)
    return attrs.bias ? [weight, bias] : [weight]
  },
  flops: ([, dy], [dw]) => work(dy.shape[0], dw.shape, dy.shape.slice(2)),
  strided: [0, 1],
})
