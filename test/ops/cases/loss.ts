import { crossEntropy, linearCrossEntropy } from '../../../lib/ops/loss.js'
import { tensor } from '../../../lib/ops/shape.js'
import { arg, type OpCase } from '../check.js'

const labels = [3, -100, 0, 6]
const labelled = tensor(Int32Array.from(labels))

/** The mean over the rows that count. */
function meanLoss(logits: (row: number, column: number) => number): number[] {
  const losses = labels.flatMap((label, r) => {
    if (label < 0) return []
    const row = Array.from({ length: 7 }, (_, j) => logits(r, j))
    return [Math.log(row.reduce((s, v) => s + Math.exp(v), 0)) - row[label]]
  })
  return [losses.reduce((a, b) => a + b, 0) / losses.length]
}

export const cases: OpCase[] = [
  {
    ops: ['crossEntropy', 'crossEntropyBackward'],
    f: (x) => crossEntropy(x, labelled),
    at: [[arg([4, 7])]],
    expected: (x) => meanLoss((r, j) => x.data[7 * r + j]),
    bounds: { float32: 16 * 2 ** -24, bfloat16: 16 * 2 ** -8 },
  },
  {
    ops: ['linearCrossEntropy', 'linearCrossEntropyBackward'],
    f: (x, weight, bias) => linearCrossEntropy(x, weight, labelled, { bias }),
    at: [[arg([4, 9]), arg([7, 9]), arg([7])]],
    expected: (x, w, b) =>
      meanLoss((r, j) => {
        let sum = b.data[j]
        for (let k = 0; k < 9; k++) sum += x.data[9 * r + k] * w.data[9 * j + k]
        return sum
      }),
    bounds: { float32: 64 * 2 ** -24, bfloat16: 64 * 2 ** -8 },
    perLevel: true,
  },
]
