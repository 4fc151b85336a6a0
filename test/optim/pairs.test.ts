import { describe, expect, test } from 'vitest'
import {
  add,
  crossEntropy,
  type DType,
  matmul,
  mean,
  nn,
  optim,
  readAll,
  square,
  tanh,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { HostArray } from '../../lib/train/host.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals, worst } from './reference.js'
import { EVERY } from './walk.js'

/** A small classifier with two tasks. */
class Net {
  body: Tensor
  bias: Tensor
  head: Tensor
  constructor(dtype: DType) {
    const of = (seed: number, shape: number[]) =>
      tensor(
        normals(
          seed,
          shape.reduce((n, d) => n * d, 1),
        ),
        { dtype, shape },
      )
    this.body = of(1, [4, 3])
    this.bias = of(2, [3])
    this.head = of(3, [3, 3])
  }
  loss({ x, y }: Record<string, Tensor>) {
    const wide = x.cast(this.body.dtype)
    const logits = matmul(tanh(add(matmul(wide, this.body), this.bias)), this.head)
    const losses = { some: crossEntropy(logits, y), rest: mean(square(logits)).mul(0.1) }
    return { loss: losses.some, logits, losses }
  }
}

interface How {
  dtype?: DType
  clip?: number | null
  steps?: number
  micro?: number
}

async function trained(optimizer: optim.Optimizer, how: How = {}) {
  const { dtype = 'float64', clip = null, steps = 2, micro = 2 } = how
  const model = new Net(dtype)
  const trainer = new Trainer(model as never, { optimizer, clip, seed: 3 })
  await trainer.materialize()
  const before = await readAll(Object.values(nn.parameters(model)))
  const norms: number[] = []
  for (let step = 1; step <= steps; step++) {
    const parts = Array.from({ length: micro }, (_, m) => {
      const x = Float64Array.from(normals(10 * step + m, 24))
      const y = Int32Array.from({ length: 6 }, (_, i) => (x[4 * i] > 0 ? 0 : x[4 * i + 1] > 0 ? 1 : 2))
      return { x: new HostArray(x, [6, 4]), y: new HostArray(y) }
    })
    norms.push((await (await trainer.step(parts, { lr: optimizer.lrAt(step), step }))()).gradNorm)
  }
  await trainer.publish()
  trainer.close()
  const after = await readAll(Object.values(nn.parameters(model)))
  return { before: before.map((p) => [...p]), after: after.map((p) => [...p]), norms }
}
const flat = (parts: number[][]) => parts.flat()
const sgd = (o: optim.RuleOptions = {}) => optim.sgd({ lr: 0.1, ...o })
/** Noise that is one everywhere, of size 0.1. */
const ones = {
  eta: 0.01,
  gamma: 0,
  draw: ({ shape, dtype }: { shape: readonly number[]; dtype: DType }) =>
    tensor(new Array<number>(shape.reduce((n, d) => n * d, 1)).fill(1), { dtype, shape: [...shape] }),
} as const

describe('what a wrapper does reaches those that it is around', () => {
  const inner: Record<string, (o?: optim.RuleOptions) => optim.Optimizer> = {
    multiTask: (o) => optim.multiTask(sgd(o), { combine: optim.combine.minNorm() }),
    surrogate: (o) => optim.surrogate(sgd(o), { innerSteps: 1 }),
    sam: (o) => optim.sam(sgd(o)),
    adaptiveBatch: (o) => optim.adaptiveBatch(sgd(o), { test: 'augmented' }),
    tract: (o) => optim.tract(sgd(o)),
    armijo: (o) => optim.armijo({ lr: 0.1, most: 1, c: 1e-9, ...o }),
  }
  test.each(Object.entries(inner).filter(([name]) => name !== 'sam'))('noise around %s', async (_, make) => {
    const [plain, noisy] = [
      await trained(make(), { steps: 1 }),
      await trained(optim.gradientNoise(make(), ones), { steps: 1 }),
    ]
    const moved = flat(noisy.after).map((x, i) => x - flat(plain.after)[i])
    // A tract layer takes the noise with its gradient.
    if (_ === 'tract') expect(Math.max(...moved.map(Math.abs))).toBeGreaterThan(1e-3)
    else for (const d of moved) expect(d).toBeCloseTo(-0.01, 10)
  })

  test.each(Object.entries(inner))('the clip of %s stays where noise is around it', async (_, make) => {
    const none = { eta: 1e-300, gamma: 0 }
    const [plain, noisy] = [
      await trained(make({ clip: { value: 0.01 } })),
      await trained(optim.gradientNoise(make({ clip: { value: 0.01 } }), none)),
    ]
    const free = await trained(make())
    expect(worst(flat(plain.after), flat(free.after))).toBeGreaterThan(1e-3)
    // SAM looks ahead along a clipped gradient then, and TrAct solves for one: other steps.
    if (_ !== 'sam' && _ !== 'tract') expect(worst(flat(noisy.after), flat(plain.after))).toBeLessThan(1e-12)
  })

  test('SAM within and around several tasks, a measured batch and the first layer', async () => {
    const sharp = (o: optim.Optimizer) => optim.sam(o, { rho: 0.3 })
    const tasks = (o: optim.Optimizer) => optim.multiTask(o, { combine: optim.combine.minNorm() })
    const [inside, around, without] = [
      await trained(tasks(sharp(sgd()))),
      await trained(sharp(tasks(sgd()))),
      await trained(tasks(sgd())),
    ]
    expect(worst(flat(around.after), flat(inside.after))).toBeLessThan(1e-13)
    expect(worst(flat(around.after), flat(without.after))).toBeGreaterThan(1e-3)
    const want = await trained(sharp(sgd()))
    for (const estimator of ['examples', 'microBatches'] as const)
      for (const measured of [
        optim.adaptiveBatch(sharp(sgd()), { estimator }),
        sharp(optim.adaptiveBatch(sgd(), { estimator })),
      ])
        expect(worst(flat((await trained(measured)).after), flat(want.after))).toBeLessThan(1e-13)
    const combined = await trained(optim.multiTask(optim.adaptiveBatch(sgd()), { combine: optim.combine.minNorm() }))
    expect(worst(flat(combined.after), flat(without.after))).toBeLessThan(1e-13)
  })

  test('a loop’s clip is told once, and holds for every gradient', async () => {
    for (const make of [inner.sam, inner.multiTask]) {
      const { norms, before, after } = await trained(optim.gradientNoise(make(), { eta: 1e-300 }), {
        clip: 1e-3,
        steps: 1,
      })
      expect(norms[0]).toBeGreaterThan(1e-2)
      const length = Math.hypot(...flat(after).map((x, i) => x - flat(before)[i]))
      expect(length / (0.1 * 1e-3)).toBeCloseTo(1, 2)
    }
    const bends = optim.lbfgs({ lr: 0.5, maxIter: 3 })
    const { norms, after } = await trained(optim.gradientNoise(bends, { eta: 1e-8 }), { clip: 0.5 })
    expect(norms[0]).toBeGreaterThan(1e-2)
    expect(flat(after).every(Number.isFinite)).toBe(true)
  })
})

describe('weights of more than one kind', () => {
  test('the average around a schedule-free optimizer is that of the weights that it evaluates', async () => {
    const inside = optim.scheduleFreeAdamw({ lr: 0.05 })
    const opt = optim.averaged(inside, { decay: 0.7 })
    const p = (numbers: ArrayLike<number>) => ({ w: tensor(Float64Array.from(numbers)) })
    let [one, two] = [p(normals(1, 5)), p(normals(1, 5))]
    let [first, second] = [opt.init(one), inside.init(two)]
    const mean = [...normals(1, 5)]
    for (let t = 1; t <= 4; t++) {
      const g = p(normals(10 + t, 5))
      ;({ params: one, state: first } = opt.update(one, g, first))
      ;({ params: two, state: second } = inside.update(two, g, second))
      const used = await inside.evalParams(two, second).w.read()
      used.forEach((x, i) => {
        mean[i] = 0.7 * mean[i] + 0.3 * x
      })
    }
    expect(worst(await opt.evalParams(one, first).w.read(), mean)).toBeLessThan(1e-13)
  })

  test('look-ahead moves the float32 weights that a whole model has together', async () => {
    for (const base of [optim.lbfgs({ lr: 0.5, maxIter: 2 }), optim.blockCoordinate({ blockSize: 4 })]) {
      const opt = optim.lookahead(base, { k: 1, alpha: 0 })
      // The slow weights never leave, so nothing moves, now or later.
      const { before, after } = await trained(opt, { dtype: 'bfloat16', steps: 3 })
      expect(after).toEqual(before)
    }
  })

  test('one block moves at a time, whatever moves it', async () => {
    for (const make of [
      () => optim.sophiaG({ lr: 0.01, every: 1 }),
      () => optim.sam(optim.adamw({ lr: 0.01 })),
      () => optim.armijo({ lr: 1 }),
      () => optim.multiTask(sgd(), { rho: 0.05 }),
    ]) {
      const { before, after } = await trained(optim.blockwise(make(), { rule: 'cyclic', scaled: false }), {
        steps: 2,
        clip: 0.5,
      })
      const moves = before.map((p, i) => worst(after[i], p) > 0)
      expect(moves).toEqual([true, true, false])
    }
    for (const base of [optim.lbfgs(), optim.blockCoordinate()])
      expect(() => optim.blockwise(base)).toThrow('not one for all together')
  })
})

const WRAPPERS = Object.keys(EVERY).filter((name) => !optim.OPTIMIZERS.includes(name))
const around = (name: string, base: optim.Optimizer): optim.Optimizer => {
  const own = {
    surrogate: { innerSteps: 2 },
    multiTask: { rho: 0.05 },
    adaptiveBatch: { estimator: 'examples' },
    lookahead: { k: 2 },
    averaged: { decay: 0.5 },
  }
  const make = (optim as unknown as Record<string, (o: optim.Optimizer, options: object) => optim.Optimizer>)[name]
  return make(base, own[name as keyof typeof own] ?? {})
}

/** Pairs that have no meaning: each is one sentence. */
const REFUSED: Record<string, RegExp> = {
  'averaged(averaged': /of these wrappers only/,
  'lookahead(lookahead': /of these wrappers only/,
  'blockwise(blockwise': /of these wrappers only/,
  'blockwise(lbfgs': /one for all together/,
  'blockwise(blockCoordinate': /one for all together/,
  'multiTask(multiTask': /Put multiTask inside/,
  'multiTask(surrogate': /Put multiTask inside/,
  'surrogate(multiTask': /give their losses/,
  'surrogate(adaptiveBatch': /must know them/,
}

async function holds(outer: string, inner: string, base: optim.Optimizer, how: How): Promise<void> {
  const refused = REFUSED[`${outer}(${inner}`]
  const name = `${outer}(${inner}(${base.name}))`
  const run = async () => trained(around(outer, inner === base.name ? base : around(inner, base)), how)
  if (refused) return void (await expect(run(), name).rejects.toThrow(refused))
  const { before, after } = await run()
  expect(flat(after).every(Number.isFinite), name).toBe(true)
  expect(worst(flat(after), flat(before)), name).toBeGreaterThan(0)
}

describe.runIf(process.env.STEEPEST_LONG)('every pair', () => {
  test.each(WRAPPERS)('%s around every wrapper and every optimizer', { timeout: 300_000 }, async (outer) => {
    for (const [dtype, clip, rounding] of [
      ['float32', 0.5, undefined],
      ['bfloat16', null, 'stochastic'],
    ] as const) {
      for (const inner of WRAPPERS)
        for (const base of [sgd({ rounding }), optim.scheduleFreeAdamw({ lr: 0.01, rounding })])
          await holds(outer, inner, base, { dtype, clip })
      for (const name of optim.OPTIMIZERS) await holds(outer, name, EVERY[name].make({ rounding }), { dtype, clip })
    }
  })
})
