import { describe, expect, test } from 'vitest'
import {
  add,
  grad,
  matmul,
  mean,
  mul,
  nn,
  optim,
  random,
  readAll,
  sin,
  square,
  sub,
  sum,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals, worst } from './reference.js'

const f64 = (numbers: number[], shape: number[] = [numbers.length]) =>
  tensor(Float64Array.from(numbers), { dtype: 'float64', shape })

/** Gradients of m tasks in n dimensions, their products, and a combination of them. */
const draw = (seed: number, m: number, n: number, bend = 0) =>
  Array.from({ length: m }, (_, i) => normals(seed * 31 + i, n).map((x, k) => x + (k === 0 ? bend : 0)))
const dot = (a: number[], b: number[]) => a.reduce((s, x, i) => s + x * b[i], 0)
const gramOf = (g: number[][]) =>
  f64(
    g.flatMap((a) => g.map((b) => dot(a, b))),
    [g.length, g.length],
  )
const combined = (g: number[][], w: ArrayLike<number>) =>
  g[0].map((_, k) => g.reduce((s, row, i) => s + w[i] * row[k], 0))
const weights = (c: optim.Combiner, g: number[][], key = 0) =>
  c.weights(gramOf(g), () => random.key(key)).read() as Promise<Float64Array>
const norm = (x: number[]) => Math.sqrt(dot(x, x))

describe('combiners', () => {
  test('minNorm: no point of the hull is shorter, and every task gains alike or more', async () => {
    for (let seed = 0; seed < 12; seed++) {
      const g = draw(seed, 2 + (seed % 4), 6, seed % 3)
      const w = await weights(optim.combine.minNorm(), g)
      expect(w.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12)
      expect(Math.min(...w)).toBeGreaterThanOrEqual(0)
      const d = combined(g, w)
      for (const row of g) expect(dot(row, d)).toBeGreaterThan(dot(d, d) - 1e-9)
    }
    const opposite = [
      [1, 0],
      [-3, 0],
    ]
    expect(worst(await weights(optim.combine.minNorm(), opposite), [0.75, 0.25])).toBeLessThan(1e-12)
    const zero = [
      [0, 0],
      [1, 2],
    ]
    expect(norm(combined(zero, await weights(optim.combine.minNorm(), zero)))).toBeLessThan(1e-9)
  })

  test('pcgrad: loses what points against the others, in a random order', async () => {
    const g = [
      [1, 0],
      [-1, 1],
    ]
    // g1 − (g1·g2 / 2) g2 = (0.5, 0.5); g2 − (g2·g1) g1 = (0, 1).
    expect(worst(combined(g, await weights(optim.combine.pcgrad(), g)), [0.5, 1.5])).toBeLessThan(1e-12)
    const friends = draw(3, 3, 4, 9)
    expect([...(await weights(optim.combine.pcgrad(), friends))]).toEqual([1, 1, 1])
    const foes = draw(5, 4, 3)
    const ends = new Set<string>()
    for (let key = 0; key < 8; key++) ends.add((await weights(optim.combine.pcgrad(), foes, key)).join())
    expect(ends.size).toBeGreaterThan(1)
  })

  test('cagrad: the worst task gains most within the ball around the mean', async () => {
    for (let seed = 0; seed < 8; seed++) {
      const c = [0.4, 0.7][seed % 2]
      const g = draw(seed, 2 + (seed % 3), 5)
      const m = g.length
      const d = combined(g, await weights(optim.combine.cagrad({ c, rescale: false }), g))
      const g0 = combined(g, new Array<number>(m).fill(1 / m))
      const away = d.map((x, i) => x - g0[i])
      expect(norm(away)).toBeLessThan(c * norm(g0) + 1e-9)
      const gain = Math.min(...g.map((row) => dot(row, d)))
      // Nothing else in the ball does better.
      for (let i = 0; i < 400; i++) {
        const u = normals(1000 + seed * 400 + i, 5)
        const near = i % 2 ? u : u.map((x, k) => x * 0.05 + away[k] / (norm(away) || 1))
        const scale = (c * norm(g0)) / norm(near)
        const other = g0.map((x, k) => x + near[k] * scale)
        expect(Math.min(...g.map((row) => dot(row, other)))).toBeLessThan(gain + 1e-9)
      }
      const rescaled = combined(g, await weights(optim.combine.cagrad({ c }), g))
      expect(
        worst(
          rescaled.map((x) => x * (1 + c * c)),
          d,
        ),
      ).toBeLessThan(1e-12)
    }
  })

  test('imtl: projections are equally long, weights have the sum 1', async () => {
    for (let seed = 0; seed < 8; seed++) {
      const g = draw(seed, 2 + (seed % 3), 6).map((row, i) => row.map((x) => x * 10 ** i))
      const w = await weights(optim.combine.imtl(), g)
      expect(w.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 9)
      const d = combined(g, w)
      const projections = g.map((row) => dot(row, d) / norm(row))
      for (const p of projections) expect(Math.abs(p - projections[0])).toBeLessThan(1e-7 * norm(d))
    }
    const alike = [
      [1, 2],
      [1, 2],
    ]
    expect(worst(combined(alike, await weights(optim.combine.imtl(), alike)), [1, 2])).toBeLessThan(1e-9)
  })
})

/** Two tasks with a shared part and a head each. */
class Model {
  body = f64(normals(1, 6), [3, 2])
  head1 = f64(normals(2, 2), [2, 1])
  head2 = f64(normals(3, 2), [2, 1])
  loss({ x, y }: Record<string, Tensor>) {
    const h = sin(matmul(x, this.body))
    const losses = {
      first: mean(square(sub(matmul(h, this.head1), y))),
      second: mean(square(add(matmul(h, this.head2), mul(y, 2)))),
    }
    return { loss: add(losses.first, losses.second), losses }
  }
}
const x = normals(7, 24)
const y = normals(8, 8)
const data = { x: f64(x, [8, 3]), y: f64(y, [8, 1]) }
const rho = 0.1

describe('several tasks', () => {
  test('with rho, combine what they want apart from what their worst places add', async () => {
    const p0 = nn.parameters(new Model())
    const lossOf = (task: 'first' | 'second') => (p: typeof p0) =>
      nn.withTensors(new Model(), p).loss(data).losses[task]
    const numbers = async (p: typeof p0, task: 'first' | 'second') => {
      const g = grad(lossOf(task))(p)
      const [body, head1, head2] = await readAll([g.body, g.head1, g.head2])
      return { body: [...body], head: [...(task === 'first' ? head1 : head2)] }
    }
    const parts = await Promise.all(
      (['first', 'second'] as const).map(async (task) => {
        const here = await numbers(p0, task)
        const name = task === 'first' ? 'head1' : 'head2'
        const move = (t: Tensor, g: number[]) =>
          add(
            t,
            f64(
              g.map((v) => (rho * v) / norm(g)),
              [...t.shape],
            ),
          )
        const away = { ...p0, body: move(p0.body, here.body), [name]: move(p0[name], here.head) }
        return { here, there: await numbers(away, task) }
      }),
    )
    const bodies = parts.map((p) => p.here.body)
    const gains = parts.map((p) => p.there.body.map((v, i) => v - p.here.body[i]))
    const min = optim.combine.minNorm()
    const [a, b] = [combined(bodies, await weights(min, bodies)), combined(gains, await weights(min, gains))]
    const opt = optim.multiTask(optim.sgd({ lr: 1 }), { combine: min, rho, shared: /body/ })
    const objective = optim.objective((p: typeof p0) => nn.withTensors(new Model(), p).loss(data))
    const { params } = opt.step!(objective, p0, opt.init(p0))
    const [body, head1, before, was] = await readAll([params.body, params.head1, p0.body, p0.head1])
    expect(
      worst(
        body.map((v, i) => before[i] - v),
        a.map((v, i) => v + b[i]),
      ),
    ).toBeLessThan(1e-9)
    expect(
      worst(
        head1.map((v, i) => was[i] - v),
        parts[0].there.head,
      ),
    ).toBeLessThan(1e-9)
  })

  test('by their sum and without rho are one task, bit for bit nearly', async () => {
    const p0 = nn.parameters(new Model())
    const objective = optim.objective((p: typeof p0) => nn.withTensors(new Model(), p).loss(data))
    const opt = optim.multiTask(optim.sgd({ lr: 0.1 }))
    const plain = optim.sgd({ lr: 0.1 })
    const got = opt.step!(objective, p0, opt.init(p0)).params
    const want = plain.update(p0, objective.valueAndGrad(p0).grads, plain.init(p0)).params
    const [a, b] = [await readAll(Object.values(got)), await readAll(Object.values(want))]
    a.forEach((v, i) => expect(worst(v, b[i])).toBeLessThan(1e-14))
  })

  test.each(['sum', 'mean', 'minNorm', 'pcgrad', 'cagrad', 'imtl'] as const)(
    '%s trains, over micro-batches as over the whole',
    async (name) => {
      const trained = async (parts: number) => {
        const model = new Model()
        const optimizer = optim.multiTask(optim.adamw({ lr: 0.02 }), {
          combine: optim.combine[name](),
          rho: 0.01,
          shared: ['body'],
        })
        const trainer = new Trainer(model as never, { optimizer, clip: 1, seed: 2 })
        await trainer.materialize()
        const rows = 8 / parts
        const micro = Array.from({ length: parts }, (_, i) => ({
          x: {
            shape: [rows, 3],
            dtype: 'float64' as const,
            data: Float64Array.from(x).slice(i * rows * 3, (i + 1) * rows * 3),
          },
          y: {
            shape: [rows, 1],
            dtype: 'float64' as const,
            data: Float64Array.from(y).slice(i * rows, (i + 1) * rows),
          },
        }))
        const losses: number[] = []
        for (let step = 1; step <= 12; step++)
          losses.push((await (await trainer.step(micro, { lr: 0.02, step }))()).loss)
        await trainer.publish()
        trainer.close()
        return { losses, weights: await readAll(Object.values(nn.parameters(model))) }
      }
      const [one, two] = [await trained(1), await trained(2)]
      expect(one.losses.at(-1)).toBeLessThan(one.losses[0])
      one.weights.forEach((w, i) => expect(worst(two.weights[i], w)).toBeLessThan(1e-6))
    },
  )

  test('say what they need', () => {
    const p = { w: f64([1, 2]) }
    const opt = optim.multiTask(optim.sgd())
    expect(() =>
      opt.step!(
        optim.objective((q: typeof p) => sum(q.w)),
        p,
        opt.init(p),
      ),
    ).toThrow('losses')
    expect(() => opt.update(p, p, opt.init(p))).toThrow('needs the objective')
    expect(() => optim.multiTask(optim.sgd(), { combine: 'sum' as never })).toThrow('optim.combine')
    expect(() => optim.multiTask(optim.sgd(), { rho: -1 })).toThrow('`rho`')
  })
})
