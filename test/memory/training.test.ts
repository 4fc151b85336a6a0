import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { Trainer } from '../../lib/train/trainer.js'
import { METHODS } from './methods.js'
import { batches, filesOf, folder, Net, numbers, trained, worst } from './training.js'

describe.each(METHODS)('$name', ({ make }) => {
  test('learns, clipped or not, and leaves frozen parameters alone', async () => {
    for (const clip of [1, null]) {
      const { before, after, weights } = await trained(new Net('float32'), {
        optimizer: make(),
        clip,
        steps: 30,
        same: true,
      })
      expect(after).toBeLessThan(0.7 * before)
      expect(weights.frozen).toEqual([...Float32Array.from(numbers(6, 2))])
    }
  })

  test.each([null, 0.05])('takes k micro-batches as the one big batch (clip %s)', async (clip) => {
    const whole = await trained(new Net(), { optimizer: make(), clip })
    const cut = await trained(new Net(), { optimizer: make(), clip, accumulate: 4, cut: 4 })
    expect(worst(whole.weights, cut.weights)).toBeLessThan(1e-8)
  })

  test('resumes to the same bits, also between two choices of a space', async () => {
    const [one, two] = [folder(), folder()]
    const whole = await trained(new Net('float32'), { optimizer: make(), out: one, saveEvery: 5 })
    await trained(new Net('float32'), { optimizer: make(), out: two, saveEvery: 5, stopAfter: 5 })
    const resume = join(two, 'checkpoint-5')
    const rest = await trained(new Net('float32', 3), { optimizer: make(), out: two, saveEvery: 5, resume })
    expect(rest.weights).toEqual(whole.weights)
    expect(filesOf(join(two, 'checkpoint-7'))).toEqual(filesOf(join(one, 'checkpoint-7')))
  })

  test('gives the same bits with any number of threads', async () => {
    const all = []
    try {
      for (const threads of [1, 2, 5]) {
        native().threads(threads)
        all.push((await trained(new Net('float32'), { optimizer: make() })).weights)
      }
    } finally {
      native().threads(2)
    }
    expect(all[1]).toEqual(all[0])
    expect(all[2]).toEqual(all[0])
  })

  test('moves bfloat16 weights by less than their last bit', async () => {
    const { before, after } = await trained(new Net('bfloat16'), { optimizer: make(0.002), steps: 60, same: true })
    expect(after).toBeLessThan(0.95 * before)
  })

  test('changes its states in their own memory, with micro-batches too', () => {
    const trainer = new Trainer(new Net('float32') as never, { optimizer: make(), device: 'null' })
    for (const micros of [1, 3]) {
      for (const { externals } of trainer.plan(batches(1, 8, 1, 'float32')[0], micros)) {
        const apart = externals.filter((b) => b.label === 'output').reduce((n, b) => n + b.bytes, 0)
        // Loss and norm.
        expect(apart).toBeLessThanOrEqual(8)
      }
    }
    trainer.close()
  })

  test('says how many bytes its states are', () => {
    const optimizer = make()
    const { slots } = optimizer.init(new Net('float32'))
    const bytes = Object.fromEntries(
      Object.entries(slots).map(([slot, by]) => [
        slot,
        Object.values(by).reduce((n, t) => n + t.size * (t.dtype === 'uint8' ? 1 : 4), 0),
      ]),
    )
    expect(optimizer.stateBytes(new Net('float32'))).toEqual(bytes)
  })
})
