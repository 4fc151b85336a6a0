import { afterEach, describe, expect, test } from 'vitest'
import { device } from '../../lib/device.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { namedTensors } from '../../lib/nn/module.js'
import { adamw } from '../../lib/optim/index.js'
import { train } from '../../lib/train/train.js'
import { fibersLibrary } from './library.js'

const library = await fibersLibrary()

const context = 12
const rows = (from: number) => ({
  data: Int32Array.from({ length: 2 * context }, (_, i) => (5 * (i % context) + Math.floor(i / context) + from) % 11),
  shape: [2, context],
})

/** A small GPT after three steps with dropout on a device: its loss, and its weights by name. */
async function trainedOn(where: 'cpu' | 'cuda') {
  device(where)
  const model = new GPT2({ vocabSize: 11, context, layers: 1, heads: 2, width: 16, dropout: 0.2, seed: 3 })
  const data = Array.from({ length: 3 }, (_, i) => ({ inputIds: rows(i), targets: rows(i + 1) }))
  const { loss, step } = await train(model, data as never, { optimizer: adamw({ lr: 1e-2 }), steps: 3 })
  const weights: [string, Float32Array][] = []
  for (const [name, t] of Object.entries(namedTensors(model).parameters))
    weights.push([name, (await t.read()) as Float32Array])
  return { loss, step, weights }
}

describe.runIf(library)('training on fibers', () => {
  process.env.STEEPEST_CUDA_LIBRARY = library
  afterEach(() => {
    device('cpu')
  })

  test('a GPT learns what it learns on the CPU, with the same draws of dropout', async () => {
    const wanted = await trainedOn('cpu')
    const got = await trainedOn('cuda')
    expect(got.step).toBe(3)
    expect(Math.abs(got.loss - wanted.loss)).toBeLessThan(1e-5)
    expect(got.weights.map(([name]) => name)).toEqual(wanted.weights.map(([name]) => name))
    // A step is lr times a number of about one, also where a gradient is near nothing and its sign an accident of rounding.
    got.weights.forEach(([name, numbers], i) => {
      const apart = numbers.map((x, k) => Math.abs(x - wanted.weights[i][1][k]))
      expect(apart.filter((x) => x > 1e-4).length, name).toBeLessThan(0.02 * numbers.length + 1)
    })
  })
})

test.skipIf(library)('skipped: training on fibers (npm run fibers builds them)', () => {
  expect(library).toBeUndefined()
})
