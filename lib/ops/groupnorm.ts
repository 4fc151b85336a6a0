import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type OpRow, statisticsOf, wide, withBatch } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add, cast, mul, rsqrt, square, sub } from './elementwise.js'
import { mean, sum } from './reduce.js'
import { reshape } from './shape.js'

type Forward = { groups: number; eps: number; weight: boolean; bias: boolean }
type Backward = {
  groups: number
  eps: number
  weight: boolean
  dx: boolean
  dweight: boolean
  dbias: boolean
  wide: boolean
}

const WHO = 'groupNorm'
const size = (shape: readonly number[]): number => shape.reduce((n, d) => n * d, 1)

// [N, C, …] as [N, groups, C/groups, area], its statistics, and the weight under it.
const grouped = (x: Tensor, groups: number): Tensor =>
  reshape(wide(x), [x.shape[0], groups, x.shape[1] / groups, size(x.shape.slice(2))])
const perChannel = (w: Tensor, groups: number): Tensor => reshape(wide(w), [groups, w.size / groups, 1])
const OVER = { axis: [2, 3], keepDims: true }

function moments(x: Tensor, groups: number, eps: number): { normal: Tensor; mean: Tensor; rstd: Tensor } {
  const g = grouped(x, groups)
  const center = mean(g, OVER)
  const c = sub(g, center)
  const rstd = rsqrt(add(mean(square(c), OVER), eps))
  return { normal: mul(c, rstd), mean: center, rstd }
}

const forwardRow: OpRow<Forward> = defineOp<Forward>({
  name: 'groupNorm',
  kind: 'kernel',
  doc: 'Normalizes groups of channels of [N, C, …]; also gives mean and 1/deviation [N, groups].',
  attrs: { groups: 'int', eps: 'float', weight: 'bool', bias: 'bool' },
  infer: (inputs, { groups }) => {
    const [x, ...weights] = inputs
    requireDtype(WHO, x, FLOATS)
    if (x.shape.length < 2)
      throw new SteepestError('SHAPE', { who: WHO, rule: 'the input must be [N, C, …]', got: showAval(x) })
    if (!Number.isInteger(groups) || groups < 1 || x.shape[1] % groups !== 0) {
      throw new SteepestError('OPTION', {
        who: WHO,
        rule: '`groups` must divide the channels',
        got: `${groups} groups for ${showShape(x.shape)}`,
      })
    }
    for (const w of weights) {
      if (!sameShape(w.shape, [x.shape[1]]))
        throw new SteepestError('SHAPE', {
          who: WHO,
          rule: `weight and bias must have the shape [${x.shape[1]}]`,
          got: showAval(w),
        })
      requireDtype(WHO, w, x.dtype === 'bfloat16' ? ['bfloat16', 'float32'] : [x.dtype], 'weight and bias')
      if (w.dtype !== weights[0].dtype)
        throw new SteepestError('DTYPE', {
          who: WHO,
          rule: 'weight and bias must have one dtype',
          got: weights.map(showAval).join(', '),
        })
    }
    const s: Aval = { shape: [x.shape[0], groups], dtype: statisticsOf(x.dtype) }
    return [{ shape: x.shape, dtype: x.dtype }, s, s]
  },
  vjp: ({ inputs, outputs, grads: [g], needs, attrs: { groups, eps, weight, bias } }) => {
    if (!g) return inputs.map(() => null)
    const wants = { dx: needs[0], dweight: weight && needs[1], dbias: bias && needs[1 + Number(weight)] }
    const isWide = inputs.length > 1 && inputs[1].dtype !== inputs[0].dtype
    const given = backwardRow([inputs[0], g, outputs[2], outputs[1], ...(weight ? [inputs[1]] : [])], {
      groups,
      eps,
      weight,
      ...wants,
      wide: isWide,
    })
    let at = 0
    return [
      wants.dx ? given[at++] : null,
      ...(weight ? [wants.dweight ? given[at++] : null] : []),
      ...(bias ? [wants.dbias ? given[at++] : null] : []),
    ]
  },
  batch: (ctx) => {
    const { attrs, batched, size: n } = ctx
    const x = withBatch(ctx, 0)
    const folded = reshape(x, [n * x.shape[1], ...x.shape.slice(2)])
    const own = batched.slice(1).includes(true)
    const [y, ...rest] = own
      ? forwardRow([folded], { ...attrs, weight: false, bias: false })
      : forwardRow([folded, ...ctx.inputs.slice(1)], attrs)
    const stats = rest.map((s) => reshape(s, [n, x.shape[1], attrs.groups]))
    const unfolded = reshape(y, x.shape)
    if (!own) return [unfolded, ...stats]
    // [n or 1, 1, C, 1, …]
    const operand = (i: number) => {
      const w = ctx.inputs[i]
      return reshape(wide(w), [batched[i] ? n : 1, 1, w.shape[w.rank - 1], ...new Array<number>(x.rank - 3).fill(1)])
    }
    const scaled = attrs.weight ? mul(wide(unfolded), operand(1)) : wide(unfolded)
    return [cast(attrs.bias ? add(scaled, operand(1 + Number(attrs.weight))) : scaled, x.dtype), ...stats]
  },
  define: (inputs, { groups, eps, weight, bias }) => {
    const [x] = inputs
    const m = moments(x, groups, eps)
    let y = m.normal
    if (weight) y = mul(y, perChannel(inputs[1], groups))
    if (bias) y = add(y, perChannel(inputs[1 + Number(weight)], groups))
    return [
      cast(reshape(y, x.shape), x.dtype),
      reshape(m.mean, [x.shape[0], groups]),
      reshape(m.rstd, [x.shape[0], groups]),
    ]
  },
  flops: ([x]) => 8 * size(x.shape),
  inplace: [[0, 0]],
})

const backwardRow: OpRow<Backward> = defineOp<Backward>({
  name: 'groupNormBackward',
  kind: 'kernel',
  doc: 'Gradients of groupNorm from input, gradient of the output and statistics; those that are asked for.',
  attrs: { groups: 'int', eps: 'float', weight: 'bool', dx: 'bool', dweight: 'bool', dbias: 'bool', wide: 'bool' },
  infer: ([x], { dx, dweight, dbias, wide: isWide }) => {
    const w: Aval = { shape: [x.shape[1]], dtype: isWide ? 'float32' : x.dtype }
    return [...(dx ? [{ shape: x.shape, dtype: x.dtype }] : []), ...(dweight ? [w] : []), ...(dbias ? [w] : [])]
  },
  vjp: 'by its definition',
  batch: (ctx: BatchContext<Backward>) => {
    const { attrs, batched, size: n } = ctx
    const [x, g, rstd, center] = [0, 1, 2, 3].map((i) => withBatch(ctx, i))
    const fold = (t: Tensor) => reshape(t, [n * t.shape[1], ...t.shape.slice(2)])
    const spatial = new Array<number>(x.rank - 3).fill(1)
    const out: Tensor[] = []
    if (attrs.dx) {
      const own = attrs.weight && batched[4]
      const dy = own ? cast(mul(wide(g), reshape(wide(ctx.inputs[4]), [n, 1, x.shape[2], ...spatial])), g.dtype) : g
      const weight = attrs.weight && !own
      const only = { ...attrs, weight, dweight: false, dbias: false, wide: false }
      out.push(
        reshape(
          backwardRow([fold(x), fold(dy), fold(rstd), fold(center), ...(weight ? [ctx.inputs[4]] : [])], only)[0],
          x.shape,
        ),
      )
    }
    // Every example of the new axis has sums of its own.
    const dims = [n, x.shape[1], attrs.groups, x.shape[2] / attrs.groups, size(x.shape.slice(3))]
    const total = (t: Tensor) =>
      reshape(cast(sum(t, { axis: [1, 4] }), attrs.wide ? 'float32' : x.dtype), [n, x.shape[2]])
    const dy = reshape(wide(g), dims)
    if (attrs.dweight) {
      const under = (s: Tensor) => reshape(s, [...s.shape, 1, 1])
      out.push(total(mul(dy, mul(sub(reshape(wide(x), dims), under(center)), under(rstd)))))
    }
    if (attrs.dbias) out.push(total(dy))
    return out
  },
  // The statistics are computed again, so that the derivative of this sees that they depend on x.
  define: (inputs, { groups, eps, weight, dx, dweight, dbias, wide: isWide }) => {
    const [x, g] = inputs
    const { normal, rstd } = moments(x, groups, eps)
    const dy = grouped(g, groups)
    const total = (t: Tensor) => reshape(cast(sum(t, { axis: [0, 3] }), isWide ? 'float32' : x.dtype), [x.shape[1]])
    const out: Tensor[] = []
    if (dx) {
      const scaled = weight ? mul(dy, perChannel(inputs[4], groups)) : dy
      const along = mul(normal, mean(mul(scaled, normal), OVER))
      out.push(cast(reshape(mul(rstd, sub(sub(scaled, mean(scaled, OVER)), along)), x.shape), x.dtype))
    }
    if (dweight) out.push(total(mul(dy, normal)))
    if (dbias) out.push(total(dy))
    return out
  },
  flops: ([x]) => 14 * size(x.shape),
})

/** Factor, summand and epsilon of a group norm. */
export interface GroupNormOptions {
  /** Factor of each channel, [C]. float32 is allowed for a bfloat16 input. */
  weight?: Tensor
  /** Summand of each channel, [C]. */
  bias?: Tensor
  /** Added to the variance before the root; 1e-5 by default. */
  eps?: number
}

/**
 * x [N, C, …] with zero mean and unit variance over every group of C/groups channels of an example, then · weight + bias
 * (Wu, He, "Group normalization", 2018). `groups` must divide C; with groups = C it is instance norm, with 1 layer norm of whole examples.
 */
export function groupNorm(x: Tensor, groups: number, options: GroupNormOptions = {}): Tensor {
  checkOptions(WHO, options, ['weight', 'bias', 'eps'])
  const inputs = [options.weight, options.bias].filter((t) => t !== undefined)
  return forwardRow([x, ...inputs], {
    groups,
    eps: options.eps ?? 1e-5,
    weight: options.weight !== undefined,
    bias: options.bias !== undefined,
  })[0]
}
