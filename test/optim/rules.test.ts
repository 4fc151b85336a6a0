import { describe, expect, test } from 'vitest'
import { compile, type DType, optim, readAll, tensor, type Tensor } from '../../lib/index.js'
import { normals, type Reference, references, worst } from './reference.js'

interface Case {
  name: string
  make: (lr: number) => optim.Optimizer
  reference: (n: number) => Reference
}

const c = <O extends object>(name: 'sgd' | 'adam' | 'adamw' | 'adamwHf' | 'adabelief' | 'lion', options: O): Case => ({
  name: `${name} ${JSON.stringify(options)}`,
  make: (lr) => optim.optimizerNamed(name, { lr, ...options }),
  reference: (n) => (references[name] as (n: number, o: object) => Reference)(n, options),
})

const cases: Case[] = [
  c('sgd', {}),
  c('sgd', { weightDecay: 0.1 }),
  c('sgd', { momentum: 0.9 }),
  c('sgd', { momentum: 0.8, dampening: 0.3, weightDecay: 0.05 }),
  c('sgd', { momentum: 0.8, nesterov: true, weightDecay: 0.05 }),
  c('adam', {}),
  c('adam', { betas: [0.8, 0.95], eps: 1e-3, weightDecay: 0.1 }),
  c('adam', { amsgrad: true, betas: [0.9, 0.9] }),
  c('adamw', {}),
  c('adamw', { weightDecay: 0.3, amsgrad: true, betas: [0.5, 0.9] }),
  c('adamwHf', {}),
  c('adamwHf', { betas: [0.8, 0.95], eps: 1e-3, weightDecay: 0.3 }),
  c('adamwHf', { correctBias: false, eps: 1e-2 }),
  c('adabelief', {}),
  c('adabelief', { eps: 1e-6, betas: [0.8, 0.9], weightDecay: 0.1 }),
  c('adabelief', { eps: 1e-4, betas: [0.8, 0.7], weightDecay: 0.1, weightDecouple: false, degeneratedToSgd: false }),
  c('adabelief', { rectify: false, eps: 1e-8, weightDecay: 0.01, fixedDecay: true }),
  c('adabelief', { rectify: false, eps: 1e-8, amsgrad: true, betas: [0.9, 0.8] }),
  c('adabelief', { amsgrad: true, eps: 1e-5, betas: [0.9, 0.8] }),
  c('lion', {}),
  c('lion', { betas: [0.95, 0.98], weightDecay: 1 }),
]

const shapes = { a: [3, 5], b: [], c: [1, 1], d: [0, 4], e: [7], f: [2, 3, 17] }
type Params = Record<keyof typeof shapes, Tensor>

const draw = (seed: number, scale = 1) =>
  Object.fromEntries(
    Object.entries(shapes).map(([k, shape], i) => [
      k,
      normals(
        seed * 100 + i,
        shape.reduce((n, d) => n * d, 1),
      ).map((x) => x * scale),
    ]),
  )

const tensors = (numbers: Record<string, number[]>, dtype: DType) =>
  Object.fromEntries(
    Object.entries(shapes).map(([k, shape]) => [
      k,
      tensor(numbers[k].length ? Float64Array.from(numbers[k]) : [], { dtype, shape }),
    ]),
  ) as Params

describe.each(cases)('$name', ({ make, reference }) => {
  test.each([
    ['float64', 1e-12],
    ['float32', 2e-6],
  ] as const)('is its formula in %s, eagerly and compiled', async (dtype, bound) => {
    const lr = 0.03
    const opt = make(lr)
    const start = draw(1)
    const expected = structuredClone(start)
    const plain = Object.fromEntries(Object.entries(expected).map(([k, p]) => [k, reference(p.length)]))
    let eager = { params: tensors(start, dtype), state: opt.init(tensors(start, dtype)) }
    let inPlace = { params: tensors(start, dtype), state: opt.init(tensors(start, dtype)) }
    const step = compile(
      (params: Params, state: optim.OptimizerState, grads: Params) => opt.update(params, grads, state),
      { donate: [0, 1] },
    )
    for (let t = 1; t <= 6; t++) {
      const grads = draw(t + 1, t % 3 === 0 ? 0 : 10 ** (t - 3))
      for (const k of Object.keys(expected)) plain[k].step(expected[k], grads[k], lr, t)
      eager = opt.update(eager.params, tensors(grads, dtype), eager.state)
      inPlace = step(inPlace.params, inPlace.state, tensors(grads, dtype))
    }
    const got = await readAll(Object.values(eager.params))
    Object.keys(shapes).forEach((k, i) => expect(worst(got[i], expected[k]), k).toBeLessThan(bound))
    expect(await readAll(Object.values(inPlace.params))).toEqual(got)
    expect(await eager.state.step.item()).toBe(6)
  })
})

test('Schedule-Free AdamW with a mean of the gradient inside is what loops do', async () => {
  const [n, lr, steps, inner] = [9, 0.05, 12, 0.8]
  const [b1, b2, decay, warm] = [0.9, 0.95, 0.1, 4]
  const y = normals(1, n)
  const [z, m, v] = [[...y], new Array<number>(n).fill(0), new Array<number>(n).fill(0)]
  let [highest, total] = [0, 0]
  const opt = optim.scheduleFreeAdamw({
    lr,
    betas: [b1, b2],
    weightDecay: decay,
    warmupSteps: warm,
    r: 0.5,
    innerMomentum: inner,
  })
  let params = { y: tensor(Float64Array.from(y)) }
  let state = opt.init(params)
  for (let t = 1; t <= steps; t++) {
    const g = normals(t + 1, n)
    ;({ params, state } = opt.update(params, { y: tensor(Float64Array.from(g)) }, state))
    const rate = lr * Math.min(1, t / warm)
    highest = Math.max(highest, rate)
    const weight = t ** 0.5 * highest ** 2
    total += weight
    const c = weight / total
    for (let i = 0; i < n; i++) {
      m[i] = inner * m[i] + (1 - inner) * g[i]
      v[i] = b2 * v[i] + (1 - b2) * g[i] ** 2
      const u = m[i] / (1 - inner ** t) / (Math.sqrt(v[i] / (1 - b2 ** t)) + 1e-8) + decay * y[i]
      y[i] += c * (z[i] - y[i]) + rate * (b1 * (1 - c) - 1) * u
      z[i] -= rate * u
    }
  }
  const [got, mean] = await readAll([params.y, state.slots.m.y])
  expect(worst(got, y)).toBeLessThan(1e-12)
  expect(worst(mean, m)).toBeLessThan(1e-12)
  expect(optim.scheduleFreeAdamw().init(params).slots).not.toHaveProperty('m')
})
