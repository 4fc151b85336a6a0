import { expect, test } from 'vitest'
import '../../lib/graph/evaluate.js'
import { add, mul } from '../../lib/ops/elementwise.js'
import { matmul } from '../../lib/ops/matmul.js'
import { tensor } from '../../lib/ops/shape.js'

test('an intermediate result without elements needs no place in the arena', async () => {
  const a = tensor([], { shape: [3, 0] })
  const b = tensor([], { shape: [0, 2] })
  expect([...(await matmul(mul(a, 2), add(b, 1)).read())]).toEqual([0, 0, 0, 0, 0, 0])
})
