import { describe, expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { cast, exp } from '../../lib/ops/elementwise.js'
import { logSoftmax, softmax } from '../../lib/ops/norm.js'
import { tensor } from '../../lib/ops/shape.js'
import type { Shape } from '../../lib/tensor/shape.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/softmax.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const shapes: [Shape, number][] = [
  [[1], 0],
  [[7], 0],
  [[3, 5], -1],
  [[3, 5], 0],
  [[2, 3, 17], 2],
  [[2, 3, 4], 1],
  [[0, 4], 1],
  [[4, 1], 1],
]

describe.each([
  ['softmax', softmax],
  ['logSoftmax', logSoftmax],
] as const)('%s', (name, f) => {
  test.each(shapes)('derivatives and vmap at %j over axis %d', async (shape, axis) => {
    await checkDerivatives((x) => f(x, { axis }), [random(shape, 1)])
  })

  test('gives the numbers of its formula, however large the input', async () => {
    const x = [1000, 1001, 999.5]
    const e = x.map((v) => Math.exp(v - 1001))
    const total = e.reduce((a, b) => a + b)
    const y = await f(tensor(x, { dtype: 'float64' })).read()
    e.forEach((v, i) => expect(y[i]).toBeCloseTo(name === 'softmax' ? v / total : Math.log(v / total), 12))
  })

  test('float32 and bfloat16 against float64', async () => {
    for (const n of [1, 15, 16, 17, 64, 1000]) {
      const x = random([3, n], n, 'float32')
      const wanted = f(cast(x, 'float64'))
      await expectClose(cast(f(x), 'float64'), wanted, 2e-6)
      const narrow = cast(x, 'bfloat16')
      await expectClose(cast(f(narrow), 'float64'), f(cast(narrow, 'float64')), 2 ** -8)
    }
  })

  test('keeps what is not a number, and says what is wrong', async () => {
    const [y] = await readAll([
      f(
        tensor([
          [1, NaN, 2],
          [1, 2, 3],
        ]),
      ),
    ])
    expect([...y].slice(0, 3).every(Number.isNaN)).toBe(true)
    expect([...y].slice(3).every(Number.isFinite)).toBe(true)
    expect(() => f(tensor([1, 2], { dtype: 'int32' }))).toThrow(`[${name}] input must be float32`)
    expect(() => f(tensor([1, 2]), { axis: 1 })).toThrow(/axis must be in/)
    expect(() => f(tensor([1, 2]), { axes: 1 } as never)).toThrow(/Did you mean `axis`/)
  })
})

test('logSoftmax is the logarithm of softmax', async () => {
  const x = random([4, 9], 3)
  await expectClose(exp(logSoftmax(x)), softmax(x), 1e-14)
})
