import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { cast } from '../../lib/ops/elementwise.js'
import { linear, matmul } from '../../lib/ops/matmul.js'
import { flip, swapAxes, tensor, transpose } from '../../lib/ops/shape.js'
import type { Shape } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { jvp, vjp } from '../../lib/transform/index.js'
import { checkDerivatives, checkVmap, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/matmul.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const pairs: [Shape, Shape][] = [
  [[3], [3]],
  [[4, 3], [3]],
  [[3], [3, 5]],
  [
    [4, 3],
    [3, 5],
  ],
  [
    [1, 1],
    [1, 1],
  ],
  [
    [0, 3],
    [3, 5],
  ],
  [
    [4, 0],
    [0, 5],
  ],
  [
    [2, 4, 3],
    [3, 5],
  ],
  [
    [4, 3],
    [2, 3, 5],
  ],
  [
    [2, 1, 4, 3],
    [3, 3, 2],
  ],
  [
    [1, 4, 3],
    [2, 3, 5],
  ],
  [
    [2, 4, 3],
    [2, 3, 1],
  ],
]

describe('matmul', () => {
  test('gives the numbers of a sum', async () => {
    const a = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ])
    const b = tensor([
      [1, 0],
      [0, 1],
      [2, -1],
    ])
    expect([...(await matmul(a, b).read())]).toEqual([7, -1, 16, -1])
    expect([...(await matmul(tensor([1, 2]), tensor([3, 4])).read())]).toEqual([11])
    expect(matmul(tensor([1, 2]), tensor([3, 4])).shape).toEqual([])
    expect([...(await matmul(tensor([], { shape: [2, 0] }), tensor([], { shape: [0, 2] })).read())]).toEqual([
      0, 0, 0, 0,
    ])
  })

  test.each(pairs)('derivatives and vmap at %j and %j', async (a, b) => {
    await checkDerivatives(matmul, [random(a, 1), random(b, 2)])
  })

  test('reads transposed and flipped operands', async () => {
    const a = random([5, 4], 1)
    const b = random([7, 4], 2)
    await checkDerivatives((x, y) => matmul(x, transpose(flip(y, 0))), [a, b])
    await checkDerivatives(
      (x, y) => matmul(swapAxes(x, 0, 1), swapAxes(y, -1, -2)),
      [random([4, 2, 3], 1), random([2, 5, 3], 2)],
    )
  })

  test('jvp agrees with vjp', async () => {
    const [a, b, da, db, g] = [
      random([3, 4], 1),
      random([4, 2], 2),
      random([3, 4], 3),
      random([4, 2], 4),
      random([3, 2], 5),
    ]
    const [, tangent] = jvp((x: Tensor, y: Tensor) => matmul(x, y), [a, b], [da, db])
    const [, pull] = vjp((x: Tensor, y: Tensor) => matmul(x, y), a, b)
    const [ga, gb] = pull(g)
    const [t, gs, xa, xb, ya, yb] = await readAll([tangent, g, ga, gb, da, db])
    const dot = (x: ArrayLike<number>, y: ArrayLike<number>) => Array.from(x).reduce((s, v, i) => s + v * y[i], 0)
    expect(dot(t, gs)).toBeCloseTo(dot(xa, ya) + dot(xb, yb), 12)
  })

  test('float32 and bfloat16 against float64', async () => {
    const a = random([65, 300], 1, 'float32')
    const b = random([300, 33], 2, 'float32')
    await expectClose(cast(matmul(a, b), 'float64'), matmul(cast(a, 'float64'), cast(b, 'float64')), 300 * 2 ** -24)
    const [na, nb] = [cast(a, 'bfloat16'), cast(b, 'bfloat16')]
    expect(matmul(na, nb).dtype).toBe('bfloat16')
    await expectClose(cast(matmul(na, nb), 'float64'), matmul(cast(na, 'float64'), cast(nb, 'float64')), 2 ** -8)
    expect(matmul(na, b).dtype).toBe('float32')
  })

  test('refuses what does not fit', () => {
    expect(() => matmul(random([2, 3], 1), random([2, 3], 1))).toThrow(/matmul.*\[2, 3\] and \[2, 3\]/)
    expect(() => matmul(random([], 1), random([2, 3], 1))).toThrow(/axis/)
    expect(() => matmul(random([2, 2, 3], 1), random([3, 3, 4], 1))).toThrow(/matmul/)
    expect(() => matmul(tensor([[1]], { dtype: 'int32' }), tensor([[1]], { dtype: 'int32' }))).toThrow(/float/)
  })
})

describe('linear', () => {
  test.each<Shape>([[4], [3, 4], [2, 3, 4], [0, 4]])('derivatives and vmap at x %j…', async (...x) => {
    await checkDerivatives((t, w, b) => linear(t, w, b), [random(x, 1), random([5, 4], 2), random([5], 3)])
  })

  test('without a bias', async () => {
    const [x, w] = [random([3, 4], 1), random([5, 4], 2)]
    await expectClose(linear(x, w), matmul(x, transpose(w)), 0)
    await checkVmap((t, v) => linear(t, v), [x, w])
  })

  test('refuses what does not fit', () => {
    expect(() => linear(random([3, 4], 1), random([4, 5], 1))).toThrow(/\[out, in\]/)
    expect(() => linear(random([3, 4], 1), random([5, 4], 1), random([4], 1))).toThrow(/\[5, 4\], \[4\]/)
  })
})
