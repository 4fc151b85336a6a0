import { expect, test } from 'vitest'
import { readAll } from '../../lib/graph/evaluate.js'
import { schedule } from '../../lib/graph/graph.js'
import { joinLoss } from '../../lib/graph/passes/join-loss.js'
import { optimize } from '../../lib/graph/passes/index.js'
import {
  type CrossEntropyOptions,
  crossEntropy,
  grad,
  linear,
  linearCrossEntropy,
  mul,
  random,
  sum,
  type Tensor,
  tensor,
  valueAndGrad,
} from '../../lib/index.js'
import { trace } from '../../lib/transform/trace.js'

const JOINT = 'linearCrossEntropyWithGradients'
const PARTS = ['linearCrossEntropy', 'linearCrossEntropyBackward']
const heads = (outputs: readonly Tensor[]) =>
  schedule(outputs)
    .map((n) => n.op.name)
    .filter((name) => name.startsWith('linearCrossEntropy'))

const normal = (seed: number, shape: number[], dtype: 'float32' | 'float64' = 'float64') =>
  random.normal(random.key(seed), shape, { dtype })
const labels = tensor([3, -100, 0, 6, 2], { dtype: 'int32' })
const [x, weight, bias] = [normal(1, [5, 9]), normal(2, [7, 9]), normal(3, [7])]
const weights = tensor([1, 2, 0.5, 0, 3], { dtype: 'float64' })

const options: CrossEntropyOptions[] = [
  {},
  { reduction: 'sum' },
  { weights },
  { labelSmoothing: 0.2, softCap: 1.5, zLoss: 0.1 },
]

test.each(options)('a loss and its gradients are one op of three products, with the same numbers: %j', async (o) => {
  const loss = (x: Tensor, w: Tensor, bias: Tensor) => linearCrossEntropy(x, w, labels, { ...o, bias })
  const stepOf = (f: typeof loss) => (x: Tensor, w: Tensor, bias: Tensor) => {
    const [value, grads] = valueAndGrad(f, { argnums: [0, 1, 2] })(x, w, bias)
    return [value, ...(grads as unknown as Tensor[])]
  }
  const { graph } = trace('step', stepOf(loss), [x, weight, bias])
  expect(heads(graph.outputs)).toEqual(PARTS)
  const after = joinLoss(graph)
  expect(heads(after.outputs)).toEqual([JOINT])
  const products = (nodes: readonly Tensor[]) =>
    schedule(nodes)
      .filter((n) => n.op.name.startsWith('linearCrossEntropy'))
      .reduce((total, n) => total + n.op.flops!(n.inputs, n.outputs, n.attrs), 0)
  expect(products(after.outputs) / products(graph.outputs)).toBe(3 / 4)

  const plain = (x: Tensor, w: Tensor, bias: Tensor) => crossEntropy(linear(x, w, bias), labels, o)
  const got = await readAll(stepOf(loss)(x, weight, bias))
  const right = await readAll(stepOf(plain)(x, weight, bias))
  expect(got).toHaveLength(4)
  got.forEach((values, i) => {
    for (let j = 0; j < values.length; j++) expect(values[j]).toBeCloseTo(right[i][j], 12)
  })
})

test('gradients that are known only after the loss stay an op of their own', () => {
  const squared = (x: Tensor) => {
    const loss = linearCrossEntropy(x, weight, labels)
    return mul(loss, loss)
  }
  const { graph } = trace('squared', (x: Tensor) => grad(squared)(x), [x])
  expect(heads(optimize(graph).outputs)).toEqual(PARTS)
  // Each of two losses counts for as much as the other is: one can come with its gradients, and then not the other.
  const chained = (x: Tensor) => {
    const first = linearCrossEntropy(x, weight, labels)
    return mul(first, linearCrossEntropy(mul(x, 2), weight, labels))
  }
  const both = trace('chained', (x: Tensor) => grad(chained)(x), [x]).graph
  expect(heads(optimize(both).outputs).sort()).toEqual([...PARTS, JOINT].sort())
})

test('what the second loss is multiplied by may depend on the first', async () => {
  const first = (w: Tensor) => linearCrossEntropy(x, w, labels)
  const scaled = (v: Tensor, by: Tensor) => mul(linearCrossEntropy(mul(x, 2), v, labels), by)
  const step = (w: Tensor, v: Tensor) => {
    const [value, g] = valueAndGrad(first)(w)
    return [g, grad(scaled)(v, value)]
  }
  const { graph } = trace('teacher', step, [weight, weight])
  expect(heads(optimize(graph).outputs)).toEqual([JOINT, JOINT])
  const [a, b] = await readAll(step(weight, weight))
  const alone = await grad((v: Tensor) => linearCrossEntropy(mul(x, 2), v, labels))(weight).read()
  const value = await first(weight).item()
  for (let i = 0; i < a.length; i++) expect(b[i]).toBeCloseTo(alone[i] * value, 12)
})

test('gradients of several askers come from one op, of those that are asked for', async () => {
  const loss = (a: Tensor, b: Tensor) => linearCrossEntropy(a, b, labels)
  const { graph } = trace(
    'twice',
    (x: Tensor, w: Tensor) => [grad(loss)(x, w), grad((t: Tensor) => loss(x, t))(w)] as Tensor[],
    [x, weight],
  )
  const [joint] = schedule(optimize(graph).outputs).filter((n) => n.op.name === JOINT)
  expect([joint.attrs.dx, joint.attrs.dweight, joint.attrs.dbias]).toEqual([true, true, false])
  expect(heads(optimize(graph).outputs)).toEqual([JOINT])
  const only = trace('one', (w: Tensor) => grad((t: Tensor) => loss(x, t))(w), [weight]).graph
  const [one] = schedule(optimize(only).outputs).filter((n) => n.op.name === JOINT)
  expect([one.attrs.dx, one.attrs.dweight]).toEqual([false, true])
})

test('a label out of range is an error there too, and a row without a label has no gradient', async () => {
  const wrong = tensor([1, 7, 0, 0, 0], { dtype: 'int32' })
  const step = valueAndGrad((t: Tensor) => linearCrossEntropy(t, weight, wrong))(x)
  await expect(readAll(step)).rejects.toThrow(/range/)
  const g = grad((t: Tensor) => linearCrossEntropy(t, weight, labels))(x)
  const rows = await sum(mul(g, g), { axis: 1 }).read()
  expect(rows[1]).toBe(0)
  expect(rows[0]).toBeGreaterThan(0)
})
