import { batchNorm } from '../../../lib/ops/batchnorm.js'
import { groupNorm } from '../../../lib/ops/groupnorm.js'
import { layerNorm, rmsNorm } from '../../../lib/ops/layernorm.js'
import { arg, type OpCase, type Values } from '../check.js'

/** Pieces of `size` numbers, each shifted and scaled by its own moments. */
function normalized({ data }: Values, size: number, eps: number, centered: boolean): number[] {
  const out: number[] = []
  for (let at = 0; at < data.length; at += size) {
    const piece = Array.from({ length: size }, (_, i) => data[at + i])
    const mean = centered ? piece.reduce((a, b) => a + b, 0) / size : 0
    const spread = piece.reduce((s, v) => s + (v - mean) ** 2, 0) / size
    out.push(...piece.map((v) => (v - mean) / Math.sqrt(spread + eps)))
  }
  return out
}
const bounds = { float32: 32 * 2 ** -24, bfloat16: 32 * 2 ** -8 }

export const cases: OpCase[] = [
  {
    ops: ['layerNorm', 'layerNormBackward'],
    f: (x, weight, bias) => layerNorm(x, { weight, bias }),
    at: [[arg([5, 33]), arg([33]), arg([33])]],
    expected: (x, w, b) => normalized(x, 33, 1e-5, true).map((v, i) => v * w.data[i % 33] + b.data[i % 33]),
    bounds,
  },
  {
    ops: ['rmsNorm', 'rmsNormBackward'],
    f: (x, weight) => rmsNorm(x, { weight }),
    at: [[arg([5, 33]), arg([33])]],
    expected: (x, w) => normalized(x, 33, 1e-6, false).map((v, i) => v * w.data[i % 33]),
    bounds,
  },
  {
    ops: ['groupNorm', 'groupNormBackward'],
    f: (x, weight, bias) => groupNorm(x, 2, { weight, bias }),
    at: [[arg([2, 6, 5]), arg([6]), arg([6])]],
    expected: (x, w, b) =>
      normalized(x, 15, 1e-5, true).map((v, i) => {
        const channel = Math.floor(i / 5) % 6
        return v * w.data[channel] + b.data[channel]
      }),
    bounds,
  },
  {
    ops: ['batchNorm', 'batchNormBackward'],
    f: (x, weight, bias) => batchNorm(x, weight, bias).y,
    at: [[arg([4, 3, 5]), arg([3]), arg([3])]],
    expected: (x, w, b) => {
      const at = (channel: number, i: number) => 15 * Math.floor(i / 5) + 5 * channel + (i % 5)
      const out = new Float64Array(60)
      for (let c = 0; c < 3; c++) {
        const own = { shape: [20], data: Array.from({ length: 20 }, (_, i) => x.data[at(c, i)]) }
        normalized(own, 20, 1e-5, true).forEach((v, i) => (out[at(c, i)] = v * w.data[c] + b.data[c]))
      }
      return out
    },
    bounds,
  },
]
