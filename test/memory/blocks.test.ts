import { describe, expect, test } from 'vitest'
import { memory, optim, readAll, scalar, tensor, type Tensor } from '../../lib/index.js'
import { activeOf } from '../../lib/memory/frugal-blocks.js'
import { grains } from '../../lib/memory/pool.js'
import { far, matrix, walk } from './steps.js'

const shapes = { 'h.0.a': [4, 3], 'h.0.b': [2, 5], 'h.1.a': [4, 6], 'h.2.a': [3, 3], wte: [6, 2] } as const
type Name = keyof typeof shapes
const names = Object.keys(shapes) as Name[]
const blocks: Name[][] = [['h.0.a', 'h.0.b'], ['h.1.a'], ['h.2.a']]

const given = (numbers: Float64Array, k: Name) => tensor(numbers, { shape: shapes[k] })

/** The gradient that `walk` gives by itself. */
const grad = (t: number, name: Name): Tensor => matrix(10 * t + name.length, shapes[name][0], shapes[name][1])

describe('BAdam', () => {
  test.each(['ascending', 'descending', 'random'] as const)(
    'runs the rule on one block after the other, %s',
    async (order) => {
      const adam = () => optim.adamw({ lr: 0.1, weightDecay: 0.1 })
      const every = 3
      const shots = await walk(memory.badam(adam(), { switchEvery: every, order, seed: 5 }), shapes, 6 * every)
      const before = await readAll(names.map((k) => matrix(1, shapes[k][0], shapes[k][1])))
      let last = Object.fromEntries(names.map((k, i) => [k, Float64Array.from(before[i])])) as Record<
        Name,
        Float64Array
      >
      const turns: number[] = []
      for (let turn = 0; turn < 6; turn++) {
        const end = shots[(turn + 1) * every - 1].weights as Record<Name, Float64Array>
        const moved = names.filter((k) => far(end[k], last[k]) > 0)
        const block = blocks.findIndex((b) => b.join() === moved.join())
        expect(block).toBeGreaterThanOrEqual(0)
        turns.push(block)
        // In its turn, a block is moved as by an optimizer that begins there.
        let params: Record<string, Tensor> = Object.fromEntries(moved.map((k) => [k, given(last[k], k)]))
        let state = adam().init(params)
        for (let t = turn * every + 1; t <= (turn + 1) * every; t++)
          ({ params, state } = adam().update(params, Object.fromEntries(moved.map((k) => [k, grad(t, k)])), state))
        for (const k of moved) expect(far(await params[k].read(), end[k])).toBeLessThan(1e-14)
        last = end
      }
      if (order === 'ascending') expect(turns).toEqual([0, 1, 2, 0, 1, 2])
      if (order === 'descending') expect(turns).toEqual([2, 1, 0, 2, 1, 0])
      for (const round of [turns.slice(0, 3), turns.slice(3)]) expect([...round].sort()).toEqual([0, 1, 2])
    },
  )

  test('has states for its largest block only, and moves nothing else', () => {
    const params = Object.fromEntries(names.map((k) => [k, grad(1, k)]))
    const optimizer = memory.badam(optim.adamw())
    const largest = Math.max(...blocks.map((b) => b.reduce((n, k) => n + grains(shapes[k][0] * shapes[k][1]), 0)))
    expect(optimizer.stateBytes(params)).toEqual({ m: 8 * largest, v: 8 * largest })
    expect(optimizer.moved(params)).toEqual(names.filter((k) => k !== 'wte'))
  })

  test('refuses models without numbers in their names', () => {
    expect(() => memory.badam(optim.adamw()).init({ a: grad(1, 'wte') })).toThrow(
      /none of these parameters is in a block.*Say which/s,
    )
    expect(() => memory.badam(optim.sam(optim.sgd()))).toThrow(/gradient alone/)
    expect(() => memory.badam(optim.adamw(), { switchEvery: 0 })).toThrow(/switchEvery/)
  })
})

describe('FRUGAL by blocks', () => {
  const active = async (
    order: 'random' | 'ascending' | 'descending' | 'mirror',
    n: number,
    count: number,
    choices: number,
  ) => {
    const lists = await readAll(
      Array.from({ length: choices }, (_, i) => activeOf(order, n, count, scalar(i, 'float64'), 3)),
    )
    return lists.map((list) => [...list].flatMap((x, i) => (x ? [i] : [])))
  }

  test('takes as many as it should, in order', async () => {
    expect(await active('ascending', 5, 2, 4)).toEqual([
      [0, 1],
      [2, 3],
      [0, 4],
      [1, 2],
    ])
    expect(await active('descending', 5, 2, 3)).toEqual([
      [3, 4],
      [1, 2],
      [0, 4],
    ])
    expect(await active('mirror', 4, 2, 5)).toEqual([
      [0, 1],
      [2, 3],
      [2, 3],
      [0, 1],
      [0, 1],
    ])
    const drawn = await active('random', 6, 2, 60)
    expect(drawn.every((list) => list.length === 2)).toBe(true)
    const counts = Array.from({ length: 6 }, (_, i) => drawn.flat().filter((x) => x === i).length)
    for (const n of counts) expect(Math.abs(n - 20)).toBeLessThan(5 * Math.sqrt(60 * (1 / 3) * (2 / 3)))
  })

  test('moves active matrices by the rule and the others by their sign', async () => {
    const [lr, wd, gap] = [0.1, 0.2, 2]
    const adam = () => optim.adamw({ lr, weightDecay: wd })
    const options = { choice: 'blocks', density: 0.5, updateGap: gap, order: 'ascending', match: names } as const
    const shots = await walk(memory.frugal(adam(), { ...options, match: names.slice(0, 4) }), shapes, 6)
    let last = shots[1].weights
    for (let t = 3; t <= 6; t += 2) {
      const on = t === 3 ? [2, 3] : [0, 1]
      for (const [i, k] of names.slice(0, 4).entries()) {
        let params: Record<string, Tensor> = { w: given(last[k], k) }
        const rule = on.includes(i) ? adam() : optim.signSgd({ lr, weightDecay: wd })
        let state = rule.init(params)
        for (const s of [t, t + 1]) ({ params, state } = rule.update(params, { w: grad(s, k) }, state))
        expect(far(await params.w.read(), shots[t].weights[k]), `${k} at ${t}`).toBeLessThan(1e-14)
      }
      last = shots[t].weights
    }
  })

  test('keeps states of matrices that stay active where it is told to', async () => {
    const adam = () => optim.adamw({ lr: 0.1 })
    const options = { choice: 'blocks', density: 1, updateGap: 2, match: names } as const
    const kept = await walk(memory.frugal(adam(), { ...options, reset: false }), shapes, 5)
    const whole = await walk(adam(), shapes, 5)
    for (const k of names) expect(far(kept[4].weights[k], whole[4].weights[k])).toBeLessThan(1e-14)
    const anew = await walk(memory.frugal(adam(), options), shapes, 5)
    for (const k of names) expect(far(anew[4].weights[k], whole[4].weights[k])).toBeGreaterThan(1e-3)
  })

  test('has states for so many of the largest matrices', () => {
    const params = Object.fromEntries(names.map((k) => [k, grad(1, k)]))
    const optimizer = memory.frugal(optim.adamw(), { choice: 'blocks', density: 0.5, match: names.slice(0, 4) })
    // Each takes 64 places; two of them at a time. The fifth is the optimizer's own.
    expect(optimizer.stateBytes(params)).toEqual({ m: 8 * (128 + 12), v: 8 * (128 + 12), age: 4 * 4 })
  })
})
