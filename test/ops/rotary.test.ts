import { describe, expect, test } from 'vitest'
import { rotary, type RotaryOptions } from '../../lib/ops/attention.js'
import { cast, mul } from '../../lib/ops/elementwise.js'
import { sum } from '../../lib/ops/reduce.js'
import { slice, tensor, transpose } from '../../lib/ops/shape.js'
import { readAll } from '../../lib/graph/evaluate.js'
import type { Shape } from '../../lib/tensor/shape.js'
import { checkDerivatives, checkVmap, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/rotary.js'
import { checkCases } from './check.js'

checkCases(rowCases)

const shapes: Shape[] = [
  [2, 3, 2, 4],
  [1, 1, 1, 2],
  [2, 5, 3, 7],
  [0, 2, 1, 2],
  [1, 0, 1, 2],
]
const options: RotaryOptions[] = [
  { dim: 2 },
  { dim: 2, interleaved: true, offset: 5 },
  { frequencies: [0.3], base: 7 },
  { dim: 0 },
]

describe('rotary', () => {
  test('turns pairs by their angles', async () => {
    const x = [1, 2, 3, 4, 5, 6, 7, 8]
    const input = tensor(x, { dtype: 'float64', shape: [1, 2, 1, 4] })
    const [halves, pairs] = await readAll([
      rotary(input, { base: 100, offset: 2 }),
      rotary(input, { base: 100, offset: 2, interleaved: true }),
    ])
    for (let t = 0; t < 2; t++) {
      for (let i = 0; i < 2; i++) {
        const angle = (t + 2) * 100 ** (-i / 2)
        const [c, s] = [Math.cos(angle), Math.sin(angle)]
        for (const [y, a, b] of [
          [halves, i, i + 2],
          [pairs, 2 * i, 2 * i + 1],
        ] as const) {
          expect(y[4 * t + a]).toBeCloseTo(x[4 * t + a] * c - x[4 * t + b] * s, 13)
          expect(y[4 * t + b]).toBeCloseTo(x[4 * t + a] * s + x[4 * t + b] * c, 13)
        }
      }
    }
  })

  test.each(options)('derivatives and vmap with %j', async (o) => {
    for (const shape of shapes) await checkDerivatives((x) => rotary(x, o), [random(shape, 1)])
  })

  test('positions of rows, and of the rows of each example', async () => {
    const x = random([2, 3, 1, 4], 1)
    const row = tensor([4, 0, 9], { dtype: 'int32' })
    const each = tensor([4, 0, 9, 1, 2, 3], { dtype: 'int32', shape: [2, 3] })
    await expectClose(
      slice(rotary(x, { positions: row }), [[0, 1]]),
      slice(rotary(x, { positions: each }), [[0, 1]]),
      0,
    )
    await expectClose(slice(rotary(x, { positions: each }), [[1, 2]]), slice(rotary(x, { offset: 1 }), [[1, 2]]), 0)
    await checkVmap((t) => rotary(t, { positions: each }), [x])
    await checkDerivatives((t) => rotary(transpose(t, [0, 2, 1, 3]), { positions: row }), [random([2, 1, 3, 4], 1)])
  })

  test('products depend on distances only', async () => {
    const [q, k] = [random([1, 1, 1, 8], 1), random([1, 1, 1, 8], 2)]
    const at = (i: number, j: number) => sum(mul(rotary(q, { offset: i }), rotary(k, { offset: j })))
    await expectClose(at(1003, 1000), at(3, 0), 1e-12)
  })

  test('float32 and bfloat16 against float64', async () => {
    const x = cast(random([1, 300, 2, 34], 1), 'bfloat16')
    const wanted = rotary(cast(x, 'float64'))
    await expectClose(cast(rotary(cast(x, 'float32')), 'float64'), wanted, 2e-7)
    await expectClose(cast(rotary(x), 'float64'), wanted, 2 ** -8)
  })

  test('says what is wrong', () => {
    const x = random([1, 2, 1, 4], 1)
    expect(() => rotary(random([2, 4], 1))).toThrow('x must be [B, T, H, D]')
    expect(() => rotary(x, { dim: 3 })).toThrow('`dim` must be an even number of at most 4')
    expect(() => rotary(x, { positions: tensor([1], { dtype: 'int32' }) })).toThrow('positions must be [2] or [1, 2]')
    expect(() => rotary(x, { bases: 3 } as never)).toThrow('Did you mean `base`')
  })
})
