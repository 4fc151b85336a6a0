import { hadamard } from '../../../lib/ops/hadamard.js'
import { arg, type OpCase } from '../check.js'

const odd = (bits: number): boolean => (bits === 0 ? false : odd(bits & (bits - 1)) !== true)

export const cases: OpCase[] = [
  {
    ops: ['hadamard'],
    f: (x) => hadamard(x),
    at: [[arg([3, 16])]],
    expected: ({ data }) =>
      Array.from({ length: 48 }, (_, at) => {
        let sum = 0
        for (let k = 0; k < 16; k++) sum += (odd(k & (at % 16)) ? -1 : 1) * data[16 * Math.floor(at / 16) + k]
        return sum / 4
      }),
    bounds: { float32: 8 * 2 ** -24, bfloat16: 8 * 2 ** -8 },
  },
]
