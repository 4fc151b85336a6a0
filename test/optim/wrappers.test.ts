import { describe, expect, test } from 'vitest'
import { compile, type DType, optim, readAll, sum, tensor, type Tensor, zeros } from '../../lib/index.js'
import { normals, worst } from './reference.js'

const n = 7
type P = { w: Tensor; b: Tensor }
const at = (numbers: number[], dtype: DType = 'float64') => tensor(Float64Array.from(numbers), { dtype })
const start = (dtype: DType = 'float64'): P => ({ w: at(normals(1, n), dtype), b: at(normals(2, 2), dtype) })
const slopes = (t: number) => ({ w: normals(10 + t, n), b: normals(50 + t, 2) })

async function drive(opt: optim.Optimizer, steps: number, dtype: DType = 'float64') {
  let params = start(dtype)
  let state = opt.init(params)
  const step = compile((p: P, s: optim.OptimizerState, g: P) => opt.update(p, g, s), { donate: [0, 1] })
  const seen: { w: number[]; used: number[] }[] = []
  for (let t = 1; t <= steps; t++) {
    const g = slopes(t)
    ;({ params, state } = step(params, state, { w: at(g.w, dtype), b: at(g.b, dtype) }))
    const used = opt.evalParams(params, state)
    const [w, u] = await readAll([params.w, used.w])
    seen.push({ w: [...w], used: [...u] })
  }
  return { seen, state, params }
}

describe('averaged', () => {
  test.each([
    { decay: 0.9 },
    { decay: 0.99, warmup: true },
    { decay: 0.8, start: 3 },
    { decay: 0.7, every: 2 },
    { decay: 0.7, every: 3, start: 2, warmup: true },
  ])('is what loops do: %j', async (options) => {
    const { decay, warmup = false, start: first = 0, every = 1 } = options as optim.AveragedOptions & { decay: number }
    const w = normals(1, n)
    const mean = [...w]
    const { seen } = await drive(optim.averaged(optim.sgd({ lr: 0.1 }), options), 9)
    for (let t = 1; t <= 9; t++) {
      const g = slopes(t).w
      for (let i = 0; i < n; i++) {
        w[i] -= 0.1 * g[i]
        const k = t - first
        const keep = warmup ? Math.min(decay, (1 + k) / (10 + k)) : decay
        if (k <= 0) mean[i] = w[i]
        else if (k % every === 0) mean[i] = keep * mean[i] + (1 - keep) * w[i]
      }
      expect(worst(seen[t - 1].w, w)).toBeLessThan(1e-13)
      expect(worst(seen[t - 1].used, mean)).toBeLessThan(1e-13)
    }
  })

  test('keeps a float32 average of bfloat16 weights', async () => {
    const { seen, state } = await drive(optim.averaged(optim.sgd({ lr: 1e-3 }), { decay: 0.5 }), 4, 'bfloat16')
    expect(state.slots.average.w.dtype).toBe('float32')
    expect(worst(seen[3].used, normals(1, n))).toBeLessThan(0.02)
  })
})

describe('lookahead', () => {
  test('is what loops do, with the states of what it wraps left as they are', async () => {
    const [k, alpha, lr, momentum] = [3, 0.4, 0.1, 0.9]
    const { seen } = await drive(optim.lookahead(optim.sgd({ lr, momentum }), { k, alpha }), 10)
    const w = normals(1, n)
    const [slow, m] = [[...w], new Array<number>(n).fill(0)]
    for (let t = 1; t <= 10; t++) {
      const g = slopes(t).w
      for (let i = 0; i < n; i++) {
        m[i] = t === 1 ? g[i] : momentum * m[i] + g[i]
        w[i] -= lr * m[i]
        if (t % k === 0) w[i] = slow[i] = slow[i] + alpha * (w[i] - slow[i])
      }
      expect(worst(seen[t - 1].w, w)).toBeLessThan(1e-13)
    }
  })

  test.each(['master', 'nearest'] as const)('puts bfloat16 weights where the slow ones are, %s', async (rounding) => {
    for (const base of [optim.sgd({ lr: 1e-3, rounding }), optim.lionK({ lr: 1e-3, rounding })]) {
      const { state, params } = await drive(optim.lookahead(base, { k: 2 }), 4, 'bfloat16')
      const [w, slow] = await readAll([params.w, state.slots.slow.w])
      expect(worst(w, slow)).toBeLessThan(2 ** -8)
    }
  })
})

describe('larc', () => {
  test.each([true, false])('is what loops do, clip %s', async (clip) => {
    const [c, decay, lr] = [0.05, 0.1, 0.3]
    const opt = optim.larc(optim.sgd({ lr }), { trustCoeff: c, weightDecay: decay, clip })
    const { seen } = await drive(opt, 5)
    const w = normals(1, n)
    for (let t = 1; t <= 5; t++) {
      const g = slopes(t).w
      const [size, slope] = [Math.hypot(...w), Math.hypot(...g)]
      const own = (c * size) / (slope + decay * size + 1e-8)
      const ratio = clip ? Math.min(own / lr, 1) : own
      for (let i = 0; i < n; i++) w[i] -= lr * ratio * (g[i] + decay * w[i])
      expect(worst(seen[t - 1].w, w)).toBeLessThan(1e-12)
    }
  })

  test('leaves a weight that is zero its gradient', async () => {
    const opt = optim.larc(optim.sgd({ lr: 1 }))
    const p = { w: zeros([3]) }
    const { params } = opt.update(p, { w: tensor([1, 2, 3]) }, opt.init(p))
    expect([...(await params.w.read())]).toEqual([-1, -2, -3])
  })
})

describe('gradient noise', () => {
  const size = 40_000
  const noiseAt = async (step: number, options: optim.GradientNoiseOptions, clip?: optim.ClipOptions) => {
    const opt = optim.gradientNoise(optim.sgd({ lr: 1, clip }), options)
    const p = { w: zeros([size], 'float64'), other: zeros([size], 'float64') }
    const state = { ...opt.init(p), step: tensor(step, { dtype: 'int32' }) }
    const { params } = opt.update(p, { w: zeros([size], 'float64'), other: zeros([size], 'float64') }, state)
    return readAll([params.w, params.other])
  }
  const variance = (x: ArrayLike<number>) => Array.from(x).reduce((s, v) => s + v * v, 0) / x.length

  test.each([0, 100, 1000])(
    'has the variance of the formula after %i steps, another for every parameter',
    async (t) => {
      const [w, other] = await noiseAt(t, { eta: 0.3 })
      expect(variance(w) / (0.3 / (1 + t) ** 0.55)).toBeCloseTo(1, 1)
      expect(variance(other) / (0.3 / (1 + t) ** 0.55)).toBeCloseTo(1, 1)
      const together = w.reduce((s, v, i) => s + v * other[i], 0) / size / variance(w)
      expect(Math.abs(together)).toBeLessThan(0.03)
      const [next] = await noiseAt(t + 1, { eta: 0.3 })
      expect(Math.abs(w.reduce((s, v, i) => s + v * next[i], 0) / size / variance(w))).toBeLessThan(0.03)
    },
  )

  test('comes after the clip, or before it where asked for', async () => {
    const [after] = await noiseAt(0, { eta: 1 }, { globalNorm: 1 })
    expect(Math.sqrt(variance(after) * size)).toBeGreaterThan(100)
    const [w, other] = await noiseAt(0, { eta: 1, first: 'noise' }, { globalNorm: 1 })
    expect(Math.sqrt((variance(w) + variance(other)) * size)).toBeCloseTo(1, 4)
  })
})

describe('wrappers around wrappers', () => {
  test('do what each does, whatever is inside', async () => {
    const stack = () =>
      optim.averaged(
        optim.lookahead(optim.gradientNoise(optim.larc(optim.adamw({ lr: 0.05 })), { eta: 1e-4 }), { k: 2 }),
        { decay: 0.5 },
      )
    expect(stack().name).toBe('averaged(lookahead(gradientNoise(larc(adamw))))')
    const { state } = await drive(stack(), 4)
    expect(Object.keys(state.slots).sort()).toEqual(['average', 'm', 'slow', 'v'])
    expect(Object.keys(stack().stateBytes(start())).sort()).toEqual(['average', 'm', 'slow', 'v'])
  })

  test('go through optimizers that look at the objective', async () => {
    const opt = optim.averaged(optim.gradientNoise(optim.sam(optim.sgd({ lr: 0.1 })), { eta: 1e-6 }), { decay: 0.5 })
    const p = start()
    const next = opt.step!(
      optim.objective((q: P) => sum(q.w)),
      p,
      opt.init(p),
    )
    const [w, average, was] = await readAll([next.params.w, next.state.slots.average.w, p.w])
    expect(
      worst(
        w,
        was.map((v) => v - 0.1),
      ),
    ).toBeLessThan(1e-3)
    expect(
      worst(
        average,
        was.map((v, i) => (v + w[i]) / 2),
      ),
    ).toBeLessThan(1e-12)
  })

  test('of one kind twice are an error', () => {
    const twice = optim.averaged(optim.averaged(optim.sgd()))
    expect(() => twice.init(start())).toThrow('Use one of these wrappers only')
    expect(() => optim.averaged(optim.sgd(), { decay: 1 })).toThrow('`decay`')
    expect(() => optim.lookahead(optim.sgd(), { k: 0 })).toThrow('`k`')
    expect(() => optim.gradientNoise(optim.sgd(), { eta: 0 })).toThrow('`eta`')
    expect(() => optim.larc(optim.sgd(), { eps: -1 })).toThrow('`eps`')
    expect(() => optim.muon({ variant: 'x' as 'torch' })).toThrow('`variant`')
    expect(() => optim.soap({ preconditionFrequency: 0 })).toThrow('`preconditionFrequency`')
    expect(() => optim.newtonSchulz(zeros([3]))).toThrow('matrices')
    expect(() => optim.adagradNorm({ b0: -1 })).toThrow('`b0`')
  })
})

describe('Muon', () => {
  test('gives tables, vectors and what a group says to its AdamW', async () => {
    const params = {
      'transformer.wte.weight': zeros([4, 4]),
      'h.0.weight': zeros([4, 4]),
      'h.0.bias': zeros([4]),
      'h.1.weight': zeros([4, 4]),
    }
    const opt = optim.muon({ groups: [{ match: /h\.1/, auxiliary: true }] })
    const { slots } = opt.init(params)
    expect(Object.keys(slots.v).sort()).toEqual(['h.0.bias', 'h.1.weight', 'transformer.wte.weight'])
    expect(Object.keys(slots.m)).toHaveLength(4)
    const table = optim.muon({ groups: [{ match: /wte/, auxiliary: false }] }).init(params)
    expect(table.slots.v).not.toHaveProperty(['transformer.wte.weight'])
    expect(opt.moved(params).sort()).toEqual(Object.keys(params).sort())
  })

  test('its AdamW follows the schedule in proportion, and the clip is over all', async () => {
    const schedule = optim.schedules.linear({ lr: 0.02, steps: 10 })
    const opt = optim.muon({ lr: schedule, auxiliary: { lr: 1e-3, weightDecay: 0 }, clip: { globalNorm: 1 } })
    const p = { w: zeros([2, 2], 'float64'), b: zeros([2], 'float64') }
    const g = { w: at([3, 0, 0, 0]), b: at([4, 4]) }
    const next = opt.update(
      p,
      {
        w: tensor(
          [
            [3, 0],
            [0, 0],
          ],
          { dtype: 'float64' },
        ),
        b: g.b,
      },
      opt.init(p),
      { lr: opt.lrAt(6) },
    )
    expect(await next.norm!.item()).toBeCloseTo(Math.sqrt(41), 12)
    // Half of the way down: Adam's first step is the rate.
    expect(worst(await next.params.b.read(), [-5e-4, -5e-4])).toBeLessThan(1e-6)
  })
})
