import { describe, expect, test } from 'vitest'
import { memory, optim } from '../../lib/index.js'
import { far, matrix, walk } from './steps.js'
import { numbers as numbersOf } from './training.js'

const shapes = { a: [7, 4], bb: [4, 9] } as const
const options = { rank: 2, updateGap: 3, alpha: 0.5, stagger: false, method: 'svd' as const }

describe('Fira', () => {
  test('is GaLore where the space has all dimensions', async () => {
    const all = { ...options, rank: 99 }
    const { alpha, ...rest } = all
    const fira = await walk(memory.fira(optim.adamw({ lr: 0.1 }), all), shapes, 5)
    const galore = await walk(memory.galore(optim.adamw({ lr: 0.1 }), { ...rest, scale: alpha }), shapes, 5)
    for (const k of ['a', 'bb']) expect(far(fira[4].weights[k], galore[4].weights[k])).toBeLessThan(1e-12)
  })

  test('of SGD, unlimited and with α of 1, is SGD', async () => {
    // The step inside is the gradient itself, so what is outside is scaled by one.
    const sgd = () => optim.sgd({ lr: 0.1 })
    const low = await walk(memory.fira(sgd(), { ...options, alpha: 1, limiter: null }), shapes, 5)
    const whole = await walk(sgd(), shapes, 5)
    for (const k of ['a', 'bb']) expect(far(low[4].weights[k], whole[4].weights[k])).toBeLessThan(1e-7)
  })

  test('lets what is outside grow by no more than its limit', async () => {
    const grow = (t: number, name: string, [m, n]: readonly [number, number]) =>
      matrix(t + name.length, m, n).mul(3 ** t)
    // Of SGD, what is outside grows as gradients do.
    const sgd = () => optim.sgd({ lr: 1e-3 })
    for (const limiter of [1.01, 1.2]) {
      const shots = await walk(memory.fira(sgd(), { ...options, limiter }), shapes, 10, grow)
      for (let t = 1; t < 10; t++)
        expect(shots[t].slots.norm.a[0] / shots[t - 1].slots.norm.a[0]).toBeLessThanOrEqual(limiter * (1 + 1e-6))
    }
    const free = await walk(memory.fira(sgd(), { ...options, limiter: 10 }), shapes, 10, grow)
    const ratios = free.slice(1).map(({ slots }, t) => slots.norm.a[0] / free[t].slots.norm.a[0])
    expect(Math.max(...ratios)).toBeGreaterThan(1.2)
  })

  test('takes a clipped gradient as one that was that short', async () => {
    const adam = (clip?: optim.ClipOptions) => optim.adamw({ lr: 0.1, eps: 1e-3, clip })
    const short = (t: number, name: string, [m, n]: readonly [number, number]) =>
      matrix(10 * t + name.length, m, n).mul(1e-2)
    const clipped = await walk(memory.fira(adam({ norm: 0.05 }), options), { a: [7, 4] }, 4)
    const given = await walk(memory.fira(adam({ norm: 0.05 }), options), { a: [7, 4] }, 4, short)
    const free = await walk(memory.fira(adam(), options), { a: [7, 4] }, 4, short)
    // Norms are about 0.04 when short, so the limit does nothing to them.
    expect(far(given[3].weights.a, free[3].weights.a)).toBe(0)
    expect(far(clipped[3].weights.a, free[3].weights.a)).toBeGreaterThan(1e-4)
    const scaled = await walk(memory.fira(adam(), options), { a: [7, 4] }, 1, (t, name, [m, n]) => {
      const g = matrix(10 * t + name.length, m, n)
      const norm = Math.hypot(...Array.from({ length: m * n }, (_, i) => numbersOf(10 * t + name.length, m * n)[i]))
      return g.mul(Math.min(1, 0.05 / (norm + 1e-6)))
    })
    expect(far(clipped[0].weights.a, scaled[0].weights.a)).toBeLessThan(1e-12)
  })

  test('has the states of GaLore, and one number per matrix', () => {
    const params = { a: matrix(1, 7, 4), bb: matrix(2, 4, 9) }
    const { norm, ...rest } = memory.fira(optim.adamw(), { rank: 2 }).stateBytes(params)
    expect(norm).toBe(2 * 8)
    expect(rest).toEqual(memory.galore(optim.adamw(), { rank: 2 }).stateBytes(params))
  })

  test('refuses rules that look at the weights, and scales that are not there', () => {
    expect(() => memory.fira(optim.lamb()).init({ a: matrix(1, 3, 2) })).toThrow(/proportional to the learning rate/)
    expect(() => memory.fira(optim.adamw(), { projType: 'full' })).toThrow(/scaling: 'matrix'/)
    expect(() => memory.fira(optim.adamw(), { limiter: 1 })).toThrow(/`limiter` must be in \(1, ∞\)/)
    expect(() => memory.fira(optim.adamw(), { scale: 1 } as never)).toThrow(/scale/)
  })
})
