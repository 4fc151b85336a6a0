import { describe, expect, expectTypeOf, test } from 'vitest'
import * as steepest from '../../lib/index.js'
import { readAll, type Shape, Tensor, tensor } from '../../lib/index.js'

const x = tensor([
  [1, 2],
  [3, 4],
])

describe('methods', () => {
  test('are the functions of the same name', async () => {
    const names = Object.getOwnPropertyNames(Tensor.prototype).filter((n) => n in steepest)
    expect(names.length).toBeGreaterThan(80)
    // Whatever takes one tensor alone.
    const alone = [
      'neg',
      'exp',
      'relu',
      'sum',
      'mean',
      'logSumExp',
      'transpose',
      'softmax',
      'isNaN',
      'stopGradient',
      'argmax',
      'argsort',
      'tril',
      'norm',
    ]
    for (const name of alone) {
      const f = steepest[name as 'neg']
      const [a, b] = await readAll([x[name as 'neg'](), f(x)])
      expect([...a], name).toEqual([...b])
    }
  })

  test('chain, take options and numbers', async () => {
    const y = x
      .matmul(
        tensor([
          [1, 0],
          [1, 1],
        ]),
      )
      .add(1)
      .mul(x)
      .relu()
      .sum({ axis: -1, keepDims: true })
    expect(y.shape).toEqual([2, 1])
    expect([...(await y.read())]).toEqual([1 * 4 + 2 * 3, 3 * 8 + 4 * 5])
    expect(
      (
        await x
          .reshape([4])
          .slice([[1, 3]])
          .pow(3)
          .read()
      ).join(),
    ).toBe('8,27')
    expect(x.cast('float64').dtype).toBe('float64')
    expect(x.less(3).dtype).toBe('uint8')
  })

  test('have the types of the functions', () => {
    expectTypeOf(x.add).parameter(0).toEqualTypeOf<Tensor | number>()
    expectTypeOf(x.reshape).parameter(0).toEqualTypeOf<Shape>()
    expectTypeOf(x.sum).returns.toEqualTypeOf<Tensor>()
    // @ts-expect-error a shape is a list of numbers
    expect(() => x.reshape('4')).toThrow()
  })

  test('are not enumerable, so that a tensor prints as before', () => {
    expect(Object.keys(x)).not.toContain('add')
    expect(`${x}`).toBe('Tensor(float32[2, 2])')
  })
})
