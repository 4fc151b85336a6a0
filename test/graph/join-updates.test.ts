import { expect, test } from 'vitest'
import { type Graph, schedule } from '../../lib/graph/graph.js'
import { optimize } from '../../lib/graph/passes/index.js'
import { makePlan } from '../../lib/graph/plan.js'
import { add, compile, grad, mul, optim, readAll, sum, type Tensor, tensor } from '../../lib/index.js'
import { placeholder } from '../../lib/ops/shape.js'
import { flatten } from '../../lib/transform/tree.js'
import { inTrace } from '../../lib/transform/trace.js'

const input = (shape: number[]) => placeholder({ shape, dtype: 'float32' })
/** The state of an optimizer as a training loop holds it: in memory. */
function stateOf(optimizer: ReturnType<typeof optim.adamw>, params: readonly Tensor[]) {
  const flat = flatten(optimizer.init(params))
  return flat.unflatten(flat.tensors.map(placeholder))
}
const updates = (graph: Graph) => schedule(graph.outputs).filter((node) => node.op.name === 'update')
const SHAPES = [[3, 2], [4], [5, 5]]

/** A step as a training loop traces it: a loss of all parameters, its gradient, and their update. */
function traced(optimizer: ReturnType<typeof optim.adamw>, gradsAreInputs = false): { before: Graph; after: Graph } {
  const params = SHAPES.map(input)
  return inTrace(() => {
    const state = stateOf(optimizer, params)
    const given = SHAPES.map(input)
    const square = (list: Tensor[]) => list.map((p) => sum(mul(mul(p, p), p))).reduce((a, b) => add(a, b))
    const grads = gradsAreInputs ? given : grad(square)(params)
    const next = optimizer.update(params, grads, state)
    const inputs = [...params, ...given, ...flatten(state).tensors]
    const before = { inputs, outputs: flatten(next).tensors }
    return { before, after: optimize(before) }
  })
}

test('updates whose gradients a norm holds become one', () => {
  const { before, after } = traced(optim.adamw({ clip: { globalNorm: 1 } }))
  expect(updates(before).length).toBe(3)
  expect(updates(after).length).toBe(1)
  expect(updates(after)[0].attrs.lrScales).toEqual([1, 1, 1])
  expect(updates(after)[0].attrs.sites).toEqual([0, 1, 2])
})

test('updates of gradients that are given become one', () => {
  expect(updates(traced(optim.adamw(), true).after).length).toBe(1)
})

test('without a norm each update runs as soon as its gradient is there', () => {
  expect(updates(traced(optim.adamw()).after).length).toBe(3)
})

test('groups that differ stay apart', () => {
  const groups = [{ match: ['1'], weightDecay: 0 }]
  const parts = updates(traced(optim.adamw({ groups, clip: { globalNorm: 1 } })).after)
  expect(parts.map((node) => node.attrs.sites)).toEqual([[0, 2], [1]])
  const rates = updates(traced(optim.adamw({ groups: [{ match: ['1'], lrScale: 3 }] }), true).after)
  expect(rates.map((node) => node.attrs.lrScales)).toEqual([[1, 3, 1]])
})

test('two steps in one graph follow each other, in place', () => {
  const optimizer = optim.adamw()
  const params = SHAPES.map(input)
  const given = SHAPES.map(input)
  const args = placeholder({ shape: [2], dtype: 'float64' })
  const { graph, donated } = inTrace(() => {
    const state = stateOf(optimizer, params)
    const one = optimizer.update(params, given, state, { args })
    const two = optimizer.update(one.params, given, one.state, { args })
    const slots = flatten(state).tensors
    return {
      graph: optimize({ inputs: [...params, ...given, ...slots, args], outputs: flatten(two).tensors }),
      donated: new Set([0, 1, 2, ...slots.map((_, i) => 6 + i)]),
    }
  })
  // Only the weights of the first step are leaves.
  expect(updates(graph).length).toBe(4)
  const plan = makePlan(graph, donated, () => 0)
  const moved = plan.instructions.filter((i) => i.op.name === 'update')
  for (const i of moved)
    expect(i.outputs.every((o) => o.buf.space === 'external' && o.buf.at < graph.inputs.length)).toBe(true)
})

test('a joined update gives the bits of updates one by one', async () => {
  const optimizer = optim.adamw({ lr: 0.01, groups: [{ match: ['2'], lrScale: 0.5 }] })
  const numbers = (seed: number) =>
    SHAPES.map((shape, n) =>
      tensor(
        Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(seed + 7 * n + i)),
        { shape },
      ),
    )
  const step = compile((p: Tensor[], g: Tensor[], s: ReturnType<typeof optimizer.init>) => optimizer.update(p, g, s))
  let together = { params: numbers(1), state: optimizer.init(numbers(1)) }
  for (let t = 0; t < 3; t++) together = step(together.params, numbers(2 + t), together.state)
  for (let n = 0; n < SHAPES.length; n++) {
    const own = optim.adamw({ lr: n === 2 ? 0.005 : 0.01 })
    let alone = { params: [numbers(1)[n]], state: own.init([numbers(1)[n]]) }
    for (let t = 0; t < 3; t++) alone = own.update(alone.params, [numbers(2 + t)[n]], alone.state)
    const [a, b, c, d] = await readAll([
      together.params[n],
      alone.params[0],
      together.state.slots.v[n],
      alone.state.slots.v[0],
    ])
    expect(a).toEqual(b)
    expect(c).toEqual(d)
  }
})
