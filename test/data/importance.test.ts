import { describe, expect, test } from 'vitest'
import { data } from '../../lib/index.js'

const all = (n: number) => Int32Array.from({ length: n }, (_, i) => i)

/** A sampler that has observed these scores, and been drawn from. */
async function with_(scores: readonly number[], seed = 0): Promise<data.Importance> {
  const sampler = data.importance(scores.length, { seed })
  sampler.observe(all(scores.length), scores)
  await sampler.draw(0, 1)
  return sampler
}

describe('importance', () => {
  test('has the probabilities of the formula', async () => {
    const sampler = await with_([1, 3, 0, 4])
    expect([...sampler.probabilities(0)]).toEqual([0.25, 0.25, 0.25, 0.25])
    expect([...sampler.probabilities(1)]).toEqual([0.125, 0.375, 0, 0.5])
    expect([...sampler.probabilities(0.5)]).toEqual([0.1875, 0.3125, 0.125, 0.375])
  })

  test('draws in proportion to them (chi-square), never what has none', async () => {
    const sampler = await with_([1, 3, 0, 4, 2])
    const n = 50_000
    const { ids } = await sampler.draw(n, 0.5)
    // A second draw without anything observed has the same probabilities.
    const p = sampler.probabilities(0.5)
    const counts = p.map((_, i) => ids.filter((id) => id === i).length)
    const chi = counts.reduce((s, c, i) => s + (c - n * p[i]) ** 2 / (n * p[i]), 0)
    expect(chi).toBeLessThan(23.5) // 4 degrees of freedom, 1e-4
    expect((await sampler.draw(n, 1)).ids.includes(2)).toBe(false)
  })

  test('weights make the mean over draws the mean over all, with the variance of the formula', async () => {
    const values = [2, -5, 1, 7, 3, 0.5]
    const mean = values.reduce((a, b) => a + b, 0) / 6
    const sampler = await with_(values.map(Math.abs))
    const n = 200_000
    const { ids, weights } = await sampler.draw(n, 0.7)
    const own = [...ids].map((id, i) => values[id] * weights[i])
    const p = sampler.probabilities(0.7)
    const variance = values.reduce((s, v, i) => s + v ** 2 / (36 * p[i]), 0) - mean ** 2
    const measured = own.reduce((a, b) => a + b, 0) / n
    expect(Math.abs(measured - mean)).toBeLessThan(4.5 * Math.sqrt(variance / n))
    expect(own.reduce((s, v) => s + (v - mean) ** 2, 0) / n / variance).toBeCloseTo(1, 1)
    // Smaller than with equal probabilities.
    expect(variance).toBeLessThan(values.reduce((s, v) => s + v ** 2 / 6, 0) - mean ** 2)
  })

  test.each([true, false])(
    'takes the mean of what comes again, and what does not come as it is told (%s)',
    async (forget) => {
      const sampler = data.importance(3, { forget })
      expect([...sampler.probabilities(1)]).toEqual([1 / 3, 1 / 3, 1 / 3])
      sampler.observe([0, 0, 1, 0], [1, 3, 4, 4])
      // Nothing changes before a draw.
      expect([...sampler.probabilities(1)]).toEqual([1 / 3, 1 / 3, 1 / 3])
      await sampler.draw(1, 1)
      // (1 + 3) / 2 and 4 are 3; the other never had a score.
      const scores = forget ? [3, 4, 0] : [3, 4, 3.5]
      const total = scores.reduce((a, b) => a + b, 0)
      expect([...sampler.probabilities(1)]).toEqual(scores.map((s) => s / total))
      sampler.observe([2], [5])
      await sampler.draw(1, 1)
      expect([...sampler.probabilities(1)]).toEqual(forget ? [0, 0, 1] : [3 / 12, 4 / 12, 5 / 12])
      sampler.observe([0, 1, 2], [0, 0, 0])
      await sampler.draw(1, 1)
      expect([...sampler.probabilities(1)]).toEqual([1 / 3, 1 / 3, 1 / 3])
    },
  )

  test('goes on from its state with the same draws', async () => {
    const one = await with_([1, 2, 3], 4)
    one.observe([1], [7])
    const two = data.importance(3, { seed: 4 })
    two.restore(JSON.parse(JSON.stringify(one.state())))
    expect(await two.draw(20, 0.9)).toEqual(await one.draw(20, 0.9))
    expect(await one.draw(20, 0.9)).not.toEqual(await (await with_([1, 2, 3], 5)).draw(20, 0.9))
    expect(() => data.importance(4).restore(one.state())).toThrow(/begun with/)
  })

  test('says what is wrong', async () => {
    expect(() => data.importance(0)).toThrow(/`n`/)
    const sampler = data.importance(2)
    expect(() => sampler.probabilities(1.1)).toThrow(/`share`/)
    expect(() => sampler.observe([2], [1])).toThrow(/\[0, 2\)/)
    expect(() => sampler.observe([0], [Number.NaN])).toThrow(/finite/)
    await expect(sampler.draw(-1, 0)).rejects.toThrow(/`count`/)
  })
})
