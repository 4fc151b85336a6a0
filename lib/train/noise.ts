import { sgd } from '../optim/index.js'
import type { Setup } from './budget-setup.js'
import type { StepData } from './data.js'
import { splitBatches } from './split.js'
import { Trainer } from './trainer.js'

/**
 * How far a sampled gradient of the first micro-batch is expected to be from the exact one, beside its own norm: √(expected squared error) / norm,
 * as the first step is then going to report it. From one forward and backward pass, which leave weights and the model's state as they were. Undefined where nothing is
 * sampled, or where that pass does not go into `arena` bytes by itself.
 */
export async function gradientNoise(setup: Setup, data: StepData, arena: number): Promise<number | undefined> {
  const { model, clip, seed, activations, optimizer, split } = setup
  if (!('sampling' in model) || clip === null || optimizer.step) return undefined
  const trainer = new Trainer(model, { optimizer: sgd({ lr: 0 }), clip, seed, activations, arena, keepsState: true })
  try {
    const [batch] = splitBatches(data.microBatches, split)
    const [plan] = trainer.plan(batch, 1, data.weight !== undefined)
    if (plan.arenaBytes > arena) return undefined
    await trainer.materialize()
    const wait = await trainer.step([batch], { lr: 0, step: 1, normalizer: data.weight })
    const { gradNorm, metrics } = await wait()
    return Math.sqrt(Math.max(0, metrics.samplingVariance)) / gradNorm
  } finally {
    trainer.close()
    trainer.arena.release()
  }
}
