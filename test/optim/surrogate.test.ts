import { describe, expect, test } from 'vitest'
import {
  compile,
  crossEntropy,
  grad,
  matmul,
  mul,
  nn,
  optim,
  readAll,
  sum,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals, worst } from './reference.js'

const [n, d] = [40, 6]
const x = normals(1, n * d).map((v, i) => v * Math.exp(normals(2, d)[i % d]))
const y = normals(3, n).map((v, i) => (v + x[i * d] > 0 ? 1 : 0))
const f64 = (numbers: number[], shape: number[]) => tensor(Float64Array.from(numbers), { dtype: 'float64', shape })
const X = f64(x, [n, d])
const Y = tensor(Int32Array.from(y), { dtype: 'int32' })
type Params = { w: Tensor }
const start = (): Params => ({ w: f64(new Array<number>(d * 2).fill(0), [d, 2]) })
const outputs = (p: Params) => {
  const logits = matmul(X, p.w)
  return { loss: crossEntropy(logits, Y, { reduction: 'mean' }), logits }
}
const lossOf = (p: Params) => outputs(p).loss.item()

function drive(opt: optim.Optimizer) {
  const step = compile(
    (p: Params, s: optim.OptimizerState) => {
      const next = opt.step!(optim.objective(outputs), p, s)
      return { params: next.params, state: next.state, loss: next.loss }
    },
    { donate: [0, 1] },
  )
  return async (steps: number) => {
    let params = start()
    let state = opt.init(params)
    const losses: number[] = []
    for (let t = 0; t < steps; t++) {
      const next = step(params, state)
      losses.push(await next.loss.item())
      ;({ params, state } = next)
    }
    return { params, losses: [...losses, await lossOf(params)] }
  }
}

describe('surrogates in the space of the scores', () => {
  test('with one inner step of gradient descent are gradient descent', async () => {
    const opt = optim.surrogate(optim.sgd({ lr: 0.3 }), { innerSteps: 1 })
    const { params } = await drive(opt)(1)
    const g = await grad((p: Params) => outputs(p).loss)(start()).w.read()
    expect(
      worst(
        await params.w.read(),
        g.map((v) => -0.3 * v),
      ),
    ).toBeLessThan(1e-13)
  })

  test.each([1, 5, 20])(
    'bound the loss where eta is one over its smoothness: it never rises, %i inner steps',
    async (m) => {
      // The largest eigenvalue of diag(p) − ppᵀ is at most 1/2.
      const { losses } = await drive(optim.surrogate(optim.armijo({ lr: 10 }), { eta: 2, innerSteps: m }))(15)
      for (let t = 1; t < losses.length; t++) expect(losses[t]).toBeLessThanOrEqual(losses[t - 1] + 1e-12)
    },
  )

  test('more inner steps get farther with as many looks at the loss', async () => {
    const end = async (m: number) =>
      (await drive(optim.surrogate(optim.armijo({ lr: 10 }), { eta: 2, innerSteps: m }))(15)).losses.at(-1)!
    const [one, five, twenty] = [await end(1), await end(5), await end(20)]
    expect(five).toBeLessThan(one)
    expect(twenty).toBeLessThan(five)
  })

  test('take micro-batches as the whole', async () => {
    class Model {
      w = start().w
      loss({ x: given, y: labels }: Record<string, Tensor>) {
        const logits = matmul(given, this.w)
        return { loss: crossEntropy(logits, labels, { reduction: 'mean' }), logits }
      }
    }
    const trained = async (parts: number) => {
      const model = new Model()
      const optimizer = optim.surrogate(optim.adamw({ lr: 0.05 }), { innerSteps: 3, eta: 2, decay: 'sqrt' })
      const trainer = new Trainer(model as never, { optimizer, clip: null })
      await trainer.materialize()
      const rows = n / parts
      const micro = Array.from({ length: parts }, (_, i) => ({
        x: {
          shape: [rows, d],
          dtype: 'float64' as const,
          data: Float64Array.from(x).slice(i * rows * d, (i + 1) * rows * d),
        },
        y: { shape: [rows], dtype: 'int32' as const, data: Int32Array.from(y).slice(i * rows, (i + 1) * rows) },
      }))
      const losses: number[] = []
      for (let t = 1; t <= 5; t++) losses.push((await (await trainer.step(micro, { lr: 0.05, step: t }))()).loss)
      await trainer.publish()
      trainer.close()
      return { losses, weights: await readAll(Object.values(nn.parameters(model))) }
    }
    const [one, two] = [await trained(1), await trained(4)]
    expect(one.losses[4]).toBeLessThan(one.losses[0])
    expect(worst(two.weights[0], one.weights[0])).toBeLessThan(1e-9)
  })

  test('say what they need', () => {
    const opt = optim.surrogate(optim.sgd())
    const p = start()
    expect(() =>
      opt.step!(
        optim.objective((q: Params) => sum(q.w)),
        p,
        opt.init(p),
      ),
    ).toThrow('logits')
    const apart = (q: Params) => ({ loss: sum(q.w), logits: mul(q.w, 2) })
    expect(() => opt.step!(optim.objective(apart), p, opt.init(p))).toThrow('computed from the scores')
    expect(() => optim.surrogate(optim.sgd(), { eta: 0 })).toThrow('`eta`')
    expect(() => optim.surrogate(optim.sgd(), { decay: 2 })).toThrow('`decay`')
  })
})

describe('Armijo', () => {
  test('the loss falls as the slope promises, and lengths may grow again', async () => {
    const opt = optim.armijo({ lr: 100, c: 0.3 })
    let params = start()
    let state = opt.init(params)
    let before = await lossOf(params)
    for (let t = 0; t < 20; t++) {
      const g = await grad((p: Params) => outputs(p).loss)(params).w.read()
      const square = g.reduce((s, v) => s + v * v, 0)
      ;({ params, state } = opt.step!(optim.objective(outputs), params, state))
      const after = await lossOf(params)
      expect(after).toBeLessThan(before - 0.3 * (await state.slots.length.all.item()) * square + 1e-12)
      before = after
    }
  })
})
