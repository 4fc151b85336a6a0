import { describe, expect, test } from 'vitest'
import {
  data,
  matmul,
  mean,
  nn,
  optim,
  perExampleGrads,
  readAll,
  square,
  sub,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { HostArray } from '../../lib/train/host.js'
import { train } from '../../lib/train/train.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals } from './reference.js'

const [n, d] = [64, 3]
const x = normals(1, n * d)
const y = normals(2, n).map((v, i) => v + 2 * x[i * d])
class Model {
  w = tensor(new Float64Array(d), { shape: [d, 1] })
  loss({ x: given, y: wanted }: Record<string, Tensor>) {
    return { loss: mean(square(sub(matmul(given, this.w), wanted))) }
  }
}
const part = (from: number, rows: number) => ({
  x: new HostArray(Float64Array.from(x).slice(from * d, (from + rows) * d), [rows, d]),
  y: new HostArray(Float64Array.from(y).slice(from, from + rows), [rows, 1]),
})

describe('adaptive batch sizes', () => {
  test.each(['norm', 'innerProduct', 'augmented'] as const)(
    '%s asks for what the spread of the examples says',
    async (kind) => {
      const rows = 8
      const loss = (m: Model, batch: { x: Tensor; y: Tensor }) => m.loss(batch).loss
      const all = {
        x: tensor(Float64Array.from(x).slice(0, rows * d), { shape: [rows, d] }),
        y: tensor(Float64Array.from(y).slice(0, rows), { shape: [rows, 1] }),
      }
      const spread = optim.gradientSpread([perExampleGrads(loss)(new Model(), all).w])
      const names = Object.keys(spread) as (keyof typeof spread)[]
      const read = await readAll(names.map((k) => spread[k]))
      const numbers = Object.fromEntries(names.map((k, i) => [k, read[i][0]])) as { [K in keyof typeof spread]: number }
      const wanted = optim.neededBatch(numbers, { test: kind, eta: 0.3, theta: 0.4, nu: 0.7 })

      const optimizer = optim.adaptiveBatch(optim.sgd({ lr: 0.1 }), { test: kind, eta: 0.3, theta: 0.4, nu: 0.7 })
      const trainer = new Trainer(new Model() as never, { optimizer, clip: null })
      await trainer.materialize()
      const micro = Array.from({ length: rows }, (_, i) => part(i, 1))
      const { metrics } = await (await trainer.step(micro, { lr: 0.1, step: 1 }))()
      trainer.close()
      expect(metrics.neededBatches / wanted).toBeCloseTo(1, 9)
    },
  )

  const run = (steps: number, options: optim.BatchTestOptions & { max?: number; doubling?: boolean } = {}) => {
    const { max = 32, doubling, ...own } = options
    const model = new Model()
    const source = data.growing(
      data.fromArrays(
        { x: { data: Float64Array.from(x), shape: [n, d] }, y: { data: Float64Array.from(y), shape: [n, 1] } },
        { batch: 2, seed: 3 },
      ),
      { start: 2, max, doubling },
    )
    const optimizer = optim.adaptiveBatch(optim.adagradNorm({ lr: 0.5 }), own)
    return { model, source, optimizer, steps }
  }
  async function trained(it: ReturnType<typeof run>) {
    const sizes: number[] = []
    const counted = {
      ...it.source,
      next: async () => {
        const step = await it.source.next()
        sizes.push(step!.microBatches.length)
        return step
      },
    }
    await train(it.model as never, counted as never, { optimizer: it.optimizer, steps: it.steps, clip: null })
    return { sizes, w: [...(await it.model.w.read())] }
  }

  test('grow near the minimum, never shrink, and keep below their bound; the same at every run', async () => {
    const one = await trained(run(30))
    for (let t = 1; t < one.sizes.length; t++) expect(one.sizes[t]).toBeGreaterThanOrEqual(one.sizes[t - 1])
    expect(one.sizes[0]).toBe(2)
    expect(one.sizes.at(-1)).toBe(32)
    expect(await trained(run(30))).toEqual(one)
    // Frozen by a test that always passes, they stay.
    expect(new Set((await trained(run(10, { eta: 1e6 }))).sizes)).toEqual(new Set([2]))
    const powers = (await trained(run(30, { doubling: true }))).sizes
    for (const size of powers) expect(Math.log2(size) % 1).toBe(0)
  })

  test('go on from a position with its size', async () => {
    const whole = run(0).source
    whole.observe!({ neededBatches: 6.2 })
    expect((await whole.next())!.microBatches).toHaveLength(7)
    const again = run(0).source
    await again.restore!(JSON.parse(JSON.stringify(whole.state!())))
    const [a, b] = [(await whole.next())!, (await again.next())!]
    expect(b.microBatches).toHaveLength(7)
    expect(b.microBatches.map((m) => [...m.x.data])).toEqual(a.microBatches.map((m) => [...m.x.data]))
    expect(b.tokens).toBe(14)
    whole.observe!({ neededBatches: 1 })
    expect((await whole.next())!.microBatches).toHaveLength(7)
    whole.observe!({ neededBatches: Infinity })
    expect((await whole.next())!.microBatches).toHaveLength(32)
  })

  test('say what they take', async () => {
    expect(() => data.growing(run(0).source, { start: 0 })).toThrow('`start`')
    expect(() => optim.adaptiveBatch(optim.sgd(), { eta: 0 })).toThrow('`eta`')
    const pairs = data.fromArrays({ x: Float64Array.from(x) }, { batch: 2, accumulate: 2 })
    await expect(data.growing(pairs).next()).rejects.toThrow('one micro-batch')
    const p = nn.parameters(new Model())
    expect(() => optim.adaptiveBatch(optim.sgd()).update(p, p, optim.sgd().init(p))).toThrow('needs the objective')
  })
})
