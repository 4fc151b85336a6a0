import { expect, test } from 'vitest'
import {
  add,
  broadcastTo,
  gelu,
  grad,
  matmul,
  mul,
  random,
  reshape,
  sum,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { cse } from '../../lib/graph/passes/cse.js'
import { epilogue } from '../../lib/graph/passes/epilogue.js'
import { fuse } from '../../lib/graph/passes/fuse.js'
import { inline } from '../../lib/graph/passes/inline.js'
import { simplify } from '../../lib/graph/passes/simplify.js'
import { type Graph, isLeaf, schedule } from '../../lib/graph/graph.js'
import { optimize } from '../../lib/graph/passes/index.js'
import { build } from '../../lib/graph/executable.js'
import { launch } from '../../lib/graph/evaluate.js'
import { fromStorage } from '../../lib/ops/shape.js'
import { trace } from '../../lib/transform/trace.js'

const KEY = random.key(7)
const normal = (n: number, shape: number[]) => random.normal(random.foldIn(KEY, n), shape, { dtype: 'float32' })
const kernels = (graph: Graph) =>
  schedule(graph.outputs)
    .filter((n) => !isLeaf(n) && n.op.kind !== 'view')
    .map((n) => n.op.name)
const withoutEpilogue = (graph: Graph) => [inline, simplify, cse, fuse].reduce((g, pass) => pass(g), graph)

/** A block as models write it: a product, its bias, an activation, a second product, its bias, the residual. */
const block = (x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) => {
  const h = gelu(add(matmul(mul(x, 1), w1), b1), { approximate: 'tanh' })
  return add(x, add(matmul(h, w2), b2))
}
const args = [normal(1, [2, 5, 8]), normal(2, [8, 32]), normal(3, [32]), normal(4, [32, 8]), normal(5, [8])] as const

async function numbers(graph: Graph, inputs: readonly Tensor[]): Promise<number[][]> {
  for (const t of inputs) await t.read()
  const storages = launch(build(graph), inputs, graph.outputs)
  return Promise.all(storages.map(async (s, i) => [...(await fromStorage(s, graph.outputs[i]).read())].map(Number)))
}

test('bias, activation and residual become part of their products', () => {
  const { graph } = trace('test', block, [...args])
  expect(kernels(optimize(graph))).toEqual(['matmul', 'matmul'])
  expect(kernels(withoutEpilogue(graph)).length).toBeGreaterThan(2)
})

test('a factor and an argument that the derivative needs are kept in one pass', () => {
  const loss = (x: Tensor, w: Tensor, b: Tensor) => sum(gelu(add(mul(matmul(x, w), 0.5), b)))
  const { graph } = trace(
    'test',
    (x: Tensor, w: Tensor, b: Tensor) => [loss(x, w, b), grad(loss, { argnums: [1, 2] })(x, w, b)],
    [reshape(args[0], [10, 8]), args[1], args[2]],
  )
  const products = schedule(optimize(graph).outputs).filter((n) => n.op.name === 'matmul')
  expect(products[0].attrs).toMatchObject({ scale: 0.5, bias: true, activation: 'gelu', preactivation: true })
})

test('the numbers are those without the pass', async () => {
  const value = (...given: Tensor[]) => block(...(given as [Tensor, Tensor, Tensor, Tensor, Tensor]))
  const loss = (...given: Tensor[]) => sum(mul(value(...given), normal(6, [2, 5, 8])))
  const slope = grad(loss as (...a: readonly unknown[]) => Tensor, { argnums: [0, 1, 2, 3, 4] })
  const { graph, captures } = trace('test', (...given: Tensor[]) => [value(...given), slope(...given)], [
    ...args,
  ] as Tensor[])
  const inputs = [...args, ...captures]
  const expected = await numbers(withoutEpilogue(graph), inputs)
  const got = await numbers(epilogue(graph), inputs)
  expect(got.length).toBe(6)
  expect(got).toEqual(expected)
  got.forEach((list, i) =>
    list.forEach((v, j) =>
      expect(Math.abs(v - expected[i][j])).toBeLessThanOrEqual(2e-5 * Math.max(1, ...expected[i].map(Math.abs))),
    ),
  )
})

test('what others read, or what does not fit, is left alone', () => {
  const shared = (x: Tensor, w: Tensor) => {
    const y = matmul(x, w)
    return [add(y, 1), mul(y, y)]
  }
  const rows = (x: Tensor, w: Tensor) => add(matmul(x, w), broadcastTo(tensor([[1], [2], [3]]), [3, 4]))
  for (const f of [shared, rows]) {
    const { graph } = trace('test', f as (x: Tensor, w: Tensor) => unknown, [normal(1, [3, 8]), normal(2, [8, 4])])
    const product = schedule(optimize(graph).outputs).find((n) => n.op.name === 'matmul')!
    expect(product.attrs).toMatchObject({ bias: false, residual: false, activation: 'none' })
  }
})
