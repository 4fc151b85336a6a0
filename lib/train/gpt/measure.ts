import { evaluate, settled } from '../../graph/evaluate.js'
import { matmul } from '../../ops/matmul.js'
import { full } from '../../ops/shape.js'
import type { DType } from '../../tensor/dtype.js'

const SIDE = 768
const ROUNDS = 4

const known = new Map<DType, Promise<number>>()

/** Floating-point operations a second of a large product on all threads, the best of a few; takes a tenth of a second or two. */
export function measurePeak(dtype: DType): Promise<number> {
  let peak = known.get(dtype)
  if (!peak) known.set(dtype, (peak = measure(dtype)))
  return peak
}

async function measure(dtype: DType): Promise<number> {
  const a = full([SIDE, SIDE], 1, dtype)
  const b = full([SIDE, SIDE], 0.5, dtype)
  evaluate([a, b])
  let best = 0
  for (let i = 0; i <= ROUNDS; i++) {
    await settled([a, b])
    const began = performance.now()
    const c = matmul(a, b)
    evaluate([c])
    await settled([c])
    const seconds = (performance.now() - began) / 1000
    if (i > 0) best = Math.max(best, (2 * SIDE ** 3) / seconds)
  }
  return best
}
