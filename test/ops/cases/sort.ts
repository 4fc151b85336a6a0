import { argsort, searchsorted, sort, topK } from '../../../lib/ops/sort.js'
import { arg, type OpCase, type Values } from '../check.js'

const rowsOf = ({ shape, data }: Values): number[][] => {
  const n = shape[shape.length - 1]
  return Array.from({ length: data.length / n }, (_, r) => Array.from({ length: n }, (_, i) => data[r * n + i]))
}
const order = (row: readonly number[], sign = 1): number[] =>
  row.map((_, i) => i).sort((i, j) => sign * (row[i] - row[j]) || i - j)

export const cases: OpCase[] = [
  {
    ops: ['argsort'],
    f: (x) => argsort(x, { axis: 0 }),
    at: [[arg([17, 3])]],
    expected: ({ data }) => {
      const out = new Float64Array(51)
      for (let c = 0; c < 3; c++) {
        const column = Array.from({ length: 17 }, (_, r) => data[3 * r + c])
        order(column).forEach((i, r) => (out[3 * r + c] = i))
      }
      return out
    },
  },
  {
    ops: ['topK'],
    f: (x) => topK(x, 3).indices,
    at: [[arg([2, 17])]],
    expected: (x) => rowsOf(x).flatMap((row) => order(row, -1).slice(0, 3)),
  },
  {
    ops: ['argsort', 'gather', 'scatterAdd'],
    name: 'in their order',
    f: (x) => sort(x),
    at: [[arg([3, 17])]],
    expected: (x) => rowsOf(x).flatMap((row) => row.sort((a, b) => a - b)),
    bounds: { float32: 8 * 2 ** -24, bfloat16: 8 * 2 ** -8 },
  },
  {
    ops: ['searchsorted'],
    f: (x, y) => searchsorted(sort(x), y),
    at: [[arg([17]), arg([5])]],
    expected: (x, y) => Array.from(y.data, (v) => Array.from(x.data).filter((w) => w < v).length),
  },
]
