import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { statisticsOf, wide } from './batching.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { cast, mul, sqrt, square } from './elementwise.js'
import { everyBatched, segmentSumRow, takeRow } from './indexing.js'
import { sum } from './reduce.js'
import { expandDims } from './shape.js'

function refuse(who: string, rule: string, ...got: Aval[]): never {
  throw new SteepestError('SHAPE', { who, rule, got: got.map(showAval).join(' and ') })
}

const rowNormsRow = defineOp<{ squared: boolean }>({
  name: 'rowNorms',
  kind: 'kernel',
  doc: 'The Euclidean norm of each row (last axis), or its square, in float32 or better.',
  attrs: { squared: 'bool' },
  infer: ([x]) => {
    requireDtype('rowNorms', x, FLOATS)
    if (x.shape.length === 0) refuse('rowNorms', 'rows need an axis', x)
    return [{ shape: x.shape.slice(0, -1), dtype: statisticsOf(x.dtype) }]
  },
  vjp: 'by its definition',
  batch: ({ inputs, attrs }): Tensor[] => rowNormsRow(inputs, attrs),
  define: ([x], { squared }) => {
    const y = sum(square(wide(x)), { axis: -1 })
    return [squared ? y : sqrt(y)]
  },
  flops: ([x]) => 2 * sizeOf(x.shape),
  strided: [0],
})

/** Norms of the rows of `x` [..., n], or their squares: [...], float32 (float64 for float64). */
export const rowNorms = (x: Tensor, { squared = false }: { squared?: boolean } = {}): Tensor =>
  rowNormsRow([x], { squared })[0]

const METHODS = ['winners', 'crs', 'topK'] as const
const DRAWS = ['systematic', 'replacement'] as const

/**
 * Which rows are kept: `winners` those that are certain, and draws among the others (WTA-CRS); `crs` draws among all (column-row
 * sampling); `topK` the largest, with weight 1, which is biased.
 */
export type SamplingMethod = (typeof METHODS)[number]
/** How rows are drawn: `systematic`, at even distances along a random walk, or `replacement`, each draw for itself. */
export type SamplingDraw = (typeof DRAWS)[number]

type SampleAttrs = {
  k: number
  method: SamplingMethod
  draw: SamplingDraw
  site: number
  gains: boolean
  floor: number
}

const sampleRowsRow = defineOp<SampleAttrs>({
  name: 'sampleRows',
  kind: 'kernel',
  doc: 'k of n rows by scores norms [keys..., ..., n] (· gains), for keys [keys..., 2]: indices, weights, and the weight of each row (0: certain).',
  attrs: { k: 'int', method: METHODS, draw: DRAWS, site: 'int', gains: 'bool', floor: 'float' },
  infer: ([norms, key, gains], { k }) => {
    const who = 'sampleRows'
    requireDtype(who, norms, ['float32', 'float64'], 'norms')
    const lead = key.shape.slice(0, -1)
    const n = norms.shape.at(-1)
    if (
      n === undefined ||
      key.dtype !== 'int32' ||
      key.shape.at(-1) !== 2 ||
      lead.length >= norms.shape.length ||
      !sameShape(lead, norms.shape.slice(0, lead.length))
    )
      refuse(who, 'the axes of the keys must lead those of the norms', norms, key)
    if (gains && (!sameShape(gains.shape, norms.shape) || gains.dtype !== norms.dtype))
      refuse(who, 'gains must be like the norms', gains, norms)
    if (!Number.isInteger(k) || k < 0 || k > n) {
      throw new SteepestError('ARGUMENT', { who, rule: `k must be a whole number in [0, ${n}]`, got: String(k) })
    }
    const shape = [...norms.shape.slice(0, -1), k]
    return [
      { shape, dtype: 'int32' },
      { shape, dtype: norms.dtype },
      { shape: norms.shape, dtype: norms.dtype },
    ]
  },
  vjp: 'it gives indices and weights of a random choice, which are constants',
  batch: (ctx): Tensor[] => sampleRowsRow(everyBatched(ctx), ctx.attrs),
  flops: ([norms]) => 20 * sizeOf(norms.shape),
})

/** How `sampleRows` chooses. */
export interface SampleRowsOptions {
  /** Rows to keep, in [0, n]. */
  k: number
  method?: SamplingMethod
  draw?: SamplingDraw
  /** Like the norms: multiplies them. Negative where nothing is known of a row: it counts as the mean of the others. */
  gains?: Tensor
  /** What a gain is taken for at least, in units of their mean, in [0, 1]: a row that mattered not may matter now. Default 0. */
  floor?: number
  /** Tells this draw from others of the same key. */
  site?: number
}

/**
 * Chooses `k` of the n rows of a sum Σ a_i so that Σ weights_j · a_(indices_j) has it as its mean, with a variance that is
 * small where `norms · gains` is in proportion to ‖a_i‖. Rows come in ascending order; where fewer than k have a norm above 0, the rest has
 * weight 0. Where all norms are 0 all rows are alike.
 *
 * @param norms float32 or float64 [..., n]
 * @param key int32 [..., 2]; other axes of the norms are further sets of rows, each with draws of its own
 * @returns indices int32 [..., k], weights [..., k], and `inverse` [..., n]: the weight that a row gets when it is drawn, 0 for one that is certain.
 *   Draws with replacement have the squared error Σ inverse_i ‖a_i‖² − ‖Σ_(i drawn) a_i‖² / draws.
 * Source: Liu et al. 2023, arXiv 2305.15265; systematic draws: Madow 1949.
 */
export function sampleRows(
  norms: Tensor,
  key: Tensor,
  options: SampleRowsOptions,
): { indices: Tensor; weights: Tensor; inverse: Tensor } {
  checkOptions('sampleRows', options, ['k', 'method', 'draw', 'gains', 'floor', 'site'])
  const { k, method = 'winners', draw = 'systematic', gains, floor = 0, site = 0 } = options
  const attrs = { k, method, draw, site, gains: gains !== undefined, floor }
  const [indices, weights, inverse] = sampleRowsRow(gains ? [norms, key, gains] : [norms, key], attrs)
  return { indices, weights, inverse }
}

const takeScaledRow = defineOp({
  name: 'takeScaled',
  kind: 'kernel',
  faults: true,
  doc: 'Rows of x [..., n, d] by their indices [..., k], each times its weight [..., k].',
  attrs: {},
  infer: ([x, indices, weights]) => {
    const who = 'takeScaled'
    requireDtype(who, x, FLOATS)
    requireDtype(who, indices, ['int32'], 'indices')
    requireDtype(who, weights, [statisticsOf(x.dtype)], 'weights')
    const lead = x.shape.slice(0, -2)
    if (x.shape.length < 2 || !sameShape(indices.shape.slice(0, -1), lead) || !sameShape(indices.shape, weights.shape))
      refuse(who, 'shapes must be [..., n, d], [..., k] and [..., k]', x, indices, weights)
    return [{ shape: [...indices.shape, x.shape[x.shape.length - 1]], dtype: x.dtype }]
  },
  vjp: ({ inputs: [x, indices, weights], grads: [g], needs }): (Tensor | null)[] => {
    const axis = x.rank - 2
    const scaled = cast(mul(wide(g!), expandDims(weights, -1)), x.dtype)
    const own = takeRow([x, indices], { axis, batchDims: axis })[0]
    return [
      needs[0]
        ? segmentSumRow([scaled, indices], { axis, batchDims: axis, segments: x.shape[axis], base: false })[0]
        : null,
      null,
      needs[2] ? sum(mul(wide(g!), wide(own)), { axis: -1 }) : null,
    ]
  },
  batch: (ctx): Tensor[] => takeScaledRow(everyBatched(ctx), {}),
  flops: (_, [y]) => sizeOf(y.shape),
  strided: [0],
})

/** Rows of `x` [..., n, d] at the indices [..., k], times the weights [..., k]: [..., k, d]. */
export const takeScaled = (x: Tensor, indices: Tensor, weights: Tensor): Tensor =>
  takeScaledRow([x, indices, weights], {})[0]

const putRecordsRow = defineOp({
  name: 'putRecords',
  kind: 'kernel',
  faults: true,
  doc: 'Writes records [r, width] into a flat state, record i at slots[i] · width.',
  attrs: {},
  infer: ([state, slots, records]) => {
    if (
      state.shape.length !== 1 ||
      slots.shape.length !== 1 ||
      slots.dtype !== 'int32' ||
      records.shape.length !== 2 ||
      records.shape[0] !== slots.shape[0] ||
      records.dtype !== state.dtype
    )
      refuse('putRecords', 'shapes must be [cells], [r] and [r, width]', state, slots, records)
    return [state]
  },
  vjp: 'a write into state has no derivative',
  batch() {
    throw new SteepestError('NO_DERIVATIVE', { who: 'putRecords', rule: 'a write into state cannot be mapped' })
  },
  updates: () => [[0, 0]],
})

/** @internal `state` [cells] with the record i in the place of its elements from slots[i]·width on, in its memory. */
export const putRecords = (state: Tensor, slots: Tensor, records: Tensor): Tensor =>
  putRecordsRow([state, slots, records], {})[0]
