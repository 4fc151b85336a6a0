import { evaluate, settled } from '../../graph/evaluate.js'
import { matmul } from '../../ops/matmul.js'
import { full } from '../../ops/shape.js'
import type { DType } from '../../tensor/dtype.js'
import type { Tensor } from '../../tensor/tensor.js'
import { compile } from '../../transform/compile.js'

const SIDE = 1024
/** Products in one program, so that what a call costs does not count. */
const PRODUCTS = 4
/** Milliseconds after which no other round begins: a core needs some tens of them to run at its full clock. */
const BUDGET = 150
const LEAST_ROUNDS = 3

const known = new Map<DType, Promise<number>>()

/** Floating-point operations a second of large products on all threads, the best of a few rounds; takes some two tenths of a second. */
export function measurePeak(dtype: DType): Promise<number> {
  let peak = known.get(dtype)
  if (!peak) known.set(dtype, (peak = measure(dtype)))
  return peak
}

async function measure(dtype: DType): Promise<number> {
  const a = full([SIDE, SIDE], 1, dtype)
  const b = full([SIDE, SIDE], 1 / SIDE, dtype)
  evaluate([a, b])
  await settled([a, b])
  const chain = compile((x: Tensor, y: Tensor) => {
    for (let i = 0; i < PRODUCTS; i++) x = matmul(x, y)
    return x
  })
  let best = 0
  for (let spent = 0, round = 0; spent < BUDGET || round < LEAST_ROUNDS; round++) {
    const began = performance.now()
    const c = chain(a, b)
    evaluate([c])
    await settled([c])
    const ms = performance.now() - began
    best = Math.max(best, (2 * PRODUCTS * SIDE ** 3) / (ms / 1000))
    spent += ms
  }
  return best
}
