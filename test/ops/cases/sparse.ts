import { tensor } from '../../../lib/ops/shape.js'
import { sddmm, spmm } from '../../../lib/ops/sparse.js'
import { arg, type OpCase } from '../check.js'

// One place is there twice, and one row lies outside.
const at = { rows: [2, 0, 1, 0, 2, 5], columns: [1, 3, 0, 1, 1, 2] }
const [rows, columns] = [at.rows, at.columns].map((list) => tensor(Int32Array.from(list)))
const bounds = { float32: 8 * 2 ** -24, bfloat16: 8 * 2 ** -8 }

export const cases: OpCase[] = [
  {
    ops: ['spmm', 'sddmm'],
    f: (values, dense) => spmm({ rows, columns, values, size: 3 }, dense),
    at: [[arg([6]), arg([4, 5])]],
    expected: ({ data }, dense) => {
      const out = new Float64Array(15)
      at.rows.forEach((r, i) => {
        for (let j = 0; j < 5 && r < 3; j++) out[5 * r + j] += data[i] * dense.data[5 * at.columns[i] + j]
      })
      return out
    },
    bounds,
  },
  {
    ops: ['sddmm', 'spmm'],
    f: (a, b) => sddmm({ rows, columns }, a, b),
    at: [[arg([3, 5]), arg([4, 5])]],
    expected: (a, b) =>
      at.rows.map((r, i) => {
        let sum = 0
        for (let j = 0; j < 5 && r < 3; j++) sum += a.data[5 * r + j] * b.data[5 * at.columns[i] + j]
        return sum
      }),
    bounds,
  },
]
