import { expect, test } from 'vitest'
import { schedule } from '../../lib/graph/graph.js'
import { optimize } from '../../lib/graph/passes/index.js'
import { add, mul, sub, type Tensor, tensor } from '../../lib/index.js'
import { placeholder } from '../../lib/ops/shape.js'

const inputs = Array.from({ length: 36 }, () => placeholder({ shape: [4], dtype: 'float32' }))
const total = (list: readonly Tensor[]) => list.reduce((a, b) => add(a, b))

test('groups that are too large to join never wait for each other', () => {
  const x = total(inputs.slice(0, 18))
  const y = mul(total(inputs.slice(18)), x)
  const { outputs } = optimize({ inputs, outputs: [sub(x, y)] })
  const chains = schedule(outputs).filter((node) => node.op.name === 'elementwise')
  expect(chains.length).toBeGreaterThan(1)
  // Each chain reads only what was made before it.
  for (const chain of chains) for (const t of chain.inputs) expect(t.node.id).toBeLessThan(chain.id)
})

test('their numbers are those of the sums', async () => {
  const values = inputs.map((_, i) => tensor([i, i + 0.5, -i, 1]))
  const x = total(values.slice(0, 18))
  const z = sub(x, mul(total(values.slice(18)), x))
  const sum = (from: number, to: number, of: (i: number) => number) =>
    Array.from({ length: to - from }, (_, k) => of(from + k)).reduce((a, b) => a + b, 0)
  const expected = [(i: number) => i, (i: number) => i + 0.5, (i: number) => -i, () => 1].map(
    (of) => sum(0, 18, of) * (1 - sum(18, 36, of)),
  )
  expect([...(await z.read())]).toEqual(expected)
})
