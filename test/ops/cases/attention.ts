import { attention } from '../../../lib/ops/attention.js'
import { random } from '../../../lib/ops/random.js'
import { arg, type OpCase } from '../check.js'

const key = random.key(5)
const bounds = { float64: 1e-11, float32: 64 * 2 ** -24, bfloat16: 64 * 2 ** -8 }

/** The numbers, and every option by itself, are in attention.test.ts. */
export const cases: OpCase[] = [
  {
    ops: ['attention', 'attentionBackward'],
    name: 'causal, with heads that share keys',
    f: (q, k, v) => attention(q, k, v, { causal: true }),
    at: [[arg([2, 9, 4, 8]), arg([2, 9, 2, 8]), arg([2, 9, 2, 8])]],
    bounds,
  },
  {
    ops: ['attention', 'attentionBiasBackward', 'attentionDropout'],
    name: 'with bias, cap and dropout',
    f: (q, k, v, bias) => attention(q, k, v, { bias, softCap: 5, dropout: 0.2, key }),
    at: [[arg([1, 5, 2, 8]), arg([1, 7, 2, 8]), arg([1, 7, 2, 8]), arg([1, 2, 5, 7])]],
    bounds,
  },
]
