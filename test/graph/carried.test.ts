import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { schedule } from '../../lib/graph/graph.js'
import { add, compile, grad, linearize, mul, scan, sin, sub, sum, tensor, type Tensor, vjp } from '../../lib/index.js'

const child = join(import.meta.dirname, 'children/eager.mjs')
const f64 = (data: number[]) => tensor(data, { dtype: 'float64' })

test.each(['sync', 'turns'])(
  '100,000 eager ops without a read grow neither heap nor process, %s',
  async (how) => {
    const rounds = 7000
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', child, String(rounds), how])
    const { heap, resident, first, idle } = JSON.parse(stdout) as Record<string, number>
    let [w, m] = [1, 0]
    for (let i = 0; i < rounds; i++) {
      m = 0.9 * m + Math.cos(w)
      w -= 0.001 * m
    }
    expect(first).toBeCloseTo(w, 10)
    expect(idle).toBe(Math.sin(1))
    // The nodes of nine tenths of the rounds are some 60 MB.
    expect(heap).toBeLessThan(3)
    expect(resident).toBeLessThan(80)
  },
  120_000,
)

test('a loop that reads its loss hangs on the round before only, and states that are never read come along', async () => {
  let w = f64([0.5, 2])
  let m = f64([0, 0])
  const lengths: number[] = []
  for (let i = 0; i < 12; i++) {
    const loss = sum(sin(w))
    m = add(mul(m, 0.9), grad((t: Tensor) => sum(sin(t)))(w))
    w = sub(w, mul(m, 0.1))
    await loss.item()
    lengths.push(schedule([w, m]).length)
  }
  expect(Math.max(...lengths)).toBe(lengths[1])
  let [x, v] = [2, 0]
  for (let i = 0; i < 12; i++) {
    v = 0.9 * v + Math.cos(x)
    x -= 0.1 * v
  }
  expect((await w.read())[1]).toBeCloseTo(x, 13)
})

test('a pullback and a linear map hold when their output was read, and when what they keep was evaluated', async () => {
  const f = (x: Tensor) => mul(sin(x), x)
  const x = f64([1, 2])
  const slope = [1, 2].map((v) => Math.sin(v) + v * Math.cos(v))
  const [y, pull] = vjp(f, x)
  const [z, along] = linearize(f, x)
  for (let round = 0; round < 3; round++) {
    expect((await y.read())[0]).toBeCloseTo(Math.sin(1), 14)
    expect((await z.read())[0]).toBeCloseTo(Math.sin(1), 14)
    for (const got of [pull(f64([1, 1]))[0], along(f64([1, 1]))]) {
      ;(await got.read()).forEach((v, i) => expect(v).toBeCloseTo(slope[i], 13))
    }
  }
})

test('lines that fall into the middle of a transform change no gradient', async () => {
  // Whatever the nodes before: some of these begin just before the line.
  for (let before = 0; before < 2200; before += 440) {
    let x = f64([0.3])
    for (let i = 0; i < before; i++) x = add(x, 0)
    const f = (t: Tensor) => {
      let y = t
      for (let i = 0; i < 40; i++)
        y = add(sin(y), scan((c: Tensor, s: Tensor) => ({ carry: mul(c, s), y: null }), t, f64([0.1])).carry)
      return sum(y)
    }
    const straight = await compile(grad(f))(f64([0.3])).item()
    expect(await grad(f)(x).item()).toBeCloseTo(straight, 12)
  }
}, 60_000)
