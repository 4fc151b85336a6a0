import { describe, expect, test } from 'vitest'
import { argsort, searchsorted, sort, topK } from '../../lib/ops/sort.js'
import { cast } from '../../lib/ops/elementwise.js'
import { tensor, transpose } from '../../lib/ops/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { checkDerivatives, checkVmap, random } from './differences.js'
import { expectSameBits } from './threads.js'
import { cases as rowCases } from './cases/sort.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const list = async (t: Tensor) => [...(await t.read())]

describe('sort', () => {
  test('is stable, with NaN last in either direction', async () => {
    const x = tensor([Number.NaN, 1, -0, 3, 0, 1, -Infinity])
    expect(await list(argsort(x))).toEqual([6, 2, 4, 1, 5, 3, 0])
    expect(await list(argsort(x, { descending: true }))).toEqual([3, 1, 5, 2, 4, 6, 0])
    expect(await list(sort(x))).toEqual([-Infinity, -0, 0, 1, 1, 3, Number.NaN])
  })

  test('of any axis and integer dtype', async () => {
    const x = tensor(
      [
        [3, 1],
        [2, 2],
        [1, 9],
      ],
      { dtype: 'int32' },
    )
    expect(await list(sort(x, { axis: 0 }))).toEqual([1, 1, 2, 2, 3, 9])
    expect(await list(sort(transpose(x), { axis: -1, descending: true }))).toEqual([3, 2, 1, 9, 2, 1])
    expect(await list(sort(tensor([200, 3, 100], { dtype: 'uint8' })))).toEqual([3, 100, 200])
  })

  test.each([
    [[1], 0],
    [[0], 0],
    [[5], 0],
    [[3, 4], 0],
    [[2, 3, 4], 1],
    [[2, 0, 4], 2],
  ] as const)('derivatives and vmap at %j, axis %d', async (shape, axis) => {
    await checkDerivatives((x) => sort(x, { axis }), [random(shape, 1)])
    await checkDerivatives((x) => sort(x, { axis, descending: true }), [random(shape, 2)])
    await checkDerivatives((x) => topK(x, Math.min(2, shape[axis]), { axis }).values, [random(shape, 3)])
    await checkVmap((x) => argsort(x, { axis }), [random(shape, 4)], 0)
  })

  test('topK: best first, ties to the smaller index, NaN only when nothing else is left', async () => {
    const x = tensor([1, Number.NaN, 5, 5, -2])
    const { values, indices } = topK(x, 3)
    expect([await list(values), await list(indices)]).toEqual([
      [5, 5, 1],
      [2, 3, 0],
    ])
    expect(await list(topK(x, 5, { largest: false }).indices)).toEqual([4, 0, 2, 3, 1])
    expect(topK(x, 0).values.shape).toEqual([0])
    expect(() => topK(x, 6)).toThrow('[topK] k must be a whole number in [0, 5], the length of the axis; got 6')
  })

  test('searchsorted', async () => {
    const s = tensor([1, 2, 2, 4])
    const v = tensor([
      [0, 2],
      [3, 9],
    ])
    expect(await list(searchsorted(s, v))).toEqual([0, 1, 3, 4])
    expect(await list(searchsorted(s, v, { side: 'right' }))).toEqual([0, 3, 3, 4])
    await checkVmap((a, b) => searchsorted(sort(a), b), [random([5], 1), random([4], 2)], 0)
    expect(() => searchsorted(s, cast(v, 'float64'))).toThrow('[searchsorted] both inputs must have one dtype')
  })

  test('refuses a scalar and wrong options', () => {
    expect(() => argsort(tensor(1))).toThrow('[argsort] the input needs at least one axis')
    expect(() => sort(tensor([1]), { decending: true } as object)).toThrow('Did you mean `descending`?')
    expect(() => sort(tensor([1]), { axis: 1 })).toThrow('axis')
  })

  test('the bits do not depend on the number of threads', async () => {
    const x = random([3, 70000], 1, 'float32')
    await expectSameBits(() => [argsort(x), sort(x), topK(x, 100).indices, topK(x, 50000).indices])
  })
})
