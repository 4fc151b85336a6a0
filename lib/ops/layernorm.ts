import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, normalizeAxes, sameShape, showAval, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { alignBatched, type OpRow, statisticsOf, wide, withBatch } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype, type VjpContext } from './define.js'
import { add, cast, mul, rsqrt, square, sub } from './elementwise.js'
import { mean, sum } from './reduce.js'
import { reshape, transpose } from './shape.js'

type Forward = { axes: number; eps: number; weight: boolean; bias: boolean }
type Backward = {
  axes: number
  eps: number
  weight: boolean
  dx: boolean
  dweight: boolean
  dbias: boolean
  wide: boolean
}

const lastAxes = (n: number): number[] => Array.from({ length: n }, (_, i) => i - n)

function checkWeight(who: string, what: string, w: Aval, x: Aval, axes: number): void {
  const shape = x.shape.slice(x.shape.length - axes)
  if (!sameShape(w.shape, shape)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `${what} must have the shape ${showShape(shape)} of the normalized axes`,
      got: showAval(w),
    })
  }
  requireDtype(who, w, x.dtype === 'bfloat16' ? ['bfloat16', 'float32'] : [x.dtype], what)
}

function inferForward(
  who: string,
  inputs: readonly Aval[],
  { axes, weight, bias }: { axes: number; weight: boolean; bias: boolean },
): Aval[] {
  const [x] = inputs
  requireDtype(who, x, FLOATS)
  if (axes < 1 || axes > x.shape.length)
    throw new SteepestError('SHAPE', { who, rule: 'the normalized axes must be axes of the input', got: showAval(x) })
  if (weight) checkWeight(who, 'weight', inputs[1], x, axes)
  if (bias) checkWeight(who, 'bias', inputs[1 + Number(weight)], x, axes)
  if (weight && bias && inputs[1].dtype !== inputs[2].dtype) {
    throw new SteepestError('DTYPE', {
      who,
      rule: 'weight and bias must have one dtype',
      got: `${inputs[1].dtype} and ${inputs[2].dtype}`,
    })
  }
  return [{ shape: x.shape, dtype: x.dtype }]
}

const statistics = (x: Aval, axes: number): Aval => ({
  shape: x.shape.slice(0, x.shape.length - axes),
  dtype: statisticsOf(x.dtype),
})

/** One family of rows for both norms: `centered` is layer norm. */
function makeNorm(name: string, centered: boolean) {
  // Statistics with axes of length 1 in place of the normalized ones.
  const spread = (s: Tensor, axes: number): Tensor => reshape(s, [...s.shape, ...new Array<number>(axes).fill(1)])

  function moments(x: Tensor, axes: number, eps: number): { normal: Tensor; mean: Tensor | null; rstd: Tensor } {
    const over = { axis: lastAxes(axes), keepDims: true }
    const center = centered ? mean(x, over) : null
    const c = center ? sub(x, center) : x
    const rstd = rsqrt(add(mean(square(c), over), eps))
    return { normal: mul(c, rstd), mean: center, rstd }
  }

  const forwardRow: OpRow<Forward> = defineOp<Forward>({
    name,
    kind: 'kernel',
    doc: centered
      ? 'Layer norm over the last axes; also gives mean and 1/deviation.'
      : 'RMS norm over the last axes; also gives 1/rms.',
    attrs: { axes: 'int', eps: 'float', weight: 'bool', bias: 'bool' },
    infer: (inputs, attrs) => {
      const s = statistics(inputs[0], attrs.axes)
      return [...inferForward(name, inputs, attrs), ...(centered ? [s, s] : [s])]
    },
    vjp: ({ inputs, outputs, grads: [g], needs, attrs: { axes, eps, weight, bias } }: VjpContext<Forward>) => {
      const none = inputs.map(() => null)
      if (!g) return none
      const rstd = outputs[centered ? 2 : 1]
      const wants = { dx: needs[0], dweight: weight && needs[1], dbias: bias && needs[1 + Number(weight)] }
      const narrow = weight || bias ? inputs[1].dtype === inputs[0].dtype : true
      const given = backwardRow(
        [inputs[0], g, rstd, ...(centered ? [outputs[1]] : []), ...(weight ? [inputs[1]] : [])],
        {
          axes,
          eps,
          weight,
          ...wants,
          wide: !narrow,
        },
      )
      let at = 0
      return [
        wants.dx ? given[at++] : null,
        ...(weight ? [wants.dweight ? given[at++] : null] : []),
        ...(bias ? [wants.dbias ? given[at++] : null] : []),
      ]
    },
    batch: (ctx) => {
      const { attrs, batched } = ctx
      const x = withBatch(ctx, 0)
      if (!batched.slice(1).includes(true)) return forwardRow([x, ...ctx.inputs.slice(1)], attrs)
      const [y, ...rest] = forwardRow([x], { ...attrs, weight: false, bias: false })
      const operand = (i: number) => wide(batched[i] ? alignBatched(ctx.inputs[i], x.rank) : ctx.inputs[i])
      const scaled = attrs.weight ? mul(wide(y), operand(1)) : wide(y)
      return [cast(attrs.bias ? add(scaled, operand(1 + Number(attrs.weight))) : scaled, y.dtype), ...rest]
    },
    define: (inputs, { axes, eps, weight, bias }) => {
      const m = moments(wide(inputs[0]), axes, eps)
      let y = m.normal
      if (weight) y = mul(y, wide(inputs[1]))
      if (bias) y = add(y, wide(inputs[1 + Number(weight)]))
      const shape = statistics(inputs[0], axes).shape
      return [cast(y, inputs[0].dtype), ...(m.mean ? [reshape(m.mean, shape)] : []), reshape(m.rstd, shape)]
    },
    flops: ([x]) => 8 * x.shape.reduce((n, d) => n * d, 1),
    inplace: [[0, 0]],
  })

  // dx from the normalized input, its 1/deviation and the gradient after the weight.
  function slope(normal: Tensor, rstd: Tensor, g: Tensor, axes: number): Tensor {
    const over = { axis: lastAxes(axes), keepDims: true }
    const along = mul(normal, mean(mul(g, normal), over))
    return mul(rstd, sub(centered ? sub(g, mean(g, over)) : g, along))
  }

  const backwardRow: OpRow<Backward> = defineOp<Backward>({
    name: `${name}Backward`,
    kind: 'kernel',
    doc: `Gradients of ${name} from input, gradient of the output and statistics; those that are asked for.`,
    attrs: { axes: 'int', eps: 'float', weight: 'bool', dx: 'bool', dweight: 'bool', dbias: 'bool', wide: 'bool' },
    infer: ([x], { axes, dx, dweight, dbias, wide: isWide }) => {
      const w: Aval = { shape: x.shape.slice(x.shape.length - axes), dtype: isWide ? 'float32' : x.dtype }
      return [...(dx ? [{ shape: x.shape, dtype: x.dtype }] : []), ...(dweight ? [w] : []), ...(dbias ? [w] : [])]
    },
    vjp: 'by its definition',
    batch: (ctx: BatchContext<Backward>) => {
      const { attrs, batched } = ctx
      const { axes, dx, dweight, dbias } = attrs
      const statisticsInputs = centered ? [2, 3] : [2]
      const [x, g, ...stats] = [0, 1, ...statisticsInputs].map((i) => withBatch(ctx, i))
      const weightAt = statisticsInputs.length + 2
      const out: Tensor[] = []
      if (dx) {
        const own = attrs.weight && batched[weightAt]
        const dy = own ? cast(mul(wide(g), wide(alignBatched(ctx.inputs[weightAt], x.rank))), g.dtype) : g
        const weight = attrs.weight && !own
        out.push(
          backwardRow([x, dy, ...stats, ...(weight ? [ctx.inputs[weightAt]] : [])], {
            ...attrs,
            weight,
            dweight: false,
            dbias: false,
            wide: false,
          })[0],
        )
      }
      // Every example has sums of its own, over its other leading axes.
      const rows = { axis: Array.from({ length: x.rank - axes - 1 }, (_, i) => i + 1) }
      const total = (t: Tensor) => cast(rows.axis.length ? sum(t, rows) : t, attrs.wide ? 'float32' : x.dtype)
      if (dweight) {
        const c = centered ? sub(wide(x), spread(stats[1], axes)) : wide(x)
        out.push(total(mul(wide(g), mul(c, spread(stats[0], axes)))))
      }
      if (dbias) out.push(total(wide(g)))
      return out
    },
    // The statistics are computed again, so that the derivative of this sees that they depend on x.
    define: (inputs, { axes, eps, weight, dx, dweight, dbias, wide: isWide }) => {
      const [x, g] = inputs
      const { normal, rstd } = moments(wide(x), axes, eps)
      const dy = wide(g)
      const rows = { axis: Array.from({ length: x.rank - axes }, (_, i) => i) }
      const total = (t: Tensor) => cast(rows.axis.length ? sum(t, rows) : t, isWide ? 'float32' : x.dtype)
      return [
        ...(dx
          ? [cast(slope(normal, rstd, weight ? mul(dy, wide(inputs[inputs.length - 1])) : dy, axes), x.dtype)]
          : []),
        ...(dweight ? [total(mul(dy, normal))] : []),
        ...(dbias ? [total(dy)] : []),
      ]
    },
    flops: ([x]) => 14 * x.shape.reduce((n, d) => n * d, 1),
    inplace: [
      [0, 1],
      [0, 0],
    ],
  })
  return forwardRow
}

const layerRow = makeNorm('layerNorm', true)
const rmsRow = makeNorm('rmsNorm', false)

/** Axes, factor and epsilon of an RMS norm. */
export interface RmsNormOptions {
  /** The axes that are normalized together; the last by default. */
  axis?: number | readonly number[]
  /** Factor; has the lengths of the normalized axes. float32 is allowed for a bfloat16 input. */
  weight?: Tensor
  /** Added to the mean square before the root. */
  eps?: number
}

/** Those of an RMS norm, and a summand. */
export interface NormOptions extends RmsNormOptions {
  /** Summand; as `weight`. */
  bias?: Tensor
}

function normalize(who: string, row: typeof layerRow, x: Tensor, options: NormOptions, eps: number): Tensor {
  const axes = normalizeAxes(who, options.axis ?? -1, x.rank)
  const attrs = { axes: axes.length, eps, weight: options.weight !== undefined, bias: options.bias !== undefined }
  const inputs = [options.weight, options.bias].filter((t) => t !== undefined)
  const order = [...x.shape.map((_, i) => i).filter((i) => !axes.includes(i)), ...axes]
  return transpose(
    row([transpose(x, order), ...inputs], attrs)[0],
    order.map((_, i) => order.indexOf(i)),
  )
}

/**
 * (x − mean) / √(variance + eps) over the last axis (or `axis`), then · weight + bias (Ba, Kiros, Hinton, "Layer normalization", 2016).
 * float32, bfloat16 (statistics in float32) or float64; `eps` is 1e-5 by default.
 */
export function layerNorm(x: Tensor, options: NormOptions = {}): Tensor {
  checkOptions('layerNorm', options, ['axis', 'weight', 'bias', 'eps'])
  return normalize('layerNorm', layerRow, x, options, options.eps ?? 1e-5)
}

/**
 * x / √(mean square + eps) over the last axis (or `axis`), then · weight (Zhang, Sennrich, "Root mean square layer normalization", 2019).
 * `eps` is 1e-6 by default.
 */
export function rmsNorm(x: Tensor, options: RmsNormOptions = {}): Tensor {
  checkOptions('rmsNorm', options, ['axis', 'weight', 'eps'])
  return normalize('rmsNorm', rmsRow, x, options, options.eps ?? 1e-6)
}
