import { random } from '../ops/random.js'
import { sum } from '../ops/reduce.js'
import { evaluate, settled } from '../graph/evaluate.js'
import type { Tensor } from '../tensor/tensor.js'
import { compile } from '../transform/compile.js'
import { measurePeak } from './gpt/measure.js'
import type { Finding } from './machine.js'
import { bytes, quantity } from './plot-numbers.js'

/** Runs `f` five times or more, until it has taken this many milliseconds in all, and gives those of the quickest time. */
async function quickest(f: () => Promise<void>, budget: number): Promise<number> {
  await f()
  let best = Number.POSITIVE_INFINITY
  for (let spent = 0, runs = 0; spent < budget || runs < 5; runs++) {
    const began = performance.now()
    await f()
    const took = performance.now() - began
    best = Math.min(best, took)
    spent += took
  }
  return best
}

async function ready(...tensors: Tensor[]): Promise<void> {
  evaluate(tensors)
  await settled(tensors)
}

/** Bytes a second that the sum of a long vector reads: what elementwise work is bound by. */
async function measureBandwidth(): Promise<number> {
  const n = 1 << 24
  const x = random.uniform(random.key(0), [n])
  await ready(x)
  const total = compile((a: Tensor) => sum(a))
  const ms = await quickest(() => ready(total(x)), 250)
  return (4 * n) / (ms / 1000)
}

/** How fast this machine computes, for `steepest doctor`; takes about two seconds. */
export async function measureMachine(): Promise<Finding[]> {
  const single = await measurePeak('float32')
  const half = await measurePeak('bfloat16')
  return [
    { name: 'float32', value: `${quantity(single, 'FLOP')}/s`, ok: true },
    {
      name: 'bfloat16',
      value: `${quantity(half, 'FLOP')}/s${half < single ? ': slower than float32 here, as the CPU has no instructions for it' : ''}`,
      ok: true,
    },
    { name: 'bandwidth', value: `${bytes(await measureBandwidth())}/s`, ok: true },
  ]
}
