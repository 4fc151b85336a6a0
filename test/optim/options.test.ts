import { describe, expect, test } from 'vitest'
import { compile, full, optim, readAll, tensor, type Tensor, zeros } from '../../lib/index.js'
import { worst } from './reference.js'

const value = async (t: Tensor) => [...(await t.read())]

describe('parameters', () => {
  class Layer {
    weight = tensor([
      [1, 2],
      [3, 4],
    ])
    bias = tensor([1, 1])
  }
  class Model {
    a = new Layer()
    b = new Layer()
  }
  const ones = (model: Model) => ({
    ...model,
    a: { weight: full([2, 2], 1), bias: full([2], 1) },
    b: { weight: full([2, 2], 1), bias: full([2], 1) },
  })

  test('are those of a module; groups choose by pattern, name or function, later ones win', async () => {
    const opt = optim.sgd({
      lr: 0.5,
      groups: [
        { match: /^a\./, lrScale: 2 },
        { match: ['a.bias', 'b.bias'], frozen: true },
        { match: (name, p) => name.startsWith('b') && p.rank === 2, weightDecay: 1 },
      ],
    })
    const model = new Model()
    const { params } = opt.update(model, ones(model), opt.init(model))
    expect(params).toBeInstanceOf(Model)
    expect(await value(params.a.weight)).toEqual([0, 1, 2, 3])
    expect(await value(params.b.weight)).toEqual([0, 0.5, 1, 1.5])
    expect(await value(params.a.bias)).toEqual([1, 1])
    expect(params.b.bias).toBe(model.b.bias)
  })

  test('get no decay where they have fewer than two axes, by the group for that', async () => {
    const opt = optim.adamw({ lr: 0.1, weightDecay: 5, groups: [optim.noDecay] })
    const model = new Model()
    const { params } = opt.update(
      model,
      { 'a.weight': zeros([2, 2]), 'a.bias': zeros([2]), 'b.weight': zeros([2, 2]), 'b.bias': zeros([2]) },
      opt.init(model),
    )
    expect(await value(params.a.bias)).toEqual([1, 1])
    expect(await value(params.a.weight)).toEqual([0.5, 1, 1.5, 2])
  })

  test('that occur twice move once, by the sum of both gradients', async () => {
    const tied = tensor([1, 2])
    const opt = optim.sgd({ lr: 1 })
    const model = { in: tied, out: tied }
    const { params } = opt.update(model, { in: tensor([1, 0]), out: tensor([0, 1]) }, opt.init(model))
    expect(params.in).toBe(params.out)
    expect(await value(params.in)).toEqual([0, 1])
  })

  test('may use another rule of the family in a group', async () => {
    const opt = optim.sgd({ lr: 1, groups: [{ match: ['a'], momentum: 0.5 }] })
    const params = { a: tensor([0]), b: tensor([0]) }
    const state = opt.init(params)
    expect(Object.keys(state.slots.m)).toEqual(['a'])
    let next = opt.update(params, { a: tensor([1]), b: tensor([1]) }, state)
    next = opt.update(next.params, { a: tensor([1]), b: tensor([1]) }, next.state)
    expect(await readAll([next.params.a, next.params.b])).toEqual([Float32Array.of(-2.5), Float32Array.of(-2)])
  })
})

describe('bfloat16 weights', () => {
  const drive = async (rounding: 'master' | 'nearest' | 'stochastic', steps: number, n: number) => {
    const opt = optim.sgd({ lr: 2 ** -12, rounding })
    let params = { w: full([n], 1, 'bfloat16') }
    let state = opt.init(params)
    const step = compile(
      (p: typeof params, s: optim.OptimizerState, key: Tensor) =>
        opt.update(p, { w: full([n], 1, 'bfloat16') }, s, { key }),
      { donate: [0, 1] },
    )
    for (let t = 0; t < steps; t++) ({ params, state } = step(params, state, tensor([1, 2], { dtype: 'int32' })))
    return { w: await params.w.read(), state }
  }

  test('lose small steps by rounding to nearest, and not with their low bits kept', async () => {
    expect((await drive('nearest', 64, 3)).w).toEqual(Float32Array.of(1, 1, 1))
    const { w, state } = await drive('master', 64, 3)
    expect(w).toEqual(Float32Array.of(1 - 2 ** -6, 1 - 2 ** -6, 1 - 2 ** -6))
    expect(state.slots.low.w.shape).toEqual([2, 3])
  })

  test('have the right mean when rounded stochastically, the same for the same key', async () => {
    const n = 20_000
    const { w } = await drive('stochastic', 16, n)
    expect((await drive('stochastic', 16, n)).w).toEqual(w)
    // 16 steps of 2^-12 are one bit (2^-8) below one; each step rounds to a neighbour 2^-8 away.
    const average = w.reduce((a, b) => a + b, 0) / n
    expect(Math.abs(average - (1 - 2 ** -8))).toBeLessThan((5 * 2 ** -8) / Math.sqrt(n))
    expect(new Set(w).size).toBeGreaterThan(2)
  })

  test('need a key for stochastic rounding', async () => {
    const opt = optim.sgd({ rounding: 'stochastic' })
    const w = full([2], 1, 'bfloat16')
    expect(() => opt.update(w, w, opt.init(w))).toThrow('stochastic rounding needs a key')
  })
})

describe('gradients', () => {
  const p = { a: tensor([0, 0]), b: tensor([0]) }
  const g = { a: tensor([3, 0]), b: tensor([-4]) }
  const moved = async (clip: optim.ClipOptions | undefined, scale?: number) => {
    const opt = optim.sgd({ lr: 1, clip })
    const { params, norm } = opt.update(p, g, opt.init(p), scale === undefined ? {} : { scale: tensor(scale) })
    const [a, b] = await readAll([params.a, params.b])
    return { a: [...a], b: [...b], norm: norm && (await norm.item()) }
  }

  test('are clipped by the norm of all, of each tensor, or by number', async () => {
    const all = await moved({ globalNorm: 1 })
    expect(worst([...all.a, ...all.b], [-0.6, 0, 0.8])).toBeLessThan(1e-6)
    expect(all.norm).toBe(5)
    expect(worst((await moved({ norm: 1 })).a, [-1, 0])).toBeLessThan(1e-6)
    expect((await moved({ value: 3.5 })).b).toEqual([3.5])
    expect((await moved({ globalNorm: 4, order: Infinity })).b[0]).toBeCloseTo(4, 5)
    expect(await moved({ globalNorm: 100 })).toEqual({ a: [-3, 0], b: [4], norm: 5 })
  })

  test('are scaled before they are clipped', async () => {
    expect((await moved(undefined, 0.5)).a).toEqual([-1.5, 0])
    const both = await moved({ globalNorm: 1 }, 0.1)
    expect(both.norm).toBeCloseTo(0.5, 6)
    expect(both.a[0]).toBeCloseTo(-0.3, 6)
    expect((await moved({ value: 0.35 }, 0.1)).b[0]).toBeCloseTo(0.35, 6)
  })

  test('that are missing or of another shape are told by name', () => {
    const opt = optim.adam()
    expect(() => opt.update(p, { a: g.a }, opt.init(p))).toThrow('optim.adam: b')
    expect(() => opt.update(p, { a: g.b, b: g.b }, opt.init(p))).toThrow(
      '[optim.adam: a] the gradient must have the shape of the parameter; got [1] for [2]',
    )
    expect(() => opt.update(p, g, optim.sgd().init(p))).toThrow('the state has no `m`')
  })
})

describe('options', () => {
  test('are checked, naming the near one', () => {
    expect(() => optim.adamw({ weigthDecay: 1 } as object)).toThrow('Did you mean `weightDecay`?')
    expect(() => optim.adam({ beta1: 1 })).toThrow('`beta1` must be in [0, 1); got 1')
    expect(() => optim.adam({ betas: [0.9] as unknown as [number, number] })).toThrow('two numbers')
    expect(() => optim.adam({ betas: [0.9, 0.9], beta1: 0.5 })).toThrow('not both')
    expect(() => optim.sgd({ nesterov: true })).toThrow('`nesterov` has no meaning without `momentum`')
    expect(() => optim.sgd({ lr: -1 })).toThrow('`lr`')
    expect(() => optim.sgd({ clip: {} })).toThrow('say one of')
    expect(() => optim.sgd({ clip: { norm: 0 } })).toThrow('`norm` must be above 0')
    expect(() => optim.sgd({ groups: [{ match: /x/, momentm: 1 }] })).toThrow('groups[0]')
    expect(() => optim.sgd({ groups: [{ match: /x/, momentum: 2 }] })).toThrow('`momentum`')
    expect(() => optim.sgd({ rounding: 'up' as 'master' })).toThrow('`rounding`')
    expect(() => optim.optimizerNamed('adma')).toThrow('Did you mean')
    expect(() =>
      optim
        .sgd({ lr: optim.schedules.constant({ lr: 1 }) })
        .update(zeros([1]), zeros([1]), optim.sgd().init(zeros([1]))),
    ).toThrow('lrAt')
  })

  test('say the bytes of state that are allocated', async () => {
    const params = { w: zeros([10, 3], 'bfloat16'), b: zeros([7]) }
    for (const name of optim.OPTIMIZERS) {
      const opt = optim.optimizerNamed(name)
      const slots = Object.entries(opt.init(params).slots)
      const bytes = { float32: 4, float64: 8, uint8: 1, bfloat16: 2, int32: 4 }
      const held = Object.fromEntries(
        slots.map(([slot, by]) => [slot, Object.values(by).reduce((n, t) => n + t.size * bytes[t.dtype], 0)]),
      )
      expect(opt.stateBytes(params), name).toEqual(held)
    }
    expect(optim.adamw().stateBytes(params)).toEqual({ low: 60, m: 148, v: 148 })
  })
})
