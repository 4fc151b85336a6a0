import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type OpRow, statisticsOf, wide, withBatch } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add, cast, mul, rsqrt, square, sub } from './elementwise.js'
import { mean, sum } from './reduce.js'
import { broadcastTo, reshape, transpose } from './shape.js'

type Forward = { eps: number }
type Backward = { eps: number; wide: boolean }

const WHO = 'batchNorm'

const others = (x: Aval): number[] => x.shape.map((_, i) => i).filter((i) => i !== 1)
/** [C] under the channels of x. */
const under = (t: Tensor, x: Aval): Tensor => reshape(wide(t), [1, t.size, ...x.shape.slice(2).map(() => 1)])
const flat = (t: Tensor): Tensor => reshape(t, [t.size])

function moments(x: Tensor, eps: number): { normal: Tensor; mean: Tensor; variance: Tensor; rstd: Tensor } {
  const over = { axis: others(x), keepDims: true }
  const center = mean(wide(x), over)
  const c = sub(wide(x), center)
  const variance = mean(square(c), over)
  const rstd = rsqrt(add(variance, eps))
  return { normal: mul(c, rstd), mean: center, variance, rstd }
}

function defineForward([x, weight, bias]: readonly Tensor[], { eps }: Forward): Tensor[] {
  const m = moments(x, eps)
  const y = add(mul(m.normal, under(weight, x)), under(bias, x))
  return [cast(y, x.dtype), flat(m.mean), flat(m.variance)]
}

function inferForward([x, weight, bias]: readonly Aval[]): Aval[] {
  requireDtype(WHO, x, FLOATS)
  if (x.shape.length < 2)
    throw new SteepestError('SHAPE', { who: WHO, rule: 'the input must be [N, C, …]', got: showAval(x) })
  for (const w of [weight, bias]) {
    requireDtype(WHO, w, x.dtype === 'bfloat16' ? ['bfloat16', 'float32'] : [x.dtype], 'weight and bias')
    if (!sameShape(w.shape, [x.shape[1]]) || w.dtype !== weight.dtype) {
      throw new SteepestError('SHAPE', {
        who: WHO,
        rule: `weight and bias must have the shape [${x.shape[1]}] and one dtype`,
        got: `${showAval(weight)} and ${showAval(bias)}`,
      })
    }
  }
  const s: Aval = { shape: [x.shape[1]], dtype: statisticsOf(x.dtype) }
  return [{ shape: x.shape, dtype: x.dtype }, s, s]
}

// Every channel is alone, so that a new axis joins the channels: [B, N, C, …] → [N, B·C, …], and back.
const join = (t: Tensor): Tensor => {
  const [b, n, c, ...rest] = t.shape
  return reshape(transpose(t, [1, 0, 2, ...rest.map((_, i) => 3 + i)]), [n, b * c, ...rest])
}
const split = (t: Tensor, size: number): Tensor => {
  const [n, c, ...rest] = t.shape
  return transpose(reshape(t, [n, size, c / Math.max(1, size), ...rest]), [1, 0, 2, ...rest.map((_, i) => 3 + i)])
}
const splitFlat = (t: Tensor, size: number): Tensor => reshape(t, [size, t.size / Math.max(1, size)])
const batchOf =
  <A extends Forward | Backward>(row: () => OpRow<A>) =>
  (ctx: BatchContext<A>): Tensor[] =>
    row()(
      ctx.inputs.map((_, i) => {
        const t = withBatch(ctx, i)
        return t.rank > 2 ? join(t) : flat(t)
      }),
      ctx.attrs,
    ).map((t) => (t.rank > 1 ? split(t, ctx.size) : splitFlat(t, ctx.size)))

const forwardRow: OpRow<Forward> = defineOp<Forward>({
  name: 'batchNorm',
  kind: 'kernel',
  doc: 'Normalizes every channel of [N, C, …] over all else, times weight plus bias; also gives mean and variance [C].',
  attrs: { eps: 'float' },
  infer: inferForward,
  vjp: ({ inputs: [x, weight, bias], outputs: [, center, variance], grads: [g, gMean, gVariance], attrs: { eps } }) => {
    const [dx, dweight, dbias] = g
      ? backwardRow([x, g, center, variance, weight], { eps, wide: weight.dtype !== x.dtype })
      : [null, null, null]
    // The statistics as outputs of their own.
    const n = x.size / Math.max(1, x.shape[1])
    let more: Tensor | null = null
    if (gMean) more = broadcastTo(under(mul(gMean, 1 / n), x), x.shape)
    if (gVariance) {
      const slope = mul(sub(wide(x), under(center, x)), under(mul(gVariance, 2 / n), x))
      more = more ? add(more, slope) : slope
    }
    const total = dx && more ? add(dx, cast(more, x.dtype)) : (dx ?? (more ? cast(more, x.dtype) : null))
    return [total, dweight, bias ? dbias : null]
  },
  batch: batchOf<Forward>(() => forwardRow),
  define: defineForward,
  flops: ([x]) => 8 * sizeOf(x.shape),
  inplace: [[0, 0]],
})

const backwardRow: OpRow<Backward> = defineOp<Backward>({
  name: 'batchNormBackward',
  kind: 'kernel',
  doc: 'Gradients of batchNorm by input, weight and bias, from input, gradient of the output, statistics and weight.',
  attrs: { eps: 'float', wide: 'bool' },
  infer: ([x], { wide: isWide }) => {
    const w: Aval = { shape: [x.shape[1]], dtype: isWide ? 'float32' : x.dtype }
    return [{ shape: x.shape, dtype: x.dtype }, w, w]
  },
  vjp: 'by its definition',
  batch: batchOf<Backward>(() => backwardRow),
  // The statistics are computed again, so that the derivative of this sees that they depend on x.
  define: ([x, g, , , weight], { eps }) => {
    const { normal, rstd } = moments(x, eps)
    const over = { axis: others(x), keepDims: true }
    const dy = wide(g)
    const scaled = mul(dy, under(weight, x))
    const along = mul(normal, mean(mul(scaled, normal), over))
    const dx = mul(rstd, sub(sub(scaled, mean(scaled, over)), along))
    const total = (t: Tensor) => cast(sum(t, { axis: others(x) }), weight.dtype)
    return [cast(dx, x.dtype), total(mul(dy, normal)), total(dy)]
  },
  flops: ([x]) => 14 * sizeOf(x.shape),
  inplace: [[0, 1]],
})

/** What `batchNorm` gives. */
export interface BatchNormResult {
  y: Tensor
  /** [C], float32 (float64 for float64). */
  mean: Tensor
  /** [C], the biased one: divided by the number of places. */
  variance: Tensor
}

/**
 * x [N, C, …] with zero mean and unit variance in every channel over all else, then · weight + bias (Ioffe, Szegedy, "Batch normalization",
 * 2015); with the statistics, whose gradients count too.
 *
 * @param weight [C], like bias in the dtype of x, or float32 for a bfloat16 x
 */
export function batchNorm(x: Tensor, weight: Tensor, bias: Tensor, options: { eps?: number } = {}): BatchNormResult {
  checkOptions(WHO, options, ['eps'])
  const attrs = { eps: options.eps ?? 1e-5 }
  const inputs = [x, weight, bias]
  inferForward(inputs)
  // Channels that lie side by side are summed as columns; the kernel goes along planes.
  const plane = sizeOf(x.shape.slice(2))
  const [y, center, variance] = (plane < 4 ? defineForward : forwardRow)(inputs, attrs)
  return { y, mean: center, variance }
}
