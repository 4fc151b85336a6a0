import { describe, expect, test } from 'vitest'
import { memory, optim, readAll, tensor } from '../../lib/index.js'
import { roundEven } from '../../lib/memory/frugal-rest.js'
import { coordinateProjector } from '../../lib/memory/projector.js'
import { random } from '../../lib/index.js'
import { far, matrix, walk } from './steps.js'

const shapes = { a: [7, 4], bb: [4, 9] } as const
const choices = ['columns', 'rows', 'elements', 'svd', 'random'] as const
const kept = { updateGap: 2, reset: false, stagger: false }

describe('FRUGAL', () => {
  test.each(choices)('by %s with density 1 is the optimizer itself', async (choice) => {
    const rules = {
      sgd: () => optim.sgd({ lr: 0.1, momentum: 0.9, weightDecay: 0.1 }),
      adamw: () => optim.adamw({ lr: 0.1, weightDecay: 0.1 }),
    }
    // Rules of single elements turn with a basis only where they are linear; and a new one is not that of the states.
    const basis = choice === 'svd' || choice === 'random'
    const whole = basis ? rules.sgd : rules.adamw
    const shots = await walk(whole(), shapes, 5)
    const own = await walk(
      memory.frugal(whole(), { ...kept, updateGap: basis ? 99 : 2, choice, density: 1 }),
      shapes,
      5,
    )
    for (const k of ['a', 'bb']) expect(far(own[4].weights[k], shots[4].weights[k])).toBeLessThan(1e-13)
  })

  test.each(choices)('by %s with density 0 is sign descent', async (choice) => {
    const [a, b] = [
      await walk(
        memory.frugal(optim.adamw({ lr: 0.1, weightDecay: 0.1 }), {
          choice,
          density: 0,
          lrScale: 0.5,
          outsideLrScale: 0.4,
        }),
        shapes,
        4,
      ),
      await walk(optim.signSgd({ lr: 0.1 * 0.2, weightDecay: 0.1 / 0.2 }), shapes, 4),
    ]
    for (const k of ['a', 'bb']) expect(far(a[3].weights[k], b[3].weights[k])).toBeLessThan(1e-13)
    expect(a[3].slots.m.a).toHaveLength(0)
  })

  test('moves what it chose by the rule, and the rest by its sign', async () => {
    const g = matrix(3, 6, 5)
    const w = matrix(1, 6, 5)
    for (const outside of ['signSgd', 'sgd', 'none'] as const) {
      const optimizer = memory.frugal(optim.adamw({ lr: 0.1, weightDecay: 0.5 }), {
        density: 0.4,
        outside,
        outsideLrScale: 0.3,
      })
      const { params, state } = optimizer.update({ w }, { w: g }, optimizer.init({ w }))
      const [p, before, grad, chosen] = await readAll([params.w, w, g, state.slots.chosen.w])
      expect([...chosen]).toEqual([...new Set(chosen)].sort((x, y) => x - y))
      expect(chosen).toHaveLength(2)
      before.forEach((x, i) => {
        const inside = [...chosen].includes(i % 5)
        const rest = outside === 'none' ? 0 : 0.03 * (outside === 'sgd' ? grad[i] : Math.sign(grad[i]))
        // The first step of Adam is one of its sign.
        const step = inside ? (0.1 * grad[i]) / (Math.abs(grad[i]) + 1e-8) : rest
        expect(p[i]).toBeCloseTo(x * 0.95 - step, 12)
      })
    }
  })

  test('chooses evenly, anew each time, differently for each matrix, and the same for the same seed', async () => {
    const { choose } = coordinateProjector('columns', 3, 10, 4)
    const counts = Array.from({ length: 10 }, () => 0)
    const draws = 300
    const now = (key: number) => ({ g: matrix(1, 3, 10), held: [], first: tensor(0), key: random.key(key) })
    for (const list of await readAll(Array.from({ length: draws }, (_, i) => choose(now(i))[0])))
      for (const c of list) counts[c]++
    // Hypergeometric: mean 120 each, standard deviation about 8.5.
    for (const n of counts) expect(Math.abs(n - 0.4 * draws)).toBeLessThan(5 * Math.sqrt(draws * 0.4 * 0.6))

    const run = (seed: number) =>
      walk(
        memory.frugal(optim.sgd({ lr: 0 }), { density: 0.5, updateGap: 2, stagger: false, seed }),
        { a: [3, 16], bb: [3, 16] },
        5,
      )
    const [one, again, other] = [await run(1), await run(1), await run(2)]
    const of = (shots: typeof one, t: number, k: string) => [...shots[t].slots.chosen[k]]
    expect(of(one, 0, 'a')).toEqual(of(again, 0, 'a'))
    expect(of(one, 0, 'a')).not.toEqual(of(other, 0, 'a'))
    expect(of(one, 0, 'a')).not.toEqual(of(one, 0, 'bb'))
    expect(of(one, 1, 'a')).toEqual(of(one, 0, 'a'))
    expect(of(one, 2, 'a')).not.toEqual(of(one, 0, 'a'))
  })

  test('begins states and step count anew at a choice, or keeps them', async () => {
    const ages = async (reset: boolean) =>
      (await walk(memory.frugal(optim.adamw(), { updateGap: 3, reset, stagger: false }), { a: [4, 8] }, 7)).map(
        ({ slots }) => slots.age?.a[0],
      )
    expect(await ages(true)).toEqual([1, 2, 3, 1, 2, 3, 1])
    expect(await ages(false)).toEqual(Array.from({ length: 7 }, () => undefined))
  })

  test('keeps as many numbers as its density says', () => {
    const bytes = memory.frugal(optim.adamw(), { density: 0.25 }).stateBytes({ w: matrix(1, 24, 41) })
    expect(bytes).toEqual({ m: 8 * 24 * 10, v: 8 * 24 * 10, chosen: 4 * 10, due: 4, age: 4 })
  })

  test('rounds as Python does', () => {
    expect([0.5, 1.5, 2.5, 2.4, 2.6, 3].map(roundEven)).toEqual([0, 2, 2, 2, 3, 3])
  })

  test('refuses options that are out of range', () => {
    expect(() => memory.frugal(optim.adamw(), { density: 1.1 })).toThrow(/`density` must be in \[0, 1\]/)
    expect(() => memory.frugal(optim.adamw(), { choice: 'column' as never })).toThrow(/Did you mean `columns`/)
    expect(() => memory.frugal(optim.adamw(), { outside: 'sign' as never })).toThrow(/must be signSgd, sgd or none/)
  })
})
