import { expect, test } from 'vitest'
import { sampled } from '../../lib/memory/index.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { adamw } from '../../lib/optim/index.js'
import { choiceLine } from '../../lib/train/budget.js'
import type { Setup } from '../../lib/train/budget-setup.js'
import type { StepData } from '../../lib/train/data.js'
import { HostArray } from '../../lib/train/host.js'
import { gradientNoise } from '../../lib/train/noise.js'
import { Trainer } from '../../lib/train/trainer.js'

const CONTEXT = 32
const ROWS = 4
const model = () => new GPT2({ vocabSize: 97, context: CONTEXT, layers: 2, heads: 2, width: 32, seed: 3 })
const ids = new HostArray(
  Int32Array.from({ length: ROWS * CONTEXT }, (_, i) => (i * 37) % 97),
  [ROWS, CONTEXT],
)
const numbers = new HostArray(Int32Array.from({ length: ROWS }, (_, i) => i))
const data: StepData = { microBatches: [{ inputIds: ids, targets: ids, ids: numbers }], tokens: ROWS * CONTEXT }
const setupOf = (ratio: number, seed = 5): Setup => {
  return { model: sampled(model(), { ratio }), optimizer: adamw({ lr: 1e-2 }), seed, split: 1 }
}

async function trained(setup: Setup, steps: number) {
  const trainer = new Trainer(setup.model, setup)
  await trainer.materialize()
  const results = []
  for (let step = 1; step <= steps; step++)
    results.push(await (await trainer.step(data.microBatches, { lr: 1e-2, step }))())
  trainer.close()
  return results
}

test('the noise that is predicted is that of the first step, and predicting it changes nothing', async () => {
  const looked = setupOf(0.3)
  const noise = (await gradientNoise(looked, data, Infinity))!
  const after = await trained(looked, 3)
  expect(noise).toBeGreaterThan(0.01)
  expect(noise).toBeCloseTo(Math.sqrt(after[0].metrics.samplingVariance) / after[0].gradNorm, 6)
  expect(after).toEqual(await trained(setupOf(0.3), 3))
  // Fewer rows, more noise.
  expect(await gradientNoise(setupOf(0.8), data, Infinity)).toBeLessThan(noise)
})

test('nothing is predicted where nothing is sampled, or where there is no room for it', async () => {
  expect(await gradientNoise({ ...setupOf(0.3), model: model() }, data, Infinity)).toBeUndefined()
  expect(await gradientNoise(setupOf(0.3), data, 1000)).toBeUndefined()
})

test('the choice tells it', () => {
  const choice = { methods: ['x'], total: 1e6, slowdown: 1, exact: false }
  expect(choiceLine(2e6, choice as never, 0.123)).toMatch(/gradient noise of about 12%$/)
  expect(choiceLine(2e6, choice as never)).not.toMatch(/noise/)
})
