import { describe, expect, test } from 'vitest'
import {
  compile,
  eye,
  matmul,
  memory,
  optim,
  readAll,
  sub,
  svd,
  sum,
  square,
  tensor,
  type Tensor,
  transpose,
} from '../../lib/index.js'
import { poweredBases, randomBasis, singularBases } from '../../lib/memory/basis.js'
import { galoreWith } from '../../lib/memory/galore.js'
import type { Given } from '../../lib/memory/projected.js'
import { PROJ_TYPES, project, projectBack, spaceOf } from '../../lib/memory/projection.js'
import { random } from '../../lib/index.js'
import { far, item, matrix, walk } from './steps.js'
import { Net, numbers } from './training.js'

describe('projections', () => {
  test.each(PROJ_TYPES)('%s by singular vectors leaves out the energy of the other singular values', async (type) => {
    for (const [rows, cols, rank] of [
      [9, 5, 2],
      [5, 9, 3],
      [6, 6, 1],
    ]) {
      const g = matrix(rows, rows, cols)
      const space = spaceOf(type, rank, rows, cols)
      const bases = singularBases(space, g)
      const back = projectBack(space, bases, project(space, bases, g))
      const values = await svd(g).s.read()
      const left = values.slice(rank).reduce((n, x) => n + x * x, 0)
      expect(await item(sum(square(sub(g, back))))).toBeCloseTo(left, 10)
      // Projected again, it stays.
      const again = projectBack(space, bases, project(space, bases, back))
      expect(far(await again.read(), await back.read())).toBeLessThan(1e-12)
    }
  })

  test.each(PROJ_TYPES)('%s by power iteration comes near singular vectors and keeps signs', async (type) => {
    const [rows, cols, rank] = [12, 9, 3]
    // Singular values fall by halves.
    const [u, v] = [
      randomBasis(rows, cols, random.key(1), 'float64'),
      randomBasis(cols, cols, random.key(2), 'float64'),
    ]
    const values = tensor(Float64Array.from({ length: cols }, (_, i) => 2 ** -i))
    const g = matmul(u.mul(values), transpose(v))
    const space = spaceOf(type, rank, rows, cols)
    const before = {
      left: space.left ? randomBasis(rows, rank, random.key(3), 'float64') : undefined,
      right: space.right ? randomBasis(cols, rank, random.key(4), 'float64') : undefined,
    }
    const exact = singularBases(space, g)
    const near = poweredBases(space, g, before, 12)
    for (const side of ['left', 'right'] as const) {
      if (!near[side]) continue
      const cosines = await matmul(transpose(exact[side]!), near[side]).read()
      for (let i = 0; i < rank; i++) {
        for (let j = 0; j < rank; j++) expect(Math.abs(cosines[i * rank + j])).toBeCloseTo(i === j ? 1 : 0, 6)
      }
      const gram = await sub(matmul(transpose(near[side]), near[side]), eye(rank, { dtype: 'float64' })).read()
      expect(Math.max(...gram.map(Math.abs))).toBeLessThan(1e-12)
    }
    if (space.left || space.right) {
      const side = space.left ? 'left' : 'right'
      const dots = await sum(near[side]!.mul(before[side]!), { axis: 0 }).read()
      for (const d of dots) expect(d).toBeGreaterThanOrEqual(0)
    }
  })

  test('have no more dimensions than the matrix', () => {
    expect(spaceOf('std', 99, 4, 7)).toMatchObject({ rank: 4, low: [4, 7], left: true, right: false })
    expect(spaceOf('reverseStd', 99, 4, 7)).toMatchObject({ rank: 4, low: [4, 4], left: false, right: true })
    expect(spaceOf('full', 2, 4, 7)).toMatchObject({ low: [2, 2] })
    expect(spaceOf('std', 2, 5, 5)).toMatchObject({ left: false, right: true })
  })
})

describe('GaLore', () => {
  const shapes: Record<string, [number, number]> = { a: [7, 4], bb: [4, 9] }

  test('of SGD in all dimensions is SGD', async () => {
    const sgd = () => optim.sgd({ lr: 0.1, momentum: 0.9, weightDecay: 0.1 })
    for (const states of ['rotate', 'keep'] as const) {
      // With states that turn along, the choice of the basis does not matter; kept ones must not see another.
      const options = { rank: 99, updateGap: states === 'keep' ? 99 : 2, scale: 1, states, stagger: false }
      const [low, whole] = [await walk(memory.galore(sgd(), options), shapes, 6), await walk(sgd(), shapes, 6)]
      for (const k of ['a', 'bb']) expect(far(low[5].weights[k], whole[5].weights[k]), k).toBeLessThan(1e-12)
    }
  })

  test('does not see the signs of a basis before the second choice', async () => {
    const options = { rank: 2, updateGap: 4, stagger: false, scale: 1 }
    const given =
      (signs: number[]): Given =>
      (name, { space: of }) => {
        const space = of!
        const length = space.left ? space.rows : space.cols
        const basis = randomBasis(length, 2, random.key(name.length), 'float64').mul(tensor(Float64Array.from(signs)))
        return [basis]
      }
    const adam = () => optim.adamw({ lr: 0.1 })
    const runs = [
      await walk(galoreWith(adam(), options, given([1, 1])), shapes, 4),
      await walk(galoreWith(adam(), options, given([-1, 1])), shapes, 4),
    ]
    for (const k of ['a', 'bb']) expect(far(runs[0][3].weights[k], runs[1][3].weights[k])).toBeLessThan(1e-13)
    expect(far(runs[0][3].slots.m.a, runs[1][3].slots.m.a)).toBeGreaterThan(1e-3)
  })

  test('lets matrices take turns', async () => {
    const many = Object.fromEntries(Array.from({ length: 8 }, (_, i) => [`w${i}`, [5, 4] as [number, number]]))
    const steps = 40
    const choices = async (stagger: boolean) => {
      const shots = await walk(memory.galore(optim.sgd({ lr: 0 }), { rank: 2, updateGap: 8, stagger }), many, steps)
      return shots
        .slice(1)
        .map(({ slots }, t) => Object.keys(many).filter((k) => far(slots.basis[k], shots[t].slots.basis[k]) > 0).length)
    }
    const turns = await choices(true)
    // After the first step, which all need, none has to choose more than a few.
    expect(Math.max(...turns)).toBeLessThanOrEqual(3)
    expect(turns.reduce((a, b) => a + b)).toBeGreaterThan(8 * 3)
    const together = await choices(false)
    expect(together.filter((n) => n > 0)).toEqual([8, 8, 8, 8])
    expect([7, 15, 23, 31].map((t) => together[t])).toEqual([8, 8, 8, 8])
  })

  test.each([NaN, Infinity, 0])('puts a choice off while gradients are %s', async (value) => {
    const bad = tensor(
      Float64Array.from(numbers(1, 28), (x, i) => (value === 0 || i === 3 ? value : x)),
      { shape: [7, 4] },
    )
    const optimizer = memory.galore(optim.sgd({ lr: 0.1 }), { rank: 2, updateGap: 3, stagger: false })
    for (const late of [1, 4]) {
      const shots = await walk(optimizer, { a: [7, 4] }, 6, (t) => (t === late ? bad : matrix(t, 7, 4)))
      const was =
        late === 1 ? await readAll([optimizer.init({ a: matrix(1, 7, 4) }).slots.basis.a]) : [shots[2].slots.basis.a]
      expect([...shots[late - 1].slots.basis.a]).toEqual([...was[0]])
      // The next gradient that tells something is taken.
      expect(far(shots[late].slots.basis.a, was[0])).toBeGreaterThan(1e-3)
      expect(shots[5].slots.basis.a.every(Number.isFinite)).toBe(true)
      // The choice after it comes when it would have come.
      const turns = shots.flatMap(({ slots }, t) =>
        t > 0 && far(slots.basis.a, shots[t - 1].slots.basis.a) > 0 ? [t + 1] : [],
      )
      expect(turns).toEqual(late === 1 ? [2, 4] : [5])
    }
  })

  test('is the same compiled', async () => {
    const optimizer = memory.galore(optim.adamw({ lr: 0.05 }), { rank: 2, updateGap: 2, states: 'reset' })
    const eager = await walk(optimizer, shapes, 5)
    const step = compile(
      (p: Record<string, Tensor>, s: optim.OptimizerState, g: Record<string, Tensor>) => optimizer.update(p, g, s),
      { donate: [0, 1] },
    )
    let params: Record<string, Tensor> = { a: matrix(1, 7, 4), bb: matrix(1, 4, 9) }
    let state = optimizer.init(params)
    for (let t = 1; t <= 5; t++)
      ({ params, state } = step(params, state, { a: matrix(10 * t + 1, 7, 4), bb: matrix(10 * t + 2, 4, 9) }))
    expect(Float64Array.from(await params.a.read())).toEqual(eager[4].weights.a)
    expect(Float64Array.from(await params.bb.read())).toEqual(eager[4].weights.bb)
  })

  test('keeps as many numbers as the paper says', () => {
    const [m, n, r] = [24, 40, 6]
    const bytes = memory.galore(optim.adamw(), { rank: r }).stateBytes({ w: matrix(1, m, n), b: tensor([1, 2]) })
    // Moments of [r, n] and of the bias; the basis [m, r].
    expect(bytes).toEqual({ m: 8 * r * n + 4 * 2, v: 8 * r * n + 4 * 2, basis: 8 * m * r, due: 4 })
  })

  test('moves tensors of more axes as matrices where it is told to', async () => {
    const w = tensor(numbers(1, 60), { shape: [5, 3, 4] })
    const optimizer = memory.galore(optim.sgd({ lr: 0.1 }), { rank: 99, scale: 1, match: ['w'] })
    const { params } = optimizer.update({ w }, { w }, optimizer.init({ w }))
    expect(
      far(
        await params.w.read(),
        (await w.read()).map((x) => 0.9 * x),
      ),
    ).toBeLessThan(1e-12)
  })
})

describe('refuses', () => {
  test('what it cannot run on, with what to do', () => {
    expect(() => memory.galore(optim.sam(optim.sgd()))).toThrow(/memory.galore.*gradient alone.*other way round/s)
    expect(() => memory.galore(optim.scheduleFreeAdamw())).toThrow(/gradient alone/)
    expect(() => memory.galore(optim.adamw(), { rank: 0 })).toThrow(/`rank` must be a whole number of 1 or more/)
    expect(() => memory.galore(optim.adamw(), { projType: 'reverse' as never })).toThrow(/Did you mean|must be std/)
    expect(() => memory.galore(optim.adamw(), { ranks: 2 } as never)).toThrow(/rank/)
    expect(() => memory.galore(optim.adamw(), { scale: 0 })).toThrow(/`scale` must be in \(0, ∞\)/)
    expect(() => memory.galore(optim.adamw(), { match: /nothing/ }).init(new Net())).toThrow(
      /takes none of these parameters/,
    )
  })
})

describe('states in eight bits', () => {
  test('go into the small space, and out of a method that has them', async () => {
    const base = () => optim.adamw({ min8bitSize: 16 })
    const params = { w: matrix(1, 24, 40).cast('float32') }
    for (const make of [
      (o: optim.Optimizer) => memory.galore(o, { rank: 4 }),
      (o: optim.Optimizer) => memory.fira(o, { rank: 4 }),
      (o: optim.Optimizer) => memory.frugal(o),
      (o: optim.Optimizer) => memory.frugal(o, { choice: 'blocks', density: 1 }),
      (o: optim.Optimizer) => memory.badam(o, { blocks: [/w/] }),
    ]) {
      const small = make(base()).in8bits!()
      expect(small.name).toBe(make(base()).name)
      expect(small.in8bits).toBeUndefined()
      const [whole, bytes] = [make(base()).stateBytes(params), small.stateBytes(params)]
      expect(bytes.m).toBe(whole.m / 4)
      expect(bytes).toEqual(make(optim.adamw({ states: '8bit', min8bitSize: 16 })).stateBytes(params))
    }
    const turned = memory.galore(optim.adamw({ states: '8bit', min8bitSize: 16 }), { rank: 4, states: 'rotate' })
    expect(() => turned.update(params, params, turned.init(params))).toThrow(/eight bits cannot be turned/)
  })
})
