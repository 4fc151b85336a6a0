import { describe, expect, test } from 'vitest'
import { add, cast, mul } from '../../lib/ops/elementwise.js'
import { batchNorm, groupNorm, layerNorm, rmsNorm } from '../../lib/ops/norm.js'
import { reshape, tensor } from '../../lib/ops/shape.js'
import { sum } from '../../lib/ops/reduce.js'
import type { DType } from '../../lib/tensor/dtype.js'
import type { Shape } from '../../lib/tensor/shape.js'
import type { Tensor } from '../../lib/tensor/tensor.js'
import { grad } from '../../lib/transform/index.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/layernorm.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const shapes: Shape[] = [[5], [1, 3], [4, 7], [2, 3, 17], [0, 4], [2, 2, 1]]

describe('layerNorm', () => {
  test('gives the numbers of its formula', async () => {
    const y = await layerNorm(tensor([[1, 2, 3, 6]], { dtype: 'float64' }), {
      eps: 0.5,
      weight: tensor([1, 2, 1, 1], { dtype: 'float64' }),
      bias: tensor([0, 1, 0, 0], { dtype: 'float64' }),
    }).read()
    const wanted = [-2, -1, 0, 3].map((c) => c / Math.sqrt(3.5 + 0.5))
    wanted[1] = wanted[1] * 2 + 1
    wanted.forEach((v, i) => expect(y[i]).toBeCloseTo(v, 14))
  })

  test.each(shapes)('derivatives and vmap at %j', async (...shape) => {
    const n = shape[shape.length - 1]
    await checkDerivatives((x) => layerNorm(x, { eps: 0.01 }), [random(shape, 1)])
    await checkDerivatives(
      (x, weight, bias) => layerNorm(x, { weight, bias, eps: 0.01 }),
      [random(shape, 1), random([n], 2), random([n], 3)],
    )
    await checkDerivatives((x, bias) => layerNorm(x, { bias, eps: 0.01 }), [random(shape, 1), random([n], 3)])
  })

  test('over several axes, and others than the last', async () => {
    const x = random([2, 3, 4], 1)
    await checkDerivatives((t, weight) => layerNorm(t, { axis: [1, 2], weight, eps: 0.01 }), [x, random([3, 4], 2)])
    await checkDerivatives((t, weight) => layerNorm(t, { axis: 1, weight, eps: 0.01 }), [x, random([3], 2)])
  })

  test('says what is wrong', () => {
    expect(() => layerNorm(random([2, 3], 1), { weight: random([2], 1) })).toThrow('weight must have the shape [3]')
    expect(() => layerNorm(random([2, 3], 1), { weight: random([3], 1, 'float32') })).toThrow('weight must be float64')
    expect(() => layerNorm(random([2, 3], 1), { epsilon: 1 } as never)).toThrow(/unknown option `epsilon`/)
  })
})

describe('rmsNorm', () => {
  test('gives the numbers of its formula', async () => {
    const y = await rmsNorm(tensor([[3, 4]], { dtype: 'float64' }), {
      eps: 0.5,
      weight: tensor([1, 2], { dtype: 'float64' }),
    }).read()
    expect(y[0]).toBeCloseTo(3 / Math.sqrt(13), 14)
    expect(y[1]).toBeCloseTo(8 / Math.sqrt(13), 14)
  })

  test.each(shapes)('derivatives and vmap at %j', async (...shape) => {
    await checkDerivatives((x) => rmsNorm(x, { eps: 0.01 }), [random(shape, 1)])
    await checkDerivatives(
      (x, weight) => rmsNorm(x, { weight, eps: 0.01 }),
      [random(shape, 1), random([shape[shape.length - 1]], 2)],
    )
  })
})

const groupShapes: [Shape, number][] = [
  [[2, 4], 2],
  [[2, 4, 3], 2],
  [[1, 6, 3, 5], 3],
  [[3, 2, 2, 1, 2], 1],
  [[0, 4, 2], 2],
  [[2, 3, 1], 3],
]

describe('groupNorm', () => {
  test('normalizes a group', async () => {
    const y = await groupNorm(
      tensor(
        [
          [
            [1, 2],
            [3, 6],
            [0, 0],
            [4, 4],
          ],
        ],
        { dtype: 'float64' },
      ),
      2,
      { eps: 0.5 },
    ).read()
    ;[-2, -1, 0, 3].forEach((c, i) => expect(y[i]).toBeCloseTo(c / 2, 14))
    ;[-2, -2, 2, 2].forEach((c, i) => expect(y[4 + i]).toBeCloseTo(c / Math.sqrt(4.5), 14))
  })

  test.each(groupShapes)('derivatives and vmap at %j by %d', async (shape, groups) => {
    const c = shape[1]
    await checkDerivatives((x) => groupNorm(x, groups, { eps: 0.01 }), [random(shape, 1)])
    await checkDerivatives(
      (x, weight, bias) => groupNorm(x, groups, { weight, bias, eps: 0.01 }),
      [random(shape, 1), random([c], 2), random([c], 3)],
    )
  })

  test('says what is wrong', () => {
    expect(() => groupNorm(random([2, 4], 1), 3)).toThrow('`groups` must divide the channels')
    expect(() => groupNorm(random([2, 4], 1), 2, { weight: random([2], 1) })).toThrow('must have the shape [4]')
  })
})

type Norm = (x: Tensor, weight: Tensor, bias: Tensor) => Tensor
const norms: [string, Norm, Shape, number][] = [
  ['layerNorm', (x, weight, bias) => layerNorm(x, { weight, bias }), [70, 65], 65],
  ['rmsNorm', (x, weight) => rmsNorm(x, { weight }), [70, 65], 65],
  ['groupNorm', (x, weight, bias) => groupNorm(x, 5, { weight, bias }), [3, 10, 37], 10],
]

describe.each(norms)('%s against float64', (_, f, shape, n) => {
  test.each([
    ['float32', 'float32', 3e-6],
    ['bfloat16', 'bfloat16', 2 ** -7],
    ['bfloat16', 'float32', 2 ** -7],
  ] as [DType, DType, number][])('%s with weights of %s', async (dtype, weights, bound) => {
    const x = cast(random(shape, 1), dtype)
    const [w, b] = [2, 3].map((seed) => cast(random([n], seed), weights))
    const g = cast(random(shape, 4), dtype)
    const wide = (t: Tensor) => cast(t, 'float64')
    await expectClose(wide(f(x, w, b)), f(wide(x), wide(w), wide(b)), bound)
    const gradients = (...args: Tensor[]) => {
      const loss = (...t: Tensor[]) => sum(mul(wide(f(t[0], t[1], t[2])), wide(g)))
      return grad(loss, { argnums: [0, 1, 2] })(...args) as unknown as Tensor[]
    }
    const narrow = gradients(x, w, b)
    const wanted = gradients(wide(x), wide(w), wide(b))
    for (let i = 0; i < 3; i++) await expectClose(wide(narrow[i]), wanted[i], bound)
  })
})

describe('batchNorm', () => {
  const shapes: Shape[] = [
    [3, 2, 5],
    [2, 3, 3, 2],
    [4, 3],
    [3, 2, 2],
    [2, 1, 17],
    [1, 2, 4, 1],
    [0, 2, 4],
  ]

  test('gives the numbers of its formula, and the statistics', async () => {
    const x = tensor([1, 2, 3, 6, 0, 0, 0, 0, 5, 2, 1, 4, 1, 1, 1, 1], { shape: [2, 2, 4], dtype: 'float64' })
    const { y, mean, variance } = batchNorm(
      x,
      tensor([2, 3], { dtype: 'float64' }),
      tensor([1, 0], { dtype: 'float64' }),
      {
        eps: 0.5,
      },
    )
    const [numbers, m, v] = [await y.read(), await mean.read(), await variance.read()]
    expect([...m]).toEqual([3, 0.5])
    expect([...v]).toEqual([3, 0.25])
    const wanted = [-2, -1, 0, 3, 2, -1, -2, 1].map((c) => (2 * c) / Math.sqrt(3.5) + 1)
    ;[0, 1, 2, 3, 8, 9, 10, 11].forEach((at, i) => expect(numbers[at]).toBeCloseTo(wanted[i], 14))
    ;[4, 5, 12, 13].forEach((at, i) => expect(numbers[at]).toBeCloseTo((i < 2 ? -1.5 : 1.5) / Math.sqrt(0.75), 14))
  })

  test.each(shapes)('derivatives and vmap at %j', async (...shape) => {
    const channels = [shape[1]]
    await checkDerivatives(
      (x, weight, bias) => batchNorm(x, weight, bias, { eps: 0.01 }).y,
      [random(shape, 1), random(channels, 2), random(channels, 3)],
    )
    if (shape[0] === 0) return
    await checkDerivatives(
      (x) => {
        const ones = tensor(new Float64Array(shape[1]).fill(1))
        const { y, mean, variance } = batchNorm(x, ones, ones, { eps: 0.01 })
        return mul(
          add(sum(y, { axis: 0 }), reshape(mul(mean, variance), [-1, ...shape.slice(2).map(() => 1)])),
          variance.size,
        )
      },
      [random(shape, 1)],
    )
  })

  test('says what is wrong', () => {
    const [x, w] = [random([2, 3, 4], 1), random([3], 1)]
    expect(() => batchNorm(x, random([2], 1), w)).toThrow('weight and bias must have the shape [3]')
    expect(() => batchNorm(random([3], 1), w, w)).toThrow('[N, C, …]')
    expect(() => batchNorm(x, random([3], 1, 'float32'), w)).toThrow('weight and bias must be float64')
    expect(() => batchNorm(x, w, w, { epsilon: 1 } as never)).toThrow(/unknown option `epsilon`/)
  })
})
