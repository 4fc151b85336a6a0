import { describe, expect, test } from 'vitest'
import { div, matmul, mean, mul, type Tensor, square, sub, sum, tensor } from '../../lib/index.js'
import type { Context } from '../../lib/nn/module.js'
import { sgd } from '../../lib/optim/index.js'
import type { StepData } from '../../lib/train/data.js'
import { HostArray } from '../../lib/train/host.js'
import { train } from '../../lib/train/train.js'

const w = () => tensor(Float64Array.of(0.5, 0.25, -1), { shape: [3, 1] })

/** The mean of squares. */
class Mean {
  w = w()
  loss({ x, y }: { x: Tensor; y: Tensor }): { loss: Tensor } {
    return { loss: mean(square(sub(matmul(x, this.w), y))) }
  }
}

/** The sum of weighted squares, by the weight of the step. */
class Weighted {
  w = w()
  loss({ x, y, weights }: { x: Tensor; y: Tensor; weights: Tensor }, { normalizer }: Context): { loss: Tensor } {
    const total = sum(mul(square(sub(matmul(x, this.w), y)), weights))
    return { loss: div(total, normalizer ?? sum(weights)) }
  }
}

const rows = 6
const x = Float64Array.from({ length: rows * 3 }, (_, i) => Math.sin(7 * i))
const y = Float64Array.from({ length: rows }, (_, i) => Math.cos(i))
const weights = Float64Array.of(1, 0, 2, 0.5, 1, 3)

/** Rows [from, to) as a batch. */
const part = (from: number, to: number, weighted: boolean) => ({
  x: new HostArray(x.slice(from * 3, to * 3), [to - from, 3]),
  y: new HostArray(y.slice(from, to), [to - from, 1]),
  ...(weighted ? { weights: new HostArray(weights.slice(from, to), [to - from, 1]) } : {}),
})

async function after(model: Mean | Weighted, data: Iterable<unknown>, accumulate: number, steps = 1) {
  const { loss } = await train(model, data as Iterable<StepData>, {
    optimizer: sgd({ lr: 0.1 }),
    steps,
    accumulate,
    clip: null,
  })
  return [loss, ...(await model.w.read())]
}

const near = (given: number[], expected: number[]) => given.forEach((v, i) => expect(v).toBeCloseTo(expected[i], 6))

describe('micro-batches give the gradient of the one big batch', () => {
  test.each([[[0, 3, 6]], [[0, 2, 4, 6]], [[0, 1, 3, 6]], [[0, 1, 2, 4, 6]]])('of a mean, cut at %j', async (cuts) => {
    const whole = await after(new Mean(), [part(0, rows, false)], 1)
    const micro = cuts.slice(1).map((to, i) => part(cuts[i], to, false))
    near(await after(new Mean(), micro, micro.length), whole)
  })

  test.each([[[0, 3, 6]], [[0, 1, 3, 6]], [[0, 1, 2, 6]]])('weighted by labels, cut at %j', async (cuts) => {
    const weight = weights.reduce((a, b) => a + b)
    const whole = await after(new Weighted(), [part(0, rows, true)], 1)
    const step = { microBatches: cuts.slice(1).map((to, i) => part(cuts[i], to, true)), weight, tokens: rows }
    near(await after(new Weighted(), [step], 1), whole)
    near(await after(new Weighted(), [{ microBatches: [part(0, rows, true)], weight, tokens: rows }], 1), whole)
  })

  test('step after step', async () => {
    const whole = await after(new Mean(), [part(0, 6, false), part(0, 6, false), part(0, 6, false)], 1, 3)
    const micro = [0, 1, 2].flatMap(() => [part(0, 2, false), part(2, 6, false)])
    near(await after(new Mean(), micro, 2, 3), whole)
  })
})
