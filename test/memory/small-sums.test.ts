import { expect, test } from 'vitest'
import { memory, optim, random } from '../../lib/index.js'
import { galoreWith } from '../../lib/memory/galore.js'
import type { HostArray } from '../../lib/train/host.js'
import { Trainer } from '../../lib/train/trainer.js'
import { batches, folder, FROZEN, Net, trained, worst } from './training.js'

const adamw = () => optim.adamw({ lr: 0.02, weightDecay: 0.05, groups: FROZEN })
const options = { rank: 3, updateGap: 3, scale: 1 }

test('a space that is given: micro-batches summed small are the one big batch', async () => {
  for (const projType of ['std', 'reverseStd', 'full'] as const) {
    // Orthonormal, the same whichever gradient is looked at.
    const given: Parameters<typeof galoreWith>[2] = (_, projector) => projector.first(random.key(7))
    const make = (accumulation: 'whole' | 'small') => galoreWith(adamw(), { ...options, projType, accumulation }, given)
    for (const cut of [2, 4]) {
      const whole = await trained(new Net(), { optimizer: make('whole'), clip: null })
      const small = await trained(new Net(), { optimizer: make('small'), clip: null, accumulate: cut, cut })
      expect(worst(whole.weights, small.weights)).toBeLessThan(1e-10)
    }
  }
})

test('a space that is chosen: the first micro-batch decides, and training goes on as well', async () => {
  for (const more of [{}, { states: 'reset' }, { states: 'rotate' }, { method: 'svd', stagger: false }] as const) {
    const make = (accumulation: 'whole' | 'small') => memory.galore(adamw(), { ...options, ...more, accumulation })
    const run = (accumulation: 'whole' | 'small', cut: number) =>
      trained(new Net(), { optimizer: make(accumulation), accumulate: cut, cut, steps: 30, same: true })
    const small = await run('small', 4)
    expect(small.after).toBeLessThan(0.7 * small.before)
    // Where there is one micro-batch, there is nothing to be summed.
    const [one, alone] = [await run('whole', 1), await run('small', 1)]
    expect(worst(one.weights, alone.weights)).toBe(0)
  }
})

test('no gradient of a matrix is held from one micro-batch to the next', () => {
  const bytes = (optimizer: optim.Optimizer) => {
    const trainer = new Trainer(new Net('float32') as never, { optimizer, device: 'null' })
    const micro = batches(1, 16, 4, 'float32')
    const held = trainer.heldBytes(micro.length)
    // Every part can be planned.
    expect(trainer.plan(micro[0] as Record<string, HostArray>, micro.length).length).toBe(3)
    trainer.close()
    return held
  }
  const whole = bytes(memory.galore(adamw(), options))
  const small = bytes(memory.galore(adamw(), { ...options, accumulation: 'small' }))
  // 6×10, 10×8 and 8×12 become 3×10, 10×3 and 3×12; bias and head stay.
  expect(whole).toBe(4 * (60 + 10 + 80 + 96 + 24))
  expect(small).toBe(4 * (30 + 10 + 30 + 36 + 24))
  // A clip of the optimizer's own is one of gradients.
  const clipped = optim.adamw({ lr: 0.02, groups: FROZEN, clip: { globalNorm: 1 } })
  expect(bytes(memory.galore(clipped, { ...options, accumulation: 'small' }))).toBe(whole)
})

test('resumes to the same bits between two choices of a space', async () => {
  const make = () => memory.galore(adamw(), { ...options, states: 'reset', accumulation: 'small' })
  const [one, two] = [folder(), folder()]
  const how = { cut: 4, accumulate: 4, saveEvery: 5 }
  const whole = await trained(new Net('float32'), { optimizer: make(), out: one, ...how })
  await trained(new Net('float32'), { optimizer: make(), out: two, stopAfter: 5, ...how })
  const rest = await trained(new Net('float32', 3), {
    optimizer: make(),
    out: two,
    resume: `${two}/checkpoint-5`,
    ...how,
  })
  expect(rest.weights).toEqual(whole.weights)
})
