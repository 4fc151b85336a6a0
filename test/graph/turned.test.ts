import { expect, test } from 'vitest'
import { schedule } from '../../lib/graph/graph.js'
import { optimize } from '../../lib/graph/passes/index.js'
import { grad, linear, matmul, mul, sum, swapAxes, type Tensor } from '../../lib/index.js'
import { placeholder } from '../../lib/ops/shape.js'
import { trace } from '../../lib/transform/trace.js'

const at = (...shape: number[]) => placeholder({ shape, dtype: 'float32' })
const madeBy = (f: (...t: Tensor[]) => Tensor | Tensor[], args: Tensor[]) => {
  const { outputs } = optimize(trace('test', f, args).graph)
  // What a gradient is made by, and whether it lies in memory as its shape says.
  return outputs.map((t) => t.node.op.name)
}

test('the gradient of a weight that is used transposed is a product that lies as the weight does', () => {
  const loss = (x: Tensor, w: Tensor) => sum(mul(linear(x, w), 2))
  expect(madeBy((x, w) => grad(loss, { argnums: [1] })(x, w) as unknown as Tensor[], [at(2, 5, 8), at(16, 8)])).toEqual(
    ['matmul'],
  )
})

test('both operands may be turned, and batches may be before them', () => {
  const loss = (x: Tensor, w: Tensor) => sum(mul(matmul(swapAxes(x, -1, -2), swapAxes(w, -1, -2)), 2))
  const made = madeBy(
    (x, w) => grad(loss, { argnums: [0, 1] })(x, w) as unknown as Tensor[],
    [at(3, 8, 5), at(3, 16, 8)],
  )
  expect(made).toEqual(['matmul', 'matmul'])
})

test('a transposition of other axes stays a view of the product', () => {
  const loss = (x: Tensor, w: Tensor) => sum(mul(matmul(x, swapAxes(w, 0, 1)), 2))
  const { outputs } = optimize(
    trace('test', (x: Tensor, w: Tensor) => grad(loss, { argnums: [1] })(x, w) as unknown as Tensor[], [
      at(4, 5, 8),
      at(8, 4, 6),
    ]).graph,
  )
  expect(schedule(outputs).some((n) => n.op.name === 'transpose')).toBe(true)
})
