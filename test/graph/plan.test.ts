import { expect, test } from 'vitest'
import { build } from '../../lib/graph/executable.js'
import { finalBuf } from '../../lib/graph/instruction.js'
import { checkpoint, exp, grad, matmul, random, sum, tanh, type Tensor } from '../../lib/index.js'
import { trace } from '../../lib/transform/trace.js'

const N = 64
const BYTES = N * N * 4
const square = (n: number) => random.normal(random.key(n), [N, N])
const planOf = (f: (...args: Tensor[]) => unknown, args: Tensor[]) => build(trace('plan', f, args).graph).plan

/** A chain of products, of which each needs the one before and nothing else. */
const chain = (length: number) => (x: Tensor, w: Tensor) => {
  let y = x
  for (let i = 0; i < length; i++) y = matmul(y, w)
  return sum(y)
}

test('a value gives its place back after its last reader: a chain of any length holds two', () => {
  const scratch = (plan: ReturnType<typeof planOf>) => Math.max(...plan.instructions.map((i) => i.workspace.bytes))
  for (const length of [3, 10, 40]) {
    const plan = planOf(chain(length), [square(1), square(2)])
    // One buffer that lived an instruction too long would make it three.
    expect(plan.arenaBytes - scratch(plan)).toBeLessThan(2.5 * BYTES)
    expect(plan.arenaBytes).toBeGreaterThanOrEqual(2 * BYTES)
  }
})

test('no two values that live at once share a byte', () => {
  const loss = (x: Tensor, w: Tensor) => sum(tanh(matmul(exp(matmul(x, w)), w)))
  const plan = planOf((x, w) => grad(loss, { argnums: [0, 1] })(x, w), [square(1), square(2)])
  const live = plan.bufs.filter((b) => b.space === 'arena' && !b.into && b.last >= 0 && b.bytes > 0)
  for (const a of live) {
    expect(a.at % 64).toBe(0)
    expect(a.at + a.bytes).toBeLessThanOrEqual(plan.arenaBytes)
    for (const b of live) {
      if (a === b || a.last < b.first || b.last < a.first) continue
      expect(a.at + a.bytes <= b.at || b.at + b.bytes <= a.at).toBe(true)
    }
  }
  // What an instruction reads was written before, and is not given away yet.
  plan.instructions.forEach((instruction, at) => {
    for (const operand of instruction.inputs) {
      const buf = finalBuf(operand.buf)
      expect(buf.first).toBeLessThanOrEqual(at)
      expect(buf.last).toBeGreaterThanOrEqual(at)
    }
  })
})

test('a checkpointed chain holds less than one that keeps its insides', () => {
  const part = (y: Tensor, w: Tensor) => tanh(matmul(tanh(matmul(tanh(matmul(y, w)), w)), w))
  const loss = (f: typeof part) => (x: Tensor, w: Tensor) => sum(f(f(f(f(x, w), w), w), w))
  const kept = planOf((x, w) => grad(loss(part))(x, w), [square(1), square(2)])
  const again = planOf((x, w) => grad(loss(checkpoint(part)))(x, w), [square(1), square(2)])
  expect(again.arenaBytes).toBeLessThan(0.75 * kept.arenaBytes)
})
