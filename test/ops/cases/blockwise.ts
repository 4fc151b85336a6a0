import { dequantizeBlockwise, quantizeBlockwise } from '../../../lib/ops/blockwise.js'
import { cast } from '../../../lib/ops/elementwise.js'
import { arg, type OpCase } from '../check.js'

/** The map and its numbers are in blockwise.test.ts. */
export const cases: OpCase[] = [
  {
    ops: ['quantizeBlockwise', 'dequantizeBlockwise'],
    f: (x) => dequantizeBlockwise(quantizeBlockwise(cast(x, 'float32'))),
    at: [[arg([3, 300], { constant: true })]],
  },
]
