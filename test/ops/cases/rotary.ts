import { rotary } from '../../../lib/ops/rotary.js'
import { arg, type OpCase } from '../check.js'

/** The angles are in rotary.test.ts. */
export const cases: OpCase[] = [
  {
    ops: ['rotary'],
    f: (x) => rotary(x),
    at: [[arg([2, 5, 3, 8])]],
    bounds: { float32: 8 * 2 ** -24, bfloat16: 8 * 2 ** -8 },
  },
]
