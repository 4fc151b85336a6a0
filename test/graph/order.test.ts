import { expect, test } from 'vitest'
import { add, compile, flip, mul, readAll, sub, sum, type Tensor, tensor } from '../../lib/index.js'
import { build } from '../../lib/graph/executable.js'
import { assign } from '../../lib/ops/control.js'
import { trace } from '../../lib/transform/trace.js'

const numbers = async (...tensors: Tensor[]) => (await readAll(tensors)).map((t) => [...t])

test('updates that follow each other without a read keep their order', async () => {
  let n = tensor(0)
  for (let i = 0; i < 5; i++) n = assign(n, add(n, 1))
  expect(await n.item()).toBe(5)
})

test('two states may swap: one of them is written elsewhere', async () => {
  const swap = compile((a: Tensor, b: Tensor) => [assign(a, b), assign(b, a)] as const, { donate: [0, 1] })
  expect(await numbers(...swap(tensor([1, 2]), tensor([3, 4])))).toEqual([
    [3, 4],
    [1, 2],
  ])
})

test('a value between two updates of one state is read before the second', async () => {
  const twice = compile(
    (a: Tensor) => {
      const first = assign(a, add(a, 1))
      const second = assign(first, mul(first, 10))
      return [second, mul(first, 2), add(second, 1)] as const
    },
    { donate: [0] },
  )
  expect(await numbers(...twice(tensor([1, 2])))).toEqual([
    [20, 30],
    [4, 6],
    [21, 31],
  ])
})

test('state that is also a result is not overwritten', async () => {
  const f = compile((a: Tensor) => [a, assign(a, add(a, 1))] as const, { donate: [0] })
  expect(await numbers(...f(tensor([1, 2])))).toEqual([
    [1, 2],
    [2, 3],
  ])
  const g = compile(
    (a: Tensor) => {
      const first = assign(a, add(a, 1))
      return [first, assign(first, mul(first, 10))] as const
    },
    { donate: [0] },
  )
  expect(await numbers(...g(tensor([1, 2])))).toEqual([
    [2, 3],
    [20, 30],
  ])
})

test('what reads old state late still comes before the update', async () => {
  const f = compile(
    (a: Tensor, b: Tensor) => {
      const next = assign(a, add(b, 1))
      return [next, mul(mul(b, 3), a)] as const
    },
    { donate: [0] },
  )
  expect(await numbers(...f(tensor([5]), tensor([2])))).toEqual([[3], [30]])
})

const ops = (f: (...t: Tensor[]) => unknown, ...args: Tensor[]): string[] => {
  const { graph } = trace('test', f, args)
  return build(graph, new Set(args.keys())).plan.instructions.map((i) => i.op.name)
}

test('a chain of elementwise ops writes over the state that it replaces', async () => {
  const step = (p: Tensor, m: Tensor, g: Tensor) => {
    const next = add(mul(m, 0.5), g)
    return [assign(p, sub(p, next)), assign(m, next)] as const
  }
  const args = () => [tensor([1, 2, 3]), tensor([2, 4, 6]), tensor([1, 1, 1])] as const
  expect(ops(step, ...args())).toEqual(['elementwise'])
  expect(await numbers(...compile(step, { donate: [0, 1] })(...args()))).toEqual([
    [-1, -1, -1],
    [2, 3, 4],
  ])
})

test('a chain does not write over state that it reads at another place, or that others read later', async () => {
  const turned = (p: Tensor) => [assign(p, add(flip(p), 1))] as const
  expect(ops(turned, tensor([1, 2, 3]))).toEqual(['elementwise', 'assign'])
  expect(await numbers(...compile(turned, { donate: [0] })(tensor([1, 2, 3])))).toEqual([[4, 3, 2]])
  const late = (p: Tensor, q: Tensor) => {
    const next = add(p, 1)
    return [assign(p, next), sum(mul(next, q)), sum(mul(p, q))] as const
  }
  const result = compile(late, { donate: [0] })(tensor([1, 2]), tensor([1, 10]))
  expect(await numbers(...result)).toEqual([[2, 3], [32], [21]])
  const both = (p: Tensor, q: Tensor) => [assign(p, add(p, 1)), sum(mul(p, q))] as const
  expect(await numbers(...compile(both, { donate: [0] })(tensor([1, 2]), tensor([1, 10])))).toEqual([[2, 3], [21]])
})
