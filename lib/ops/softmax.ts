import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, normalizeAxis, showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type OpRow, wide, withBatch } from './batching.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { cast, div, exp, log, mul, sub } from './elementwise.js'
import { max, sum } from './reduce.js'
import { swapAxes } from './shape.js'
import { stopGradient } from './control.js'

const LAST = { axis: -1, keepDims: true } as const

function inferRows(who: string, inputs: readonly Aval[]): Aval[] {
  const [x] = inputs
  requireDtype(who, x, FLOATS)
  if (x.shape.length === 0)
    throw new SteepestError('SHAPE', { who, rule: 'the input must have an axis', got: showAval(x) })
  return [{ shape: x.shape, dtype: x.dtype }]
}

const softmaxRow: OpRow<{ log: boolean }> = defineOp<{ log: boolean }>({
  name: 'softmax',
  kind: 'kernel',
  doc: 'Softmax over the last axis, or its logarithm.',
  attrs: { log: 'bool' },
  infer: (inputs) => inferRows('softmax', inputs),
  vjp: ({ outputs: [y], grads: [g], attrs }) => [backwardRow([y, g!], attrs)[0]],
  batch: ({ inputs, attrs }) => softmaxRow(inputs, attrs),
  define: ([x], attrs) => {
    const shifted = sub(wide(x), stopGradient(max(wide(x), LAST)))
    const e = exp(shifted)
    const total = sum(e, LAST)
    return [cast(attrs.log ? sub(shifted, log(total)) : div(e, total), x.dtype)]
  },
  flops: ([x]) => 20 * x.shape.reduce((n, d) => n * d, 1),
  inplace: [[0, 0]],
})

const backwardRow: OpRow<{ log: boolean }> = defineOp<{ log: boolean }>({
  name: 'softmaxBackward',
  kind: 'kernel',
  doc: 'Gradient of softmax over the last axis, from its output and the gradient of that.',
  attrs: { log: 'bool' },
  infer: (inputs) => inferRows('softmaxBackward', inputs),
  vjp: 'by its definition',
  batch: (ctx) => backwardRow([withBatch(ctx, 0), withBatch(ctx, 1)], ctx.attrs),
  define: ([y, g], attrs) => {
    const [p, d] = [wide(y), wide(g)]
    const dx = attrs.log ? sub(d, mul(exp(p), sum(d, LAST))) : mul(p, sub(d, sum(mul(d, p), LAST)))
    return [cast(dx, y.dtype)]
  },
  flops: ([x]) => 5 * x.shape.reduce((n, d) => n * d, 1),
  inplace: [
    [0, 0],
    [0, 1],
  ],
})

/** Over which axis a softmax goes. */
export interface SoftmaxOptions {
  /** The axis whose elements sum to one; the last by default. */
  axis?: number
}

function along(who: string, x: Tensor, options: SoftmaxOptions, log: boolean): Tensor {
  checkOptions(who, options, ['axis'])
  requireDtype(who, x, FLOATS)
  const axis = normalizeAxis(who, options.axis ?? -1, x.rank)
  return swapAxes(softmaxRow([swapAxes(x, axis, -1)], { log })[0], axis, -1)
}

/**
 * exp(x) over its sum along an axis. float32, bfloat16 (computed in float32) or float64; the shape stays. A row of −∞ gives NaN.
 */
export const softmax = (x: Tensor, options: SoftmaxOptions = {}): Tensor => along('softmax', x, options, false)

/** The logarithm of `softmax`, accurate where that underflows. */
export const logSoftmax = (x: Tensor, options: SoftmaxOptions = {}): Tensor => along('logSoftmax', x, options, true)
