import {
  dynamicSlice,
  dynamicUpdateSlice,
  embedding,
  gather,
  scatterAdd,
  segmentMax,
  segmentMean,
  segmentSum,
  take,
} from '../../../lib/ops/indexing.js'
import { transpose } from '../../../lib/ops/shape.js'
import { at, everyIndex, fill, put } from '../arrays.js'
import { arg, given, ints, type OpCase, type Values } from '../check.js'

const taken = (axis: number) => (x: Values, i: Values) =>
  fill([...x.shape.slice(0, axis), ...i.shape, ...x.shape.slice(axis + 1)], (index) =>
    at(x, [
      ...index.slice(0, axis),
      at(i, index.slice(axis, axis + i.shape.length)),
      ...index.slice(axis + i.shape.length),
    ]),
  )

/** The rows of each segment, as arrays of their elements. */
function segmented(x: Values, ids: Values, segments: number, join: (xs: number[]) => number): Float64Array {
  const rest = x.shape.slice(ids.shape.length)
  const groups = Array.from({ length: segments }, () => fill(rest, () => 0)).map((zeros) =>
    Array.from(zeros, (): number[] => []),
  )
  const inner = groups[0].length
  everyIndex(ids.shape, (_, row) => {
    for (let c = 0; c < inner; c++) groups[ids.data[row]][c].push(x.data[row * inner + c])
  })
  return Float64Array.from(groups.flat().map(join))
}

const sum = (xs: number[]): number => xs.reduce((a, b) => a + b, 0)
const bySegment = (
  op: string,
  name: string,
  f: (
    x: Parameters<typeof segmentSum>[0],
    ids: Parameters<typeof segmentSum>[1],
    n: number,
  ) => ReturnType<typeof segmentSum>,
  join: (xs: number[]) => number,
): OpCase[] => [
  {
    ops: [op],
    name,
    f: (x, ids) => f(x, ids, 4),
    at: [
      [arg([5, 3]), given([5], [3, 1, 3, 0, 3], { dtype: 'int32' })],
      [arg([2, 3]), given([2, 3], [2, 0, 1, 2, 2, 0], { dtype: 'uint8' })],
      [arg([0, 2]), ints([0], 0, 4)],
      [arg([1]), ints([1], 0, 4)],
    ],
    large: [
      [arg([3001, 33]), ints([3001], 0, 3)],
      [arg([70001]), ints([70001], 1, 4)],
      [arg([1999, 300]), ints([1999], 2, 3)],
    ],
    bounds: { float32: 1e-5, bfloat16: 2e-2 },
    expected: (x, ids) => segmented(x, ids, 4, join),
  },
]

const starting = given([], [1], { dtype: 'int32' })

export const cases: OpCase[] = [
  ...[0, 1, 2].map(
    (axis): OpCase => ({
      ops: ['take', 'segmentSum'],
      name: `along ${axis}`,
      f: (x, i) => take(x, i, { axis }),
      at: [
        [arg([3, 4, 5]), ints([2, 3], 0, 3)],
        [arg([1, 1, 1]), ints([], 0, 1)],
        [arg(put([0, 0, 0], axis, 3)), ints([2], 0, 3)],
        [arg([3, 3, 3]), ints([0], 0, 3)],
      ],
      large: [[arg([17, 40, 33]), ints([601], 0, 17)]],
      expected: taken(axis),
    }),
  ),
  {
    ops: ['take'],
    name: 'embedding of uint8 ids',
    f: (table, ids) => embedding(table, ids),
    at: [[arg([5, 3]), ints([2, 4], 0, 5, { dtype: 'uint8' })]],
    large: [[arg([500, 130]), ints([4, 700], 0, 500)]],
    bounds: { float32: 1e-5 },
    expected: taken(0),
  },
  ...[0, 1].map(
    (axis): OpCase => ({
      ops: ['gather', 'scatterAdd'],
      name: `along ${axis}`,
      f: (x, i) => gather(x, i, { axis }),
      at: [
        [arg([4, 3]), ints(put([4, 3], axis, 5), 0, 3)],
        [arg([1, 1]), ints([1, 1], 0, 1)],
        [arg([2, 2]), ints(put([2, 2], axis, 0), 0, 2)],
      ],
      large: [[arg([129, 300]), ints(put([129, 300], axis, 400), 0, 129)]],
      bounds: { float32: 1e-5 },
      expected: (x, i) => fill(i.shape, (index) => at(x, put(index, axis, at(i, index)))),
    }),
  ),
  ...[0, 1].map(
    (axis): OpCase => ({
      ops: ['scatterAdd', 'gather'],
      name: `along ${axis}`,
      f: (x, i, u) => scatterAdd(x, i, u, { axis }),
      at: [
        [arg([4, 3]), ints(put([4, 3], axis, 6), 0, 3), arg(put([4, 3], axis, 6))],
        [arg([1, 1]), ints([1, 1], 0, 1), arg([1, 1])],
        [arg([2, 2]), ints(put([2, 2], axis, 0), 0, 2), arg(put([2, 2], axis, 0))],
      ],
      large: [[arg([129, 300]), ints(put([129, 300], axis, 400), 0, 129), arg(put([129, 300], axis, 400))]],
      bounds: { float32: 1e-5 },
      expected: (x, i, u) => {
        const out = Float64Array.from(x.data)
        everyIndex(i.shape, (index) => {
          const to = put(index, axis, at(i, index))
          out[to.reduce((k, v, d) => k * x.shape[d] + v, 0)] += at(u, index)
        })
        return out
      },
    }),
  ),
  ...bySegment('segmentSum', 'of rows', segmentSum, sum),
  ...bySegment('segmentSum', 'as means', segmentMean, (xs) => sum(xs) / Math.max(1, xs.length)),
  {
    ops: ['segmentMax'],
    f: (x, ids) => segmentMax(x, ids, 4),
    // Every segment has a row: the value of none is not a number to differentiate at.
    at: [[arg([5, 3]), given([5], [3, 1, 2, 0, 3], { dtype: 'int32', shared: true })]],
    large: [
      [arg([3001, 33]), ints([3001], 0, 4)],
      [arg([70001]), ints([70001], 0, 4)],
    ],
    expected: (x, ids) => segmented(x, ids, 4, (xs) => Math.max(...xs)),
  },
  {
    ops: ['dynamicSlice', 'dynamicUpdateSlice'],
    name: 'along each axis',
    f: (x, start) => [0, 1, 2].map((axis) => dynamicSlice(x, start, { axis, size: 2 })),
    at: [
      [arg([4, 3, 5]), starting],
      [arg([3, 3, 3]), ints([], 0, 2)],
    ],
    large: [[arg([9, 130, 67]), ints([], 0, 7)]],
    expected: (x, start) =>
      [0, 1, 2].map((axis) =>
        fill(put(x.shape, axis, 2), (index) => at(x, put(index, axis, index[axis] + start.data[0]))),
      ),
  },
  ...[0, 1].map(
    (axis): OpCase => ({
      ops: ['dynamicUpdateSlice', 'dynamicSlice'],
      name: `along ${axis}`,
      f: (x, update, start) => dynamicUpdateSlice(x, update, start, { axis }),
      at: [
        [arg([4, 3]), arg(put([4, 3], axis, 2)), starting],
        [arg([2, 2]), arg(put([2, 2], axis, 0)), ints([], 0, 2)],
        [arg([1, 1]), arg([1, 1]), ints([], 0, 1)],
      ],
      large: [[arg([300, 257]), arg(put([300, 257], axis, 131)), ints([], 0, 100)]],
      expected: (x, update, start) =>
        fill(x.shape, (index) => {
          const k = index[axis] - start.data[0]
          return k >= 0 && k < update.shape[axis] ? at(update, put(index, axis, k)) : at(x, index)
        }),
    }),
  ),
  {
    ops: ['take'],
    name: 'of a transposed table',
    f: (x, i) => take(transpose(x), i),
    at: [[arg([3, 4]), ints([5], 0, 4)]],
    expected: (x, i) => fill([5, x.shape[0]], ([r, c]) => at(x, [c, i.data[r]])),
  },
]
