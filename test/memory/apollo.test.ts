import { describe, expect, test } from 'vitest'
import { memory, optim, random, tensor } from '../../lib/index.js'
import { far, matrix, walk } from './steps.js'
import { numbers } from './training.js'

const shapes = { a: [7, 4], bb: [4, 9] } as const

/** The authors' step on one matrix, in plain numbers. */
async function reference(
  [m, n]: readonly [number, number],
  rank: number,
  o: { lr: number; scale: number; tensor: boolean; limit: number; decay: number },
  keys: readonly (readonly number[])[],
  name: string,
) {
  const left = m < n
  const side = left ? m : n
  const w = [...numbers(1, m * n)]
  const [lowRows, lowCols] = left ? [rank, n] : [m, rank]
  const [mean, square] = [new Float64Array(lowRows * lowCols), new Float64Array(lowRows * lowCols)]
  let before = -1
  for (let t = 1; t <= keys.length; t++) {
    const g = numbers(10 * t + name.length, m * n)
    const key = tensor(Int32Array.from(keys[t - 1]), { shape: [2] })
    const drawn = await random.normal(key, [side, rank], { dtype: 'float64' }).read()
    const p = drawn.map((x) => x / Math.sqrt(rank))
    const low = Float64Array.from({ length: lowRows * lowCols }, (_, at) => {
      const [i, j] = [Math.floor(at / lowCols), at % lowCols]
      let sum = 0
      for (let k = 0; k < side; k++) sum += left ? p[k * rank + i] * g[k * n + j] : g[i * n + k] * p[k * rank + j]
      return sum
    })
    const direction = low.map((x, i) => {
      mean[i] = 0.9 * mean[i] + 0.1 * x
      square[i] = 0.999 * square[i] + 0.001 * x * x
      return mean[i] / (Math.sqrt(square[i]) + 1e-6)
    })
    const normOf = (x: Float64Array, channel: number) => {
      let sum = 0
      for (let i = 0; i < lowRows; i++)
        for (let j = 0; j < lowCols; j++) if (o.tensor || (left ? j : i) === channel) sum += x[i * lowCols + j] ** 2
      return Math.sqrt(sum)
    }
    const scaled = g.map((x, at) => {
      const channel = left ? at % n : Math.floor(at / n)
      return (x * normOf(direction, channel) * Math.sqrt(o.scale)) / (normOf(low, channel) + 1e-8)
    })
    const size = Math.hypot(...scaled)
    const divisor = before < 0 ? 1 : Math.max(size / (before + 1e-8), o.limit) / o.limit
    before = size / divisor
    const rate = (o.lr * Math.sqrt(1 - 0.999 ** t)) / (1 - 0.9 ** t)
    scaled.forEach((x, i) => (w[i] = (w[i] - (rate * x) / divisor) * (1 - o.lr * o.decay)))
  }
  return w
}

describe('APOLLO', () => {
  test.each([
    { mini: false, rank: 2 },
    { mini: true, rank: 1 },
  ])('is the authors’ step (mini: $mini)', async ({ mini, rank }) => {
    const adam = optim.adamwHf({ lr: 0.02, weightDecay: 0.1 })
    const common = { scale: 4, updateGap: 3, stagger: false }
    const optimizer = mini ? memory.apolloMini(adam, common) : memory.apollo(adam, { ...common, rank })
    const shots = await walk(optimizer, shapes, 7)
    for (const name of ['a', 'bb'] as const) {
      const keys = shots.map(({ slots }) => [...slots.directions[name]])
      // Another choice at every third step.
      expect(new Set(keys.map(String)).size).toBe(3)
      const o = { lr: 0.02, scale: 4, tensor: mini, limit: 1.01, decay: 0.1 }
      expect(far(await reference(shapes[name], rank, o, keys, name), shots[6].weights[name])).toBeLessThan(1e-12)
    }
  })

  test('of SGD, unlimited and with a scale of 1, is SGD', async () => {
    const sgd = () => optim.sgd({ lr: 0.1, weightDecay: 0.2 })
    for (const scaling of ['channel', 'tensor'] as const) {
      const own = await walk(memory.apollo(sgd(), { rank: 2, limiter: null, scaling, updateGap: 2 }), shapes, 5)
      const whole = await walk(sgd(), shapes, 5)
      for (const k of ['a', 'bb']) expect(far(own[4].weights[k], whole[4].weights[k])).toBeLessThan(1e-7)
    }
  })

  test('keeps a key in the place of a basis', () => {
    const bytes = memory.apollo(optim.adamw(), { rank: 3 }).stateBytes({ w: matrix(1, 24, 40) })
    expect(bytes).toEqual({ m: 8 * 3 * 40, v: 8 * 3 * 40, directions: 8, due: 4, norm: 8 })
    const mini = memory.apolloMini(optim.adamw()).stateBytes({ w: matrix(1, 24, 40) })
    expect(mini).toEqual({ m: 8 * 40, v: 8 * 40, directions: 8, due: 4, norm: 8 })
  })

  test('refuses what it cannot run on', () => {
    expect(() => memory.apollo(optim.lamb()).init({ a: matrix(1, 3, 2) })).toThrow(/proportional to the learning rate/)
    expect(() => memory.apollo(optim.adamw(), { projType: 'full' as never })).toThrow(/must be std/)
    expect(() => memory.apolloMini(optim.adamw(), { rank: 2 } as never)).toThrow(/rank/)
  })
})
