import { expect, test } from 'vitest'
import { memory, readAll, tensor, type Tensor } from '../../lib/index.js'
import { far } from './steps.js'
import { numbers } from './training.js'

const rms = (x: ArrayLike<number>) => Math.sqrt(Array.from(x).reduce((n, v) => n + v * v, 0) / x.length)

/** The authors' step on a matrix (n > 0) or a vector (n = 0), in plain numbers. */
function reference(
  w: number[],
  grads: readonly Float64Array[],
  m: number,
  n: number,
  lr: number,
  decay: number,
): number[] {
  const [row, col, v] = [new Float64Array(m), new Float64Array(n), new Float64Array(m)]
  grads.forEach((g, step) => {
    const beta = 1 - (step + 1) ** -0.8
    const squares = g.map((x) => x * x + 1e-30)
    let u: number[]
    if (n > 0) {
      for (let i = 0; i < m; i++)
        row[i] = beta * row[i] + (1 - beta) * (squares.slice(i * n, (i + 1) * n).reduce((a, b) => a + b) / n)
      for (let j = 0; j < n; j++) {
        const down = Array.from({ length: m }, (_, i) => squares[i * n + j])
        col[j] = beta * col[j] + ((1 - beta) * down.reduce((a, b) => a + b)) / m
      }
      const all = row.reduce((a, b) => a + b) / m
      u = Array.from(g, (x, at) => x / Math.sqrt((row[Math.floor(at / n)] / all) * col[at % n]))
    } else {
      squares.forEach((x, i) => (v[i] = beta * v[i] + (1 - beta) * x))
      u = Array.from(g, (x, i) => x / Math.sqrt(v[i]))
    }
    const rate = (lr * Math.max(rms(w), 1e-3)) / Math.max(rms(u), 1)
    w = w.map((x, i) => x * (1 - lr * decay) - rate * u[i])
  })
  return w
}

test('AdaLOMO is the authors’ step, with m + n states a matrix', async () => {
  const optimizer = memory.adalomo({ lr: 0.05, weightDecay: 0.1 })
  let params: Record<string, Tensor> = { a: tensor(numbers(1, 20), { shape: [4, 5] }), b: tensor(numbers(2, 3)) }
  let state = optimizer.init(params)
  const grads = Array.from({ length: 6 }, (_, t) => ({ a: numbers(t + 5, 20), b: numbers(t + 15, 3) }))
  for (const g of grads)
    ({ params, state } = optimizer.update(params, { a: tensor(g.a, { shape: [4, 5] }), b: tensor(g.b) }, state))
  const [a, b] = await readAll([params.a, params.b])
  expect(
    far(
      a,
      reference(
        [...numbers(1, 20)],
        grads.map((g) => g.a),
        4,
        5,
        0.05,
        0.1,
      ),
    ),
  ).toBeLessThan(1e-13)
  expect(
    far(
      b,
      reference(
        [...numbers(2, 3)],
        grads.map((g) => g.b),
        3,
        0,
        0.05,
        0.1,
      ),
    ),
  ).toBeLessThan(1e-13)
  expect(optimizer.stateBytes(params)).toEqual({ row: 8 * 4, col: 8 * 5, v: 8 * 3 })
  expect(() => memory.adalomo({ lr: 1, beta: 2 } as never)).toThrow(/beta/)
})
