import { logSoftmax, softmax } from '../../../lib/ops/softmax.js'
import { arg, type OpCase, type Values } from '../check.js'

/** Rows of [rows, n], or columns where `down`. */
function lines({ shape: [rows, columns], data }: Values, down: boolean): number[][] {
  return Array.from({ length: down ? columns : rows }, (_, i) =>
    Array.from({ length: down ? rows : columns }, (_, j) => data[down ? j * columns + i : i * columns + j]),
  )
}
const bounds = { float32: 16 * 2 ** -24, bfloat16: 16 * 2 ** -8 }

export const cases: OpCase[] = [
  {
    ops: ['softmax', 'softmaxBackward'],
    f: (x) => softmax(x),
    at: [[arg([3, 37])]],
    expected: (x) =>
      lines(x, false).flatMap((row) => {
        const total = row.reduce((s, v) => s + Math.exp(v), 0)
        return row.map((v) => Math.exp(v) / total)
      }),
    bounds,
  },
  {
    ops: ['softmax', 'softmaxBackward'],
    name: 'its logarithm, along the first axis',
    f: (x) => logSoftmax(x, { axis: 0 }),
    at: [[arg([37, 3])]],
    expected: (x) => {
      const [rows, columns] = x.shape
      const out = new Float64Array(rows * columns)
      lines(x, true).forEach((column, c) => {
        const lse = Math.log(column.reduce((s, v) => s + Math.exp(v), 0))
        column.forEach((v, r) => (out[r * columns + c] = v - lse))
      })
      return out
    },
    bounds,
  },
]
