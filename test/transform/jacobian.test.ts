import { expect, test } from 'vitest'
import {
  add,
  hessian,
  jacobian,
  matmul,
  mean,
  mul,
  perExampleGrads,
  reshape,
  sin,
  square,
  sub,
  sum,
  tanh,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { random } from '../../lib/ops/random.js'

const f64 = (data: readonly number[], shape: readonly number[] = [data.length]) =>
  tensor(Float64Array.from(data), { shape })

test('the jacobian is that of differences, through matrices and nonlinear ops', async () => {
  const w = random.normal(random.key(1), [3, 4], { dtype: 'float64' })
  const f = (x: Tensor) => tanh(matmul(reshape(x, [2, 3]), w))
  const x = [0.3, -0.2, 0.5, 1, -1, 0.1]
  const j = jacobian(f)(f64(x))
  expect(j.shape).toEqual([2, 4, 6])
  const got = await j.read()
  for (let i = 0; i < 6; i++) {
    const moved = (by: number) => f(f64(x.map((v, k) => (k === i ? v + by : v)))).read()
    const [up, down] = [await moved(1e-6), await moved(-1e-6)]
    for (let o = 0; o < 8; o++) expect(got[o * 6 + i]).toBeCloseTo((up[o] - down[o]) / 2e-6, 8)
  }
})

test('the hessian of a quadratic form is its matrix', async () => {
  const a = f64([2, 1, 0, 1, 3, -1, 0, -1, 4], [3, 3])
  const h = hessian((x: Tensor) => mul(sum(mul(x, matmul(a, x))), 0.5))(f64([1, 2, 3]))
  expect([...(await h.read())]).toEqual([2, 1, 0, 1, 3, -1, 0, -1, 4])
})

test('gradients by example are those of a loop', async () => {
  const params = { w: f64([0.5, -1, 2]), b: f64([0.1]) }
  const loss = (p: typeof params, { x, y }: { x: Tensor; y: Tensor }) =>
    mean(square(sub(add(sum(mul(sin(p.w), x)), p.b), y)))
  const x = [1, 2, 3, -1, 0, 1]
  const both = perExampleGrads(loss)(params, { x: f64(x, [2, 3]), y: f64([1, 2]) })
  expect(both.w.shape).toEqual([2, 3])
  const rows = await both.w.read()
  for (const n of [0, 1]) {
    const one = jacobian((p: typeof params) => loss(p, { x: f64(x.slice(3 * n, 3 * n + 3)), y: sum(f64([n + 1])) }))(
      params,
    )
    ;(await one.w.read()).forEach((v, i) => expect(rows[3 * n + i]).toBeCloseTo(Number(v), 13))
  }
})

test('an error tells the line of the user', () => {
  const mine = () => add(f64([1, 2]), f64([1, 2, 3]))
  expect(mine).toThrow(/jacobian\.test\.ts:\d+:\d+\)$/)
})
