import { expect, test } from 'vitest'
import { schedule } from '../../lib/graph/graph.js'
import { optimize } from '../../lib/graph/passes/index.js'
import {
  add,
  compile,
  grad,
  matmul,
  mul,
  optim,
  relu,
  sub,
  sum as sumOf,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import type { OptimizerState } from '../../lib/optim/optimizer.js'
import { assign } from '../../lib/ops/control.js'
import { div, pow, sign, sqrt, square } from '../../lib/ops/elementwise.js'
import { placeholder } from '../../lib/ops/shape.js'
import { trace } from '../../lib/transform/trace.js'

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

const loss = ({ w }: { w: Tensor }) => sumOf(square(sub(w, 1)))
const chainsOf = (step: (p: Tensor, g: Tensor, m: Tensor, lr: Tensor) => Tensor[]) => {
  const at = (shape: number[]) => placeholder({ shape, dtype: 'float32' })
  const all = [at([8, 4]), at([8, 4]), at([8, 4]), at([])] as const
  const { outputs } = optimize({ inputs: [...all], outputs: step(...all) })
  return schedule(outputs).filter((node) => node.op.name === 'elementwise' && node.outputs[0].shape.length === 2)
}

test('an update written in tensors is one chain, though its weight waits for the learning rate', () => {
  const lion = chainsOf((p, g, m, lr) => [
    assign(p, sub(p, mul(sign(add(mul(m, 0.9), mul(g, 0.1))), sqrt(lr)))),
    assign(m, add(mul(m, 0.99), mul(g, 0.01))),
  ])
  expect(lion.map((chain) => chain.outputs.length)).toEqual([2])
})

test('a state that the weight waits for by a sum is a chain of its own', () => {
  const chains = chainsOf((p, g, m) => {
    const mean = add(mul(m, 0.9), mul(g, 0.1))
    return [assign(p, sub(p, mul(mean, sumOf(mean)))), assign(m, mean)]
  })
  expect(chains.map((chain) => chain.outputs.length)).toEqual([1, 1])
})

test('chains of two parameters stay apart', () => {
  const chains = chainsOf((p, g, m, lr) => [assign(p, sub(p, mul(g, lr))), assign(m, sub(m, mul(square(g), lr)))])
  // Both read g, so that one pass is less than two.
  expect(chains.length).toBe(1)
  const apart = chainsOf((p, g, m, lr) => [assign(p, sub(p, mul(p, lr))), assign(m, sub(m, mul(g, lr)))])
  expect(apart.length).toBe(2)
})

test('an own optimizer gives the bits that it gives step by step', async () => {
  const own = optim.defineOptimizer({
    name: 'ownAdam',
    slots: { m: 0, v: 0 },
    prepare: ({ lr, t }) => ({ size: div(lr, sub(1, pow(0.9, t))) }),
    step: ({ p, g, slots: { m, v }, c }) => {
      const [m1, v1] = [add(mul(m, 0.9), mul(g, 0.1)), add(mul(v, 0.99), mul(square(g), 0.01))]
      return { p: sub(p, div(mul(m1, c.size), add(sqrt(v1), 1e-8))), m: m1, v: v1 }
    },
  })({ lr: 0.1 })
  const run = async (compiled: boolean) => {
    const step = (p: { w: Tensor }, s: OptimizerState) => own.update(p, grad(loss)(p), s)
    const fast = compile(step, { donate: [0, 1] })
    let params = {
      w: tensor(
        Float32Array.from({ length: 1500 }, (_, i) => Math.sin(i)),
        { shape: [1500] },
      ),
    }
    let state = own.init(params)
    for (let i = 0; i < 4; i++) {
      const next = (compiled ? fast : step)(params, state)
      ;({ params, state } = next)
      // A read cuts the graph: each round is then evaluated by itself.
      if (!compiled) await params.w.read()
    }
    return params.w.read()
  }
  expect(await run(true)).toEqual(await run(false))
})

test('the sign that a derivative needs is taken in its pass where the value is kept for another reader', () => {
  const at = (...shape: number[]) => placeholder({ shape, dtype: 'float32' })
  const loss = (x: Tensor, w: Tensor, v: Tensor) => sumOf(square(matmul(relu(matmul(x, w)), v)))
  const madeFor = (argnums: number[]) => {
    const step = (x: Tensor, w: Tensor, v: Tensor) => grad(loss, { argnums })(x, w, v) as unknown as Tensor[]
    const { outputs } = optimize(trace('test', step, [at(6, 8), at(8, 8), at(8, 8)]).graph)
    return schedule(outputs).flatMap((n) => n.outputs.map((t) => t.dtype))
  }
  // The gradient of v reads what relu gives, as late as the sign is read.
  expect(madeFor([1, 2])).not.toContain('uint8')
  // Nothing does: a byte of sign is kept and not the value.
  expect(madeFor([1])).toContain('uint8')
})
