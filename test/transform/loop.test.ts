import { expect, test } from 'vitest'
import {
  add,
  cast,
  compile,
  cond,
  exp,
  grad,
  hvp,
  jvp,
  less,
  mul,
  scan,
  sin,
  sum,
  tensor,
  type Tensor,
  vmap,
  whileLoop,
} from '../../lib/index.js'

const f64 = (data: number[] | number[][]) => tensor(data, { dtype: 'float64' })
const STEP = 1e-6

const xs = f64([[0.1], [0.2], [0.3], [-1]])
const recurrence = (w: Tensor, reverse = false) => {
  const { carry, ys } = scan(
    (c: Tensor, x: Tensor) => {
      const next = sin(add(mul(c, w), x))
      return { carry: next, y: mul(next, next) }
    },
    f64([0.1]),
    xs,
    { reverse },
  )
  return sum(add(sum(ys), sum(carry)))
}

const plain = (w: number, list: number[]) => {
  let c = 0.1
  let total = 0
  for (const x of list) {
    c = Math.sin(c * w + x)
    total += c * c
  }
  return total + c
}

test('scan hands its carry on, in both directions, and captures what it uses', async () => {
  expect(await recurrence(f64([0.5])).item()).toBeCloseTo(plain(0.5, [0.1, 0.2, 0.3, -1]), 14)
  expect(await recurrence(f64([0.5]), true).item()).toBeCloseTo(plain(0.5, [-1, 0.3, 0.2, 0.1]), 14)
  const compiled = compile(recurrence)
  expect(await compiled(f64([0.5])).item()).toBeCloseTo(plain(0.5, [0.1, 0.2, 0.3, -1]), 14)
})

test('first and second derivatives of scan, and jvp, are those of differences', async () => {
  for (const reverse of [false, true]) {
    const f = (w: Tensor) => recurrence(w, reverse)
    const at = async (v: number) => f(f64([v])).item()
    const slope = async (v: number) => (await grad(f)(f64([v])).read())[0]
    expect(await slope(0.5)).toBeCloseTo(((await at(0.5 + STEP)) - (await at(0.5 - STEP))) / (2 * STEP), 7)
    const [second] = await hvp(f, f64([0.5]), f64([1])).read()
    expect(second).toBeCloseTo(((await slope(0.5 + STEP)) - (await slope(0.5 - STEP))) / (2 * STEP), 7)
    const [, along] = jvp(f, [f64([0.5])], [f64([2])])
    expect(await along.item()).toBeCloseTo(2 * (await slope(0.5)), 12)
  }
})

test('vmap of scan and of its gradient is a loop', async () => {
  const ws = [0.5, 0.2, -1]
  const batch = f64(ws.map((w) => [w]))
  const values = await vmap((w: Tensor) => recurrence(w))(batch).read()
  const slopes = await vmap(grad((w: Tensor) => recurrence(w)))(batch).read()
  for (const [i, w] of ws.entries()) {
    expect(values[i]).toBeCloseTo(plain(w, [0.1, 0.2, 0.3, -1]), 13)
    expect(slopes[i]).toBeCloseTo((await grad((v: Tensor) => recurrence(v))(f64([w])).read())[0] as number, 13)
  }
})

test('a scan of no steps gives its init, and scans nest', async () => {
  const { carry, ys } = scan(
    (c: Tensor, x: Tensor) => ({ carry: add(c, x), y: c }),
    f64([3]),
    tensor(new Float64Array(0), { shape: [0, 1], dtype: 'float64' }),
  )
  expect([...(await carry.read())]).toEqual([3])
  expect(ys.shape).toEqual([0, 1])
  const table = f64([
    [1, 2],
    [3, 4],
  ])
  const outer = (x: Tensor) =>
    scan(
      (c: Tensor, row: Tensor) => {
        const inner = scan((d: Tensor, v: Tensor) => ({ carry: mul(d, v), y: null }), c, row)
        return { carry: inner.carry, y: inner.carry }
      },
      sum(f64([1])),
      x,
    ).carry
  expect(await outer(table).item()).toBe(24)
  expect([...(await grad(outer)(table).read())]).toEqual([24, 12, 8, 6])
})

test('cond takes one branch, by the number, and so does its gradient', async () => {
  const f = (x: Tensor) =>
    sum(
      cond(
        less(sum(x), 1),
        (t: Tensor) => mul(t, t),
        (t: Tensor) => exp(t),
        x,
      ),
    )
  expect(await f(f64([0.5])).item()).toBe(0.25)
  expect(await f(f64([2])).item()).toBeCloseTo(Math.exp(2), 13)
  expect((await grad(f)(f64([0.5])).read())[0]).toBe(1)
  expect((await grad(f)(f64([2])).read())[0]).toBeCloseTo(Math.exp(2), 13)
  const both = await vmap(f)(f64([[0.5], [2]])).read()
  expect(both[0]).toBe(0.25)
  expect(both[1]).toBeCloseTo(Math.exp(2), 13)
})

test('whileLoop runs until its test fails, alone and mapped', async () => {
  const double = (x: Tensor) =>
    whileLoop(
      (s: Tensor) => less(sum(s), 100),
      (s: Tensor) => mul(s, 2),
      x,
    )
  expect((await double(f64([3])).read())[0]).toBe(192)
  expect([...(await vmap(double)(f64([[3], [200], [99]])).read())]).toEqual([192, 200, 198])
})

test('loops say what is wrong', () => {
  expect(() => scan((c: Tensor) => ({ carry: cast(c, 'float32'), y: null }), f64([1]), null, { length: 2 })).toThrow(
    /carry that a step returns/,
  )
  expect(() => scan((c: Tensor) => ({ carry: c, y: null }), f64([1]), null)).toThrow(/length/)
  expect(() =>
    cond(
      f64([1, 2]),
      () => f64([1]),
      () => f64([1]),
    ),
  ).toThrow(/scalar/)
  expect(() =>
    cond(
      sum(f64([1])),
      () => f64([1]),
      () => f64([1, 2]),
    ),
  ).toThrow(/same shapes/)
  expect(() =>
    grad((x: Tensor) =>
      sum(
        whileLoop(
          (s: Tensor) => less(sum(s), 9),
          (s: Tensor) => mul(s, 2),
          x,
        ),
      ),
    )(f64([1])),
  ).toThrow(/use scan/)
})

test('a body takes one output of a node outside and not the others', async () => {
  const pair = (x: Tensor) =>
    whileLoop(
      ([i]) => less(i, 2),
      ([i, y]) => [add(i, 1), mul(y, 3)],
      [tensor(0), x],
    )
  const outer = whileLoop(
    ([i]) => less(i, 2),
    ([i, y]) => {
      const [, tripled] = pair(y)
      const [, sums] = whileLoop(
        ([j]) => less(j, 2),
        ([j, z]) => [add(j, 1), add(z, tripled)],
        [tensor(0), y],
      )
      return [add(i, 1), sums]
    },
    [tensor(0), tensor(1)],
  )
  // Each round: y + 2 · 9y.
  expect(await outer[1].item()).toBe(19 ** 2)
})
