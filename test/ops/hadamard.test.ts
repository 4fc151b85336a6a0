import { describe, expect, test } from 'vitest'
import { hadamard } from '../../lib/ops/hadamard.js'
import { tensor } from '../../lib/ops/shape.js'
import { checkDerivatives, expectClose, random } from './differences.js'
import { cases as rowCases } from './cases/hadamard.js'
import { checkCases } from './check.js'

checkCases(rowCases)

describe('hadamard', () => {
  test('is Sylvester’s matrix, and its own inverse', async () => {
    expect([...(await hadamard(tensor([1, 2, 3, 4]), { normalized: false }).read())]).toEqual([10, -2, -4, 0])
    const x = random([3, 64], 1)
    await expectClose(hadamard(hadamard(x)), x, 1e-14)
  })

  test.each([[[1]], [[2, 4]], [[3, 8]], [[0, 4]], [[4, 3]]])('derivatives and vmap at %j', async (shape) => {
    const axis = shape[shape.length - 1] === 3 ? 0 : -1
    await checkDerivatives((x) => hadamard(x, { axis }), [random(shape, 1)])
    await checkDerivatives((x) => hadamard(x, { axis, normalized: false }), [random(shape, 2)])
  })

  test('refuses other lengths', () => {
    expect(() => hadamard(random([3], 1))).toThrow(
      '[hadamard] the axis must be a power of two long; got float64[3]. Use pad first',
    )
  })
})
