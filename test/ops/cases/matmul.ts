import { matmul } from '../../../lib/ops/matmul.js'
import { arg, type OpCase } from '../check.js'

export const cases: OpCase[] = [
  {
    ops: ['matmul'],
    f: (a, b) => matmul(a, b),
    at: [[arg([5, 33]), arg([33, 7])]],
    expected: (a, b) =>
      Array.from({ length: 35 }, (_, at) => {
        let sum = 0
        for (let k = 0; k < 33; k++) sum += a.data[33 * Math.floor(at / 7) + k] * b.data[7 * k + (at % 7)]
        return sum
      }),
    bounds: { float32: 33 * 2 ** -24, bfloat16: 33 * 2 ** -8 },
    perLevel: true,
  },
]
