import { describe, expect, test } from 'vitest'
import { add, compile, mul, optim, random, readAll, square, sub, sum, tensor, type Tensor } from '../../lib/index.js'

type P = Record<string, Tensor>
const f64 = (numbers: number[]) => tensor(Float64Array.from(numbers), { dtype: 'float64' })
const bends: Record<string, number> = { a: 100, b: 1, c: 0.01 }
const start = (): P => ({ a: f64([1, 2]), b: f64([3, -1, 2]), c: f64([4]) })
/** Each block a bowl of its own. */
const loss = (p: P) =>
  Object.entries(bends)
    .map(([k, bend]) => mul(sum(square(sub(p[k], 0.5))), bend / 2))
    .reduce(add)

async function drive(opt: optim.Optimizer, steps: number) {
  const step = compile(
    (p: P, s: optim.OptimizerState, key: Tensor) => {
      const next = opt.step!(optim.objective(loss, key), p, s)
      return { params: next.params, state: next.state }
    },
    { donate: [0, 1] },
  )
  let params = start()
  let state = opt.init(params)
  const moved: string[][] = []
  let before = await readAll(Object.values(params))
  for (let t = 0; t < steps; t++) {
    ;({ params, state } = step(params, state, random.key(t)))
    const after = await readAll(Object.values(params))
    moved.push(Object.keys(params).filter((_, i) => after[i].some((v, k) => v !== before[i][k])))
    before = after
  }
  return { params, state, moved, end: await loss(params).item() }
}

describe('blockwise', () => {
  test.each(['random', 'cyclic', 'lipschitz', 'gs', 'gsl'] as const)('%s moves one block a step', async (rule) => {
    const { moved, end } = await drive(optim.blockwise(optim.adamw({ lr: 0.1 }), { rule, scaled: false }), 12)
    for (const names of moved) expect(names).toHaveLength(1)
    expect(end).toBeLessThan(await loss(start()).item())
    if (rule === 'cyclic') expect(moved.slice(0, 4).flat()).toEqual(['a', 'b', 'c', 'a'])
    if (rule === 'random') expect(new Set(moved.flat()).size).toBe(3)
  })

  test('leaves the states of the others as they are', async () => {
    const opt = optim.blockwise(optim.adamw({ lr: 0.1 }), { rule: 'gs', scaled: false })
    const { state, moved } = await drive(opt, 1)
    expect(moved).toEqual([['a']])
    const [a, b] = await readAll([state.slots.v.a, state.slots.v.b])
    expect(a.every((v) => v > 0)).toBe(true)
    expect([...b]).toEqual([0, 0, 0])
    expect(Object.keys(state.slots).sort()).toEqual(['m', 'v'])
  })

  test('measures the curvature of every block, and a step of length 1 over it ends at the bottom', async () => {
    const { state, moved, end } = await drive(optim.blockwise(optim.sgd({ lr: 1 })), 3)
    const names = Object.keys(bends)
    const read = await readAll(names.map((k) => state.slots.curvature[k]))
    names.forEach((k, i) => expect(read[i][0]).toBeCloseTo(bends[k], 9))
    expect(moved.flat().sort()).toEqual(names)
    expect(end).toBeLessThan(1e-20)
  })

  test('takes blocks of several parameters, and says what does not fit', async () => {
    const opt = optim.blockwise(optim.sgd({ lr: 0.1 }), {
      rule: 'cyclic',
      scaled: false,
      block: (k) => (k === 'c' ? 'x' : 'y'),
    })
    expect((await drive(opt, 2)).moved).toEqual([['a', 'b'], ['c']])
    expect(() => optim.blockwise(optim.lbfgs())).toThrow('not one for all together')
    expect(() => optim.blockwise(optim.sgd(), { rule: 'best' as 'gs' })).toThrow('`rule`')
  })
})
