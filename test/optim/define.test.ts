import { describe, expect, test } from 'vitest'
import {
  add,
  compile,
  div,
  grad,
  mul,
  optim,
  pow,
  readAll,
  sign,
  sqrt,
  square,
  sub,
  sum,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { normals, references, worst } from './reference.js'

const signum = optim.defineOptimizer({
  name: 'signum',
  hyper: { beta: 0.9 },
  slots: { m: 0 },
  step: ({ p, g, slots: { m }, lr, hyper: { beta } }) => {
    const next = add(mul(m, beta), mul(g, 1 - beta))
    return { p: sub(p, mul(sign(next), lr)), m: next }
  },
})

const ownAdamw = optim.defineOptimizer({
  name: 'ownAdamw',
  hyper: { beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01 },
  slots: { m: 0, v: 0 },
  prepare: ({ lr, t, hyper: { beta1, beta2, weightDecay } }) => ({
    size: div(lr, sub(1, pow(beta1, t))),
    root: div(1, sqrt(sub(1, pow(beta2, t)))),
    shrink: sub(1, mul(lr, weightDecay)),
  }),
  step: ({ p, g, slots: { m, v }, c: { size, root, shrink }, hyper: { beta1, beta2, eps } }) => {
    const m1 = add(mul(m, beta1), mul(g, 1 - beta1))
    const v1 = add(mul(v, beta2), mul(square(g), 1 - beta2))
    return { p: sub(mul(p, shrink), div(mul(size, m1), add(mul(sqrt(v1), root), eps))), m: m1, v: v1 }
  },
})

describe('an optimizer of one’s own', () => {
  test.each(['float32', 'float64'] as const)('is its formula in %s', async (dtype) => {
    const [n, lr] = [37, 0.03]
    const opt = ownAdamw({ lr, weightDecay: 0.2 })
    const p = normals(1, n)
    let params = { w: tensor(p, { dtype }) }
    let state = opt.init(params)
    const step = compile((q: typeof params, s: typeof state, grads: typeof params) => opt.update(q, grads, s), {
      donate: [0, 1],
    })
    const plain = references.adamw(n, { weightDecay: 0.2 })
    for (let t = 1; t <= 6; t++) {
      const g = normals(t + 1, n)
      plain.step(p, g, lr, t)
      ;({ params, state } = step(params, state, { w: tensor(g, { dtype }) }))
    }
    expect(worst(await params.w.read(), p)).toBeLessThan(dtype === 'float64' ? 1e-13 : 1e-6)
  })

  test('keeps a float32 weight beside a bfloat16 one', async () => {
    const opt = signum({ lr: 1e-4 })
    let params = { w: tensor([1, -1, 2], { dtype: 'bfloat16' }) }
    let state = opt.init(params)
    for (let t = 0; t < 100; t++)
      ({ params, state } = opt.update(params, { w: tensor([1, 1, 1], { dtype: 'bfloat16' }) }, state))
    const [w, master] = await readAll([params.w, state.slots.master.w])
    expect(worst(master, [0.99, -1.01, 1.99])).toBeLessThan(1e-5)
    expect([...w]).toEqual([0.98828125, -1.0078125, 1.9921875])
  })

  test('takes groups, clipping, schedules and the arguments of a training step', async () => {
    const opt = signum({
      lr: (step) => 0.1 * (step + 1),
      beta: 0,
      clip: { globalNorm: 1 },
      groups: [
        { match: /b/, lrScale: 2 },
        { match: ['c'], frozen: true },
      ],
    })
    expect(opt.lrAt(2)).toBeCloseTo(0.2)
    const params = { a: tensor([0]), b: tensor([0]), c: tensor([0]) }
    const next = opt.update(params, { a: tensor([3]), b: tensor([-4]) }, opt.init(params), { lr: opt.lrAt(2) })
    const [a, b, c, norm] = await readAll([next.params.a, next.params.b, next.params.c, next.norm!])
    expect([a[0], b[0], c[0], norm[0]]).toEqual([Math.fround(-0.2), Math.fround(0.4), 0, 5])
  })

  test('can be differentiated through', async () => {
    const sgd = optim.defineOptimizer({ name: 'plain', step: ({ p, g, lr }) => ({ p: sub(p, mul(g, lr)) }) })
    const opt = sgd()
    const loss = (w: Tensor) => sum(square(w))
    // After two steps w = w0 (1 - 2 lr)^2, so the loss falls by d/dlr w0² (1 - 2 lr)^4 = -8 w0² (1 - 2 lr)^3.
    const after = (lr: Tensor) => {
      let w = tensor([3], { dtype: 'float64' })
      let state = opt.init(w)
      for (let i = 0; i < 2; i++) ({ params: w, state } = opt.update(w, grad(loss)(w), state, { lr }))
      return loss(w)
    }
    expect(await grad(after)(tensor(0.1, { dtype: 'float64' })).item()).toBeCloseTo(-72 * 0.8 ** 3, 10)
  })

  test('says what is wrong with it', () => {
    const p = tensor([1, 2])
    const bad = (step: () => Record<string, Tensor>) => () => {
      const opt = optim.defineOptimizer({
        name: 'bad',
        slots: { m: 0 },
        step: step as () => { p: Tensor; m: Tensor },
      })()
      opt.update(p, p, opt.init(p))
    }
    expect(bad(() => ({ p }))).toThrow('step must give `m`')
    expect(bad(() => ({ p: sum(p), m: p }))).toThrow('step must give `p` in the shape it had')
    expect(() => optim.defineOptimizer({ name: 'bad', hyper: { lr: 1 }, step: ({ p }) => ({ p }) })).toThrow('lr')
    expect(() => signum({ bta: 1 } as object)).toThrow('Did you mean `beta`?')
    expect(() => signum({ beta: 'x' as unknown as number })).toThrow('`beta` must be a number')
    expect(() => signum({ rounding: 'up' as 'master' })).toThrow('master, stochastic')
  })
})
