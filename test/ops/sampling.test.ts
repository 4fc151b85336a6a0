import { describe, expect, test } from 'vitest'
import { mul } from '../../lib/ops/elementwise.js'
import { random } from '../../lib/ops/random.js'
import { rowNorms, sampleRows, type SampleRowsOptions, takeScaled } from '../../lib/ops/sampling.js'
import { broadcastTo, tensor, transpose } from '../../lib/ops/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { checkDerivatives, expectClose, noise, random as numbers } from './differences.js'
import { expectSameBits } from './threads.js'
import { cases as rowCases } from './cases/sampling.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const list = async (t: Tensor) => [...(await t.read())]
const MANY = 100_000

/** Norms whose logarithms have this spread. */
const uneven = (n: number, spread: number, seed = 1) => [...noise(n, seed)].map((v) => Math.exp(3 * spread * v))

/** The choices of many keys at once. */
async function many(norms: readonly number[], options: SampleRowsOptions) {
  const n = norms.length
  const keys = random.split(random.key(11), MANY)
  const all = broadcastTo(tensor(norms, { dtype: 'float64' }), [MANY, n])
  const { indices, weights, inverse } = sampleRows(all, keys, options)
  const [i, w, one] = await Promise.all([indices.read(), weights.read(), inverse.read()])
  return { indices: i, weights: w, inverse: [...one].slice(0, n) }
}

describe('rowNorms and takeScaled', () => {
  test('of any strides and leading axes', async () => {
    for (const shape of [[3, 4], [1, 1], [0, 3], [3, 0], [2, 5, 17], [40]]) {
      const x = numbers(shape, 3)
      const expected = (await list(mul(x, x))).reduce<number[]>((sums, v, i) => {
        const row = Math.floor(i / shape[shape.length - 1])
        sums[row] = (sums[row] ?? 0) + v
        return sums
      }, [])
      const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1)
      await expectClose(
        rowNorms(x, { squared: true }),
        tensor(
          Array.from({ length: rows }, (_, i) => expected[i] ?? 0),
          { shape: shape.slice(0, -1), dtype: 'float64' },
        ),
        1e-14,
      )
    }
    const x = numbers([6, 9], 4)
    const turned = tensor(await list(transpose(x)), { shape: [9, 6], dtype: 'float64' })
    await expectClose(rowNorms(transpose(x)), rowNorms(turned), 0)
    const pick = [tensor([1, 8, 1], { dtype: 'int32' }), tensor([1, 2, 3], { dtype: 'float64' })] as const
    await expectClose(takeScaled(transpose(x), ...pick), takeScaled(turned, ...pick), 0)
  })

  test('derivatives', async () => {
    await checkDerivatives((x) => rowNorms(x), [numbers([3, 5], 1)])
    const indices = tensor(
      [
        [2, 0, 2],
        [1, 1, 3],
      ],
      { dtype: 'int32' },
    )
    await checkDerivatives((x, w) => takeScaled(x, indices, w), [numbers([2, 4, 3], 1), numbers([2, 3], 2)])
  })

  test('refuse what does not fit', () => {
    expect(() => takeScaled(numbers([3, 2], 1), tensor([0], { dtype: 'int32' }), numbers([2], 1))).toThrow('[..., k]')
    expect(() => sampleRows(numbers([3], 1), random.key(0), { k: 4 })).toThrow('k must be a whole number in [0, 3]')
    expect(() => sampleRows(numbers([2, 3], 1), random.split(random.key(0), 3), { k: 1 })).toThrow('lead')
    expect(() => sampleRows(numbers([3], 1), random.key(0), { k: 1, drew: 'systematic' } as never)).toThrow('`draw`')
  })
})

describe('sampleRows', () => {
  test('draws the same for a key and a site, other rows for others', async () => {
    const norms = tensor(uneven(200, 0.4), { dtype: 'float64' })
    const chosen = async (key: Tensor, site: number) => list(sampleRows(norms, key, { k: 40, site }).indices)
    const first = await chosen(random.key(1), 0)
    expect(await chosen(random.key(1), 0)).toEqual(first)
    expect(await chosen(random.key(1), 1)).not.toEqual(first)
    expect(await chosen(random.key(2), 0)).not.toEqual(first)
  })

  test('the same bits for any number of threads', async () => {
    await expectSameBits(() =>
      (['winners', 'crs', 'topK'] as const).flatMap((method) =>
        (['systematic', 'replacement'] as const).flatMap((draw) => {
          const norms = tensor(uneven(5 * 300, 0.8), { shape: [5, 300], dtype: 'float32' })
          const { indices, weights, inverse } = sampleRows(norms, random.key(3), { k: 90, method, draw })
          return [indices, weights, inverse]
        }),
      ),
    )
  })

  test('gains: unknown ones count as the mean, small ones as the floor, and none at all as one', async () => {
    const norms = tensor([1, 1, 1, 1, 1, 1], { dtype: 'float64' })
    const probs = async (gains: number[], floor = 0) => {
      const how = { k: 1, method: 'crs', gains: tensor(gains, { dtype: 'float64' }), floor } as const
      const { inverse } = sampleRows(norms, random.key(0), how)
      return (await list(inverse)).map((w) => (w ? 1 / w : 0))
    }
    const close = (a: number[], b: number[]) => a.forEach((v, i) => expect(v).toBeCloseTo(b[i], 12))
    close(
      await probs([1, 2, 3, -1, -1, 2]),
      [1, 2, 3, 2, 2, 2].map((g) => g / 12),
    )
    close(
      await probs([0, 2, 4, 0, 2, 4], 0.5),
      [1, 2, 4, 1, 2, 4].map((g) => g / 14),
    )
    close(await probs([0, 0, 0, 0, 0, 0], 0.5), new Array<number>(6).fill(1 / 6))
    close(await probs([-1, -1, -1, -1, -1, -1]), new Array<number>(6).fill(1 / 6))
  })

  test.each(['systematic', 'replacement'] as const)(
    '%s draws are as frequent as they should be (chi-square)',
    async (draw) => {
      const norms = uneven(24, 0.5)
      const k = 8
      const { indices, inverse } = await many(norms, { k, draw })
      const counts = norms.map(() => 0)
      for (const i of indices) counts[i]++
      let chi = 0
      let freedom = -1
      counts.forEach((count, i) => {
        if (inverse[i] === 0) expect(count).toBe(MANY)
        else {
          const expected = MANY / inverse[i]
          // A systematic draw takes a row at most once: its count varies less than Poisson's.
          chi += (count - expected) ** 2 / (expected * (draw === 'systematic' ? 1 - 1 / inverse[i] : 1))
          freedom++
        }
      })
      expect(freedom).toBeGreaterThan(10)
      // Five standard deviations of a chi-square variable; systematic draws depend on each other, which the count of freedom leaves out.
      expect(chi).toBeLessThan(freedom + 1 + 5 * Math.sqrt(2 * (freedom + 1)) + (draw === 'systematic' ? freedom : 0))
      expect(chi).toBeGreaterThan(0.1)
    },
  )

  test.each([
    ['winners', 'systematic'],
    ['winners', 'replacement'],
    ['crs', 'replacement'],
    ['crs', 'systematic'],
  ] as const)(
    '%s with %s draws: the mean of 100,000 estimates is the sum, with the error that is told',
    async (method, draw) => {
      const [n, d, k] = [24, 6, 8]
      const rows = Array.from({ length: n }, (_, i) =>
        [...noise(d, 40 + i)].map((v) => v * Math.exp(2 * noise(n, 9)[i])),
      )
      const size = rows.map((r) => Math.hypot(...r))
      // Scores that are stale: off by a factor of up to e.
      const { indices, weights, inverse } = await many(
        size.map((s, i) => s * Math.exp(noise(n, 77)[i])),
        { k, method, draw },
      )
      const exact = rows[0].map((_, e) => rows.reduce((sum, r) => sum + r[e], 0))
      const mean = exact.map(() => 0)
      const square = exact.map(() => 0)
      let error = 0
      for (let t = 0; t < MANY; t++) {
        const estimate = exact.map(() => 0)
        for (let j = t * k; j < (t + 1) * k; j++)
          for (let e = 0; e < d; e++) estimate[e] += weights[j] * rows[indices[j]][e]
        estimate.forEach((v, e) => {
          mean[e] += v / MANY
          square[e] += v ** 2 / MANY
          error += (v - exact[e]) ** 2 / MANY
        })
      }
      mean.forEach((m, e) => {
        const deviation = Math.sqrt((square[e] - m ** 2) / MANY)
        expect(Math.abs(m - exact[e])).toBeLessThan(5 * deviation)
      })
      const drawn = inverse.map((w) => w > 0)
      const draws = inverse.reduce((sum, w) => sum + (w > 0 ? 1 / w : 0), 0)
      const part = exact.map((_, e) => rows.reduce((sum, r, i) => sum + (drawn[i] ? r[e] : 0), 0))
      const spread = inverse.reduce((sum, w, i) => sum + w * size[i] ** 2, 0)
      const told = spread - part.reduce((s, v) => s + v ** 2, 0) / draws
      if (draw === 'replacement') expect(Math.abs(error / told - 1)).toBeLessThan(0.03)
      else expect(error).toBeLessThan(told * 1.03)
    },
  )

  test('systematic draws without a choice of winners may take a row more than once, and stay right', async () => {
    const { indices, weights } = await many([10, 1, 1, 1, 1], { k: 3, method: 'crs' })
    const total = [0, 0, 0, 0, 0]
    indices.forEach((i, j) => (total[i] += weights[j] / MANY))
    total.forEach((t) => expect(Math.abs(t - 1)).toBeLessThan(0.03))
  })
})
