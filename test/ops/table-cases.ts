import { concat, eye, pad } from '../../lib/ops/assemble.js'
import { attention } from '../../lib/ops/attention.js'
import { dequantizeBlockwise, quantizeBlockwise } from '../../lib/ops/blockwise.js'
import { stopGradient } from '../../lib/ops/control.js'
import { conv2d } from '../../lib/ops/conv.js'
import { add, cast, mul } from '../../lib/ops/elementwise.js'
import { batchNorm } from '../../lib/ops/batchnorm.js'
import { groupNorm } from '../../lib/ops/groupnorm.js'
import { hadamard } from '../../lib/ops/hadamard.js'
import {
  dynamicSlice,
  dynamicUpdateSlice,
  gather,
  scatterAdd,
  segmentMax,
  segmentSum,
  take,
} from '../../lib/ops/indexing.js'
import { layerNorm, rmsNorm } from '../../lib/ops/layernorm.js'
import { cholesky, eigh, qr, slogdet, solve, svd, triangularSolve } from '../../lib/ops/linalg.js'
import { crossEntropy, linearCrossEntropy } from '../../lib/ops/loss.js'
import { matmul } from '../../lib/ops/matmul.js'
import { avgPool, maxPool } from '../../lib/ops/pooling.js'
import { dropout, random } from '../../lib/ops/random.js'
import { cumsum, linearRecurrence } from '../../lib/ops/recurrence.js'
import { argmax, logSumExp, max, mean, sum } from '../../lib/ops/reduce.js'
import { rotary } from '../../lib/ops/rotary.js'
import { rowNorms, sampleRows, takeScaled } from '../../lib/ops/sampling.js'
import { broadcastTo, flip, reshape, slice, swapAxes, tensor, transpose } from '../../lib/ops/shape.js'
import { logSoftmax, softmax } from '../../lib/ops/softmax.js'
import { argsort, searchsorted, sort, topK } from '../../lib/ops/sort.js'
import { sddmm, spmm } from '../../lib/ops/sparse.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Shape } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'

/** One use of rows of the table. */
export interface TableCase {
  /** The rows of which this is the case: they stand in the graph of its value or derivatives. */
  readonly rows: readonly string[]
  readonly f: (...inputs: Tensor[]) => Tensor
  /** Shapes of the float inputs; none for rows that make their numbers. */
  readonly shapes: readonly Shape[]
  /** False where the row has no derivative. */
  readonly smooth?: boolean
  /** Float dtypes beside float64. */
  readonly dtypes?: readonly DType[]
  /** Largest error of value and gradient, in units of the dtype's rounding (2⁻²⁴, 2⁻⁸), relative to the largest number. Default 8. */
  readonly bound?: number
}

const ints = (values: readonly number[] | number[][], shape?: Shape): Tensor =>
  tensor(values as number[], { dtype: 'int32', ...(shape ? { shape } : {}) })
const like = (x: Tensor): Tensor => eye(x.shape[x.rank - 1], { dtype: x.dtype })
const key = random.key(5)
const lapack = { dtypes: ['float32'], bound: 64 } as const
const safe = (x: Tensor): Tensor => add(mul(x, 0.5), mul(like(x), 3))
const positive = (x: Tensor): Tensor => {
  const square = matmul(x, swapAxes(x, -1, -2))
  return add(square, mul(like(square), 2))
}
/** Eigenvalues and singular values that stay apart. */
const apart = (x: Tensor): Tensor => {
  const n = x.shape[x.rank - 1]
  return add(
    mul(add(x, swapAxes(x, -1, -2)), 0.3),
    mul(
      like(x),
      tensor(
        Float64Array.from({ length: n }, (_, i) => 2 * i + 1),
        { dtype: x.dtype },
      ),
    ),
  )
}
const flat = (parts: readonly Tensor[]): Tensor =>
  concat(
    parts.map((t) => reshape(t, [-1])),
    { axis: 0 },
  )
const rows = ints([2, 0, 1, 0, 2, 5])
const start = ints([1], [])
const columns = ints([1, 3, 0, 1, 1, 2])
const labels = ints([3, -100, 0, 6])

/** At least one use of every row with a kernel, and of every view. */
export const tableCases: Record<string, TableCase> = {
  concat: {
    rows: ['concat'],
    f: (a, b) => concat([a, b], { axis: 1 }),
    shapes: [
      [3, 2],
      [3, 5],
    ],
  },
  pad: {
    rows: ['pad'],
    f: (x) =>
      pad(x, [
        [1, 0],
        [2, 3],
      ]),
    shapes: [[3, 5]],
  },
  cumsum: { rows: ['cumsum'], f: (x) => cumsum(x, { axis: 0 }), shapes: [[33, 3]], bound: 33 },
  linearRecurrence: {
    rows: ['linearRecurrence'],
    f: (a, b) => linearRecurrence(a, b, { axis: -1 }),
    shapes: [
      [3, 17],
      [3, 17],
    ],
    bound: 64,
  },
  sum: { rows: ['reduce'], f: (x) => sum(x, { axis: 1 }), shapes: [[3, 77, 2]], bound: 77 },
  mean: { rows: ['reduce'], f: (x) => mean(x), shapes: [[41, 7]] },
  max: { rows: ['reduce'], f: (x) => max(x, { axis: 0 }), shapes: [[41, 7]] },
  argmax: { rows: ['argReduce'], f: (x) => argmax(x, { axis: 1 }), shapes: [[5, 41]], smooth: false },
  logSumExp: { rows: ['logSumExp'], f: (x) => logSumExp(x, { axis: 1 }), shapes: [[3, 77]], bound: 16 },
  iota: { rows: ['iota'], f: () => eye(7), shapes: [], smooth: false },
  reshape: {
    rows: ['reshape', 'transpose', 'slice', 'flip'],
    f: (x) => reshape(flip(slice(transpose(x), [[0, 5, 2]])), [-1]),
    shapes: [[4, 7]],
  },
  broadcastTo: { rows: ['broadcastTo'], f: (x) => broadcastTo(x, [4, 3, 5]), shapes: [[3, 1]] },
  stopGradient: { rows: ['stopGradient'], f: (x) => mul(x, stopGradient(x)), shapes: [[5]], smooth: false },
  take: { rows: ['take', 'segmentSum'], f: (x) => take(x, ints([2, 0, 2, 1]), { axis: 1 }), shapes: [[3, 4, 2]] },
  segmentSum: { rows: ['segmentSum', 'take'], f: (x) => segmentSum(x, ints([2, 0, 2, 1, 2]), 4), shapes: [[5, 3]] },
  segmentMax: {
    rows: ['segmentMax', 'take', 'segmentSum'],
    f: (x) => segmentMax(x, ints([2, 0, 2, 1, 2]), 3),
    shapes: [[5, 3]],
  },
  dynamicSlice: {
    rows: ['dynamicSlice', 'dynamicUpdateSlice'],
    f: (x) => dynamicSlice(x, start, { axis: 1, size: 2 }),
    shapes: [[3, 4, 2]],
  },
  dynamicUpdateSlice: {
    rows: ['dynamicUpdateSlice', 'dynamicSlice'],
    f: (x, update) => dynamicUpdateSlice(x, update, start, { axis: 0 }),
    shapes: [
      [4, 3],
      [2, 3],
    ],
  },
  gather: {
    rows: ['gather', 'scatterAdd'],
    f: (x) =>
      gather(
        x,
        ints([
          [2, 0],
          [1, 1],
          [0, 2],
        ]),
        { axis: 1 },
      ),
    shapes: [[3, 4]],
  },
  scatterAdd: {
    rows: ['scatterAdd', 'gather'],
    f: (x, u) =>
      scatterAdd(
        x,
        ints([
          [2, 0],
          [1, 1],
          [0, 2],
        ]),
        u,
        { axis: 1 },
      ),
    shapes: [
      [3, 4],
      [3, 2],
    ],
  },
  matmul: {
    rows: ['matmul'],
    f: (a, b) => matmul(a, b),
    shapes: [
      [5, 33],
      [33, 7],
    ],
    bound: 33,
  },
  conv: {
    rows: ['conv', 'convInputBackward', 'convWeightBackward'],
    f: (x, w, bias) => conv2d(x, w, { stride: [1, 2], padding: 1, groups: 2, bias }),
    shapes: [[2, 4, 5, 6], [6, 2, 3, 3], [6]],
    bound: 64,
  },
  maxPool: {
    rows: ['maxPool', 'maxPoolBackward'],
    f: (x) => maxPool(x, { size: 3, stride: 2, padding: 1 }),
    shapes: [[2, 3, 5, 6]],
  },
  avgPool: {
    rows: ['avgPool', 'avgPoolBackward'],
    f: (x) => avgPool(x, { size: 3, stride: 2, padding: 1 }),
    shapes: [[2, 3, 5, 6]],
  },
  rotary: { rows: ['rotary'], f: (x) => rotary(x), shapes: [[2, 5, 3, 8]] },
  attention: {
    rows: ['attention', 'attentionBackward'],
    f: (q, k, v) => attention(q, k, v, { causal: true }),
    shapes: [
      [2, 9, 4, 8],
      [2, 9, 2, 8],
      [2, 9, 2, 8],
    ],
    bound: 64,
  },
  attentionBias: {
    rows: ['attention', 'attentionBiasBackward', 'attentionDropout'],
    f: (q, k, v, bias) => attention(q, k, v, { bias, softCap: 5, dropout: 0.2, key }),
    shapes: [
      [1, 5, 2, 8],
      [1, 7, 2, 8],
      [1, 7, 2, 8],
      [1, 2, 5, 7],
    ],
    bound: 64,
  },
  softmax: { rows: ['softmax', 'softmaxBackward'], f: (x) => softmax(x), shapes: [[3, 37]], bound: 16 },
  logSoftmax: {
    rows: ['softmax', 'softmaxBackward'],
    f: (x) => logSoftmax(x, { axis: 0 }),
    shapes: [[37, 3]],
    bound: 16,
  },
  layerNorm: {
    rows: ['layerNorm', 'layerNormBackward'],
    f: (x, weight, bias) => layerNorm(x, { weight, bias }),
    shapes: [[5, 33], [33], [33]],
    bound: 32,
  },
  rmsNorm: {
    rows: ['rmsNorm', 'rmsNormBackward'],
    f: (x, weight) => rmsNorm(x, { weight }),
    shapes: [[5, 33], [33]],
    bound: 32,
  },
  groupNorm: {
    rows: ['groupNorm', 'groupNormBackward'],
    f: (x, weight, bias) => groupNorm(x, 2, { weight, bias }),
    shapes: [[2, 6, 5], [6], [6]],
    bound: 32,
  },
  batchNorm: {
    rows: ['batchNorm', 'batchNormBackward'],
    f: (x, weight, bias) => batchNorm(x, weight, bias).y,
    shapes: [[4, 3, 5], [3], [3]],
    bound: 32,
  },
  crossEntropy: {
    rows: ['crossEntropy', 'crossEntropyBackward'],
    f: (x) => crossEntropy(x, labels),
    shapes: [[4, 7]],
    bound: 16,
  },
  linearCrossEntropy: {
    rows: ['linearCrossEntropy', 'linearCrossEntropyBackward'],
    f: (x, weight, bias) => linearCrossEntropy(x, weight, labels, { bias }),
    shapes: [[4, 9], [7, 9], [7]],
    bound: 64,
  },
  argsort: { rows: ['argsort'], f: (x) => argsort(x, { axis: 0 }), shapes: [[17, 3]], smooth: false },
  topK: { rows: ['topK'], f: (x) => topK(x, 3).indices, shapes: [[2, 17]], smooth: false },
  sort: { rows: ['argsort', 'gather', 'scatterAdd'], f: (x) => sort(x), shapes: [[3, 17]] },
  searchsorted: { rows: ['searchsorted'], f: (x, y) => searchsorted(sort(x), y), shapes: [[17], [5]], smooth: false },
  random: {
    rows: ['random', 'splitKey', 'foldKey'],
    f: () => random.normal(random.split(random.foldIn(key, 3), 2), [5]),
    shapes: [],
    smooth: false,
  },
  blockwise: {
    rows: ['quantizeBlockwise', 'dequantizeBlockwise'],
    f: (x) => dequantizeBlockwise(quantizeBlockwise(cast(x, 'float32'))),
    shapes: [[3, 300]],
    smooth: false,
  },
  dropout: { rows: ['dropout'], f: (x) => dropout(x, { p: 0.3, key }), shapes: [[5, 33]] },
  categorical: { rows: ['categorical'], f: (x) => random.categorical(key, x), shapes: [[5, 33]], smooth: false },
  cholesky: { rows: ['cholesky', 'triangularSolve'], f: (x) => cholesky(positive(x)), shapes: [[3, 3]], ...lapack },
  triangularSolve: {
    rows: ['triangularSolve'],
    f: (a, b) => triangularSolve(safe(a), b, { lower: false }),
    shapes: [
      [3, 3],
      [3, 2],
    ],
    ...lapack,
  },
  solve: {
    rows: ['solve'],
    f: (a, b) => solve(safe(a), b),
    shapes: [
      [3, 3],
      [3, 2],
    ],
    ...lapack,
  },
  slogdet: { rows: ['slogdet', 'solve'], f: (a) => slogdet(safe(a)).logAbsDet, shapes: [[2, 3, 3]], ...lapack },
  qr: { rows: ['qr'], f: (a) => flat(Object.values(qr(a))), shapes: [[4, 3]], ...lapack, bound: 256 },
  eigh: { rows: ['eigh'], f: (a) => flat(Object.values(eigh(apart(a)))), shapes: [[3, 3]], ...lapack, bound: 256 },
  svd: { rows: ['svd'], f: (a) => flat(Object.values(svd(apart(a)))), shapes: [[3, 3]], ...lapack, bound: 512 },
  hadamard: { rows: ['hadamard'], f: (x) => hadamard(x), shapes: [[3, 16]] },
  spmm: {
    rows: ['spmm', 'sddmm'],
    f: (values, dense) => spmm({ rows, columns, values, size: 3 }, dense),
    shapes: [[6], [4, 5]],
  },
  sddmm: {
    rows: ['sddmm', 'spmm'],
    f: (a, b) => sddmm({ rows, columns }, a, b),
    shapes: [
      [3, 5],
      [4, 5],
    ],
  },
  rowNorms: { rows: ['rowNorms'], f: (x) => rowNorms(x), shapes: [[5, 7]] },
  sampleRows: {
    rows: ['sampleRows'],
    f: (x) => sampleRows(rowNorms(cast(x, x.dtype === 'float64' ? 'float64' : 'float32')), key, { k: 3 }).weights,
    shapes: [[8, 3]],
    smooth: false,
  },
  takeScaled: {
    rows: ['takeScaled'],
    f: (x, w) => takeScaled(x, ints([2, 0, 2]), cast(w, w.dtype === 'float64' ? 'float64' : 'float32')),
    shapes: [[4, 5], [3]],
  },
}

/** Rows that need no case here, and where they have theirs. */
export const elsewhere: Record<string, string> = {
  input: 'a leaf',
  buffer: 'a leaf',
  constant: 'a leaf',
  alias: 'the identity that every transform puts in',
  elementwise: 'test/ops/elementwise.test.ts: what passes make of elementwise rows',
  assign: 'test/optim and test/train: state of a step',
  accumulate: 'test/optim and test/train: state of a step',
  guard: 'test/train: the end of a run',
  update: 'test/optim and test/native/update.cc',
  putRecords: 'test/memory: state of a step',
  globalNorm: 'test/optim and test/native/global_norm.cc',
  scan: 'test/transform/loop.test.ts',
  cond: 'test/transform/loop.test.ts',
  whileLoop: 'test/transform/loop.test.ts',
  revise: 'test/transform/revise.test.ts',
}
