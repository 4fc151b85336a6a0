import { describe, expect, test } from 'vitest'
import { grad } from '../../lib/transform/index.js'
import { argmax, logSumExp, max, norm, sum } from '../../lib/ops/reduce.js'
import { mul } from '../../lib/ops/elementwise.js'
import { tensor, zeros } from '../../lib/ops/shape.js'
import { cases } from './cases/reduce.js'
import { checkCases } from './check.js'

checkCases(cases)

describe('reductions', () => {
  test.each([
    ['max', () => max(zeros([3, 0]), { axis: 1 })],
    ['argmax', () => argmax(zeros([0]))],
  ])('there is no %s of nothing, at trace time', (_, f) =>
    expect(f).toThrow(expect.objectContaining({ code: 'SHAPE' })),
  )

  test('an unknown option is named with the near one', () => {
    expect(() => sum(zeros([2]), { axes: 0 } as never)).toThrow(/unknown option `axes`.*`axis`/)
  })

  test('equal extremes share the gradient', async () => {
    const x = tensor(
      [
        [1, 3, 3, -2],
        [5, 5, 5, 5],
      ],
      { dtype: 'float64' },
    )
    const g = grad((t: typeof x) => sum(mul(max(t, { axis: 1 }), tensor([2, 8], { dtype: 'float64' }))))(x)
    expect([...(await g.read())]).toEqual([0, 1, 1, 0, 2, 2, 2, 2])
  })

  test('a NaN is the extreme, and the sum', async () => {
    const x = tensor([1, Number.NaN, 3])
    expect([...(await max(x).read()), ...(await sum(x).read())]).toEqual([Number.NaN, Number.NaN])
  })

  test('infinities go through logSumExp', async () => {
    const x = tensor(
      [
        [-Infinity, -Infinity],
        [Infinity, 1],
        [1e30, 0],
      ],
      { dtype: 'float64' },
    )
    expect([...(await logSumExp(x, { axis: 1 }).read())]).toEqual([-Infinity, Infinity, 1e30])
    const g = grad((t: typeof x) => sum(logSumExp(t, { axis: 1 })))(
      tensor(
        [
          [-Infinity, -Infinity],
          [0, -Infinity],
        ],
        { dtype: 'float64' },
      ),
    )
    expect([...(await g.read())]).toEqual([0, 0, 1, 0])
  })

  test('the norm has derivative 0 at 0', async () => {
    expect([...(await grad((t: ReturnType<typeof zeros>) => norm(t))(zeros([3])).read())]).toEqual([0, 0, 0])
  })

  test('a float32 sum of many numbers keeps six digits', async () => {
    const x = new Float32Array(3_000_000).fill(0.1)
    const wanted = 3_000_000 * x[0]
    expect(Math.abs((await sum(tensor(x)).item()) / wanted - 1)).toBeLessThan(1e-6)
  })
})
