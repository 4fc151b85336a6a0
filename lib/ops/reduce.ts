import { checkOptions, SteepestError } from '../errors.js'
import { type DType, isFloat } from '../tensor/dtype.js'
import { type Aval, normalizeAxes, normalizeAxis, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { abs, cast, div, equal, exp, mul, sqrt, sub, where } from './elementwise.js'
import { cumprod } from './recurrence.js'
import { broadcastTo, ones, reshape, transpose, zeros } from './shape.js'

/** Which axes a reduction goes over, and what becomes of them. */
export interface ReduceOptions {
  /** An axis or several, negative ones counted from the last; all of them by default. */
  axis?: number | readonly number[]
  /** Leaves every reduced axis in place with length 1. Default: false. */
  keepDims?: boolean
}

const KINDS = ['sum', 'mean', 'max', 'min', 'prod', 'sumSquares', 'any', 'all'] as const
type Kind = (typeof KINDS)[number]
type Axes = { axes: number[]; keepDims: boolean }
type ReduceAttrs = Axes & { kind: Kind; dtype: DType }

const reducedShape = (x: Aval, { axes, keepDims }: Axes): number[] =>
  keepDims ? x.shape.map((d, i) => (axes.includes(i) ? 1 : d)) : x.shape.filter((_, i) => !axes.includes(i))

const countOf = (x: Aval, axes: readonly number[]): number => sizeOf(axes.map((a) => x.shape[a]))

/** A reduced value, spread over the elements that it came from. */
const spread = (y: Tensor, x: Aval, axes: readonly number[]): Tensor =>
  broadcastTo(
    reshape(
      y,
      x.shape.map((d, i) => (axes.includes(i) ? 1 : d)),
    ),
    x.shape,
  )

const shifted = <A extends { axes: number[] }>({ inputs: [x], attrs }: BatchContext<A>): [Tensor[], A] => [
  [x],
  { ...attrs, axes: attrs.axes.map((a) => a + 1) },
]

function requireSome(who: string, x: Aval, axes: readonly number[]): void {
  if (countOf(x, axes) > 0) return
  throw new SteepestError('SHAPE', {
    who,
    rule: 'the reduced axes must hold at least one element, since there is no greatest or least of nothing',
    got: `${showAval(x)} over axes [${axes.join(', ')}]`,
  })
}

/** The product of all other elements, without a division, so that it holds with zeros too. */
function productOfOthers(x: Tensor, axes: readonly number[]): Tensor {
  const kept = x.shape.map((_, i) => i).filter((i) => !axes.includes(i))
  const order = [...kept, ...axes]
  const moved = transpose(x, order)
  const flat = reshape(moved, [...kept.map((i) => x.shape[i]), countOf(x, axes)])
  const before = cumprod(flat, { axis: -1, exclusive: true })
  const after = cumprod(flat, { axis: -1, exclusive: true, reverse: true })
  return transpose(
    reshape(mul(before, after), moved.shape),
    x.shape.map((_, i) => order.indexOf(i)),
  )
}

const reduceRow = defineOp<ReduceAttrs>({
  name: 'reduce',
  kind: 'kernel',
  doc: 'One number per group of elements: sum, mean, extremes, product, sum of squares, or whether any or all are not zero.',
  attrs: { axes: 'ints', keepDims: 'bool', kind: KINDS, dtype: 'dtype' },
  strided: 'all',
  infer: ([x], attrs) => {
    if (attrs.kind === 'max' || attrs.kind === 'min') requireSome(attrs.kind, x, attrs.axes)
    return [{ shape: reducedShape(x, attrs), dtype: attrs.dtype }]
  },
  vjp: ({ inputs: [x], outputs: [y], grads: [grad], attrs: { axes, kind, keepDims } }) => {
    const g = cast(grad!, x.dtype)
    switch (kind) {
      case 'sum':
        return [spread(g, x, axes)]
      case 'mean':
        return [spread(mul(g, 1 / countOf(x, axes)), x, axes)]
      case 'sumSquares':
        return [mul(mul(x, 2), spread(g, x, axes))]
      case 'prod':
        return [mul(productOfOthers(x, axes), spread(g, x, axes))]
      case 'max':
      case 'min': {
        const hit = cast(equal(x, spread(y, x, axes)), x.dtype)
        return [mul(hit, spread(div(g, sum(hit, { axis: axes, keepDims })), x, axes))]
      }
      default:
        return [null]
    }
  },
  batch: (ctx): Tensor[] => reduceRow(...shifted(ctx)),
  flops: ([x], _, { kind }) => (kind === 'sumSquares' ? 2 : 1) * sizeOf(x.shape),
})

function reduce(who: Kind | string, kind: Kind, x: Tensor, options: ReduceOptions, dtype: DType): Tensor {
  const axes = normalizeAxes(who, options.axis, x.rank)
  return reduceRow([x], { axes, keepDims: options.keepDims ?? false, kind, dtype })[0]
}

const OPTIONS = ['axis', 'keepDims']
const summedAs = (x: Aval): DType => (x.dtype === 'uint8' ? 'int32' : x.dtype)

/**
 * The sum over axes. bfloat16 is added up in float32, float32 in pieces that are joined in float64; int32 wraps, uint8 gives int32.
 *
 * @param options.dtype dtype of the result, by default that of `x` (int32 for uint8): bfloat16 may be summed to float32
 */
export function sum(x: Tensor, options: ReduceOptions & { dtype?: DType } = {}): Tensor {
  checkOptions('sum', options, [...OPTIONS, 'dtype'])
  const dtype = options.dtype ?? summedAs(x)
  if (isFloat(dtype) !== isFloat(x.dtype)) return reduce('sum', 'sum', cast(x, dtype), options, dtype)
  return reduce('sum', 'sum', x, options, dtype)
}

/** The mean over axes; integers give float32. The mean of nothing is NaN. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('mean', options, OPTIONS)
  const from = isFloat(x.dtype) ? x : cast(x, 'float32')
  return reduce('mean', 'mean', from, options, from.dtype)
}

/** The greatest element over axes, NaN where there is one. Its gradient goes in equal shares to all elements that are as great. */
export function max(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('max', options, OPTIONS)
  return reduce('max', 'max', x, options, x.dtype)
}

/** The least element over axes, NaN where there is one. Its gradient goes in equal shares to all elements that are as small. */
export function min(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('min', options, OPTIONS)
  return reduce('min', 'min', x, options, x.dtype)
}

/** The product over axes; int32 wraps, uint8 gives int32. The gradient is exact where elements are zero. */
export function prod(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('prod', options, OPTIONS)
  return reduce('prod', 'prod', x, options, summedAs(x))
}

/** The sum of squares over axes, of floats. */
export function sumSquares(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('sumSquares', options, OPTIONS)
  requireDtype('sumSquares', x, FLOATS)
  return reduce('sumSquares', 'sumSquares', x, options, x.dtype)
}

/** 1 where any element over axes is not zero (NaN is not), else 0; uint8. Of nothing: 0. */
export function any(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('any', options, OPTIONS)
  return reduce('any', 'any', x, options, 'uint8')
}

/** 1 where all elements over axes are not zero (NaN is not), else 0; uint8. Of nothing: 1. */
export function all(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('all', options, OPTIONS)
  return reduce('all', 'all', x, options, 'uint8')
}

const argReduceRow = defineOp<{ axis: number; keepDims: boolean; kind: 'max' | 'min' }>({
  name: 'argReduce',
  kind: 'kernel',
  doc: 'Where along an axis the first of the greatest, or least, elements is.',
  attrs: { axis: 'int', keepDims: 'bool', kind: ['max', 'min'] },
  strided: 'all',
  infer: ([x], { axis, keepDims, kind }) => {
    requireSome(`arg${kind}`, x, [axis])
    return [{ shape: reducedShape(x, { axes: [axis], keepDims }), dtype: 'int32' }]
  },
  vjp: 'an index does not change with its values',
  batch: ({ inputs, attrs }): Tensor[] => argReduceRow(inputs, { ...attrs, axis: attrs.axis + 1 }),
  flops: ([x]) => sizeOf(x.shape),
})

function argReduce(kind: 'max' | 'min', x: Tensor, options: { axis?: number; keepDims?: boolean }): Tensor {
  checkOptions(`arg${kind}`, options, OPTIONS)
  const keepDims = options.keepDims ?? false
  if (options.axis !== undefined)
    return argReduceRow([x], { axis: normalizeAxis(`arg${kind}`, options.axis, x.rank), keepDims, kind })[0]
  const [at] = argReduceRow([reshape(x, [x.size])], { axis: 0, keepDims: false, kind })
  return keepDims
    ? reshape(
        at,
        x.shape.map(() => 1),
      )
    : at
}

/** The int32 index of the greatest element along `axis` (of all, row-major, without it): the first of equals; NaN counts as the greatest. */
export const argmax = (x: Tensor, options: { axis?: number; keepDims?: boolean } = {}): Tensor =>
  argReduce('max', x, options)

/** The int32 index of the least element along `axis` (of all, row-major, without it): the first of equals; NaN counts as the least. */
export const argmin = (x: Tensor, options: { axis?: number; keepDims?: boolean } = {}): Tensor =>
  argReduce('min', x, options)

const logSumExpRow = defineOp<Axes>({
  name: 'logSumExp',
  kind: 'kernel',
  doc: 'log(sum(exp(x))), without overflow.',
  attrs: { axes: 'ints', keepDims: 'bool' },
  strided: 'all',
  infer: ([x], attrs) => {
    requireDtype('logSumExp', x, FLOATS)
    return [{ shape: reducedShape(x, attrs), dtype: x.dtype }]
  },
  vjp: ({ inputs: [x], outputs: [y], grads: [g], attrs: { axes } }) => {
    // A row of −∞ has no softmax; its gradient is zero.
    const finite = where(equal(y, -Infinity), 0, y)
    return [mul(spread(g!, x, axes), exp(sub(x, spread(finite, x, axes))))]
  },
  batch: (ctx): Tensor[] => logSumExpRow(...shifted(ctx)),
  flops: ([x]) => 8 * sizeOf(x.shape),
})

/** log(sum(exp(x))) over axes, without overflow. −∞ where all elements are, and over nothing; the gradient of such a row is zero. */
export function logSumExp(x: Tensor, options: ReduceOptions = {}): Tensor {
  checkOptions('logSumExp', options, OPTIONS)
  return logSumExpRow([x], {
    axes: normalizeAxes('logSumExp', options.axis, x.rank),
    keepDims: options.keepDims ?? false,
  })[0]
}

/** The square root, with derivative 0 at 0. */
function rootOrZero(square: Tensor): Tensor {
  const none = equal(square, 0)
  const root = sqrt(where(none, ones(square.shape, square.dtype), square))
  return where(none, zeros(square.shape, square.dtype), root)
}

/**
 * The vector norm over axes.
 *
 * @param options.ord 2 (default): Euclidean, unscaled (float32 squares overflow above 1.8e19); 1: sum of sizes; Infinity: the greatest size.
 * The derivative at 0 is 0.
 */
export function norm(x: Tensor, options: ReduceOptions & { ord?: 1 | 2 | number } = {}): Tensor {
  checkOptions('norm', options, [...OPTIONS, 'ord'])
  requireDtype('norm', x, FLOATS)
  const { ord = 2, ...over } = options
  if (ord === 2) return rootOrZero(sumSquares(x, over))
  if (ord === 1) return sum(abs(x), over)
  if (ord === Infinity) return max(abs(x), over)
  throw new SteepestError('ARGUMENT', { who: 'norm', rule: 'ord must be 1, 2 or Infinity', got: `${ord}` })
}

type VarianceOptions = ReduceOptions & { correction?: number }

function varianceOf(who: string, x: Tensor, options: VarianceOptions): Tensor {
  checkOptions(who, options, [...OPTIONS, 'correction'])
  requireDtype(who, x, FLOATS)
  const { correction = 0, ...over } = options
  const n = countOf(x, normalizeAxes(who, over.axis, x.rank))
  const centred = sub(x, mean(x, { axis: over.axis, keepDims: true }))
  return div(sumSquares(centred, over), Math.max(0, n - correction))
}

/**
 * The mean squared distance from the mean, in two passes.
 *
 * @param options.correction subtracted from the count that divides: 0 (default) for all there is, 1 for a sample
 */
export const variance = (x: Tensor, options: VarianceOptions = {}): Tensor => varianceOf('variance', x, options)

/** The square root of `variance`; its derivative at 0 is 0. */
export const std = (x: Tensor, options: VarianceOptions = {}): Tensor => rootOrZero(varianceOf('std', x, options))

export { cumprod, cumsum, linearRecurrence } from './recurrence.js'
