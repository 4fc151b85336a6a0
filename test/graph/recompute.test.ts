import { describe, expect, test } from 'vitest'
import { build, lowerGraph } from '../../lib/graph/executable.js'
import { liveBytes } from '../../lib/graph/allocate.js'
import { lower } from '../../lib/graph/lower.js'
import { optimize } from '../../lib/graph/passes/index.js'
import { finalBuf } from '../../lib/graph/instruction.js'
import { placed, type Plan } from '../../lib/graph/place.js'
import { modelOf } from '../../lib/graph/recompute-model.js'
import { frontier } from '../../lib/graph/recompute-search.js'
import { rewritten, tradeoffs } from '../../lib/graph/recompute.js'
import {
  add,
  dropout,
  exp,
  grad,
  layerNorm,
  matmul,
  mul,
  random,
  sum,
  tanh,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { GPT2, type GPT2Config } from '../../lib/models/gpt2.js'
import { adamw } from '../../lib/optim/index.js'
import { HostArray } from '../../lib/train/host.js'
import { Trainer } from '../../lib/train/trainer.js'
import { trace } from '../../lib/transform/trace.js'

const TINY = { vocabSize: 61, context: 16, layers: 4, heads: 2, width: 32 }

interface Setting extends Partial<GPT2Config> {
  clip?: number | null
  micro?: number
}

function trainer({ clip = 1, micro: _, ...config }: Setting, arena?: number, device: 'cpu' | 'null' = 'cpu'): Trainer {
  const model = new GPT2({ ...TINY, ...config })
  return new Trainer(model, { optimizer: adamw({ lr: 1e-2, weightDecay: 0.1 }), clip, seed: 7, device, arena })
}

const batch = (seed: number, rows = 8, context = TINY.context) => {
  const ids = Int32Array.from({ length: rows * context }, (_, i) => ((i + seed) * 37) % TINY.vocabSize)
  return { inputIds: new HostArray(ids, [rows, context]), labels: new HostArray(ids, [rows, context]) }
}

/** Losses of some steps and all weights after them. */
async function trained(
  setting: Setting,
  arena?: number,
): Promise<{ losses: number[]; weights: Buffer; plans: Plan[] }> {
  const run = trainer(setting, arena)
  await run.materialize()
  const losses: number[] = []
  const micro = setting.micro ?? 1
  for (let step = 1; step <= 4; step++) {
    const batches = Array.from({ length: micro }, (_, i) => batch(step * micro + i))
    losses.push((await (await run.step(batches, { lr: 1e-2, step }))()).loss)
  }
  const plans = run.plan(batch(0), micro)
  await run.publish()
  const values = await Promise.all(Object.values(run.parameters).map((t) => t.read()))
  run.close()
  return { losses, weights: Buffer.concat(values.map((v) => Buffer.from(v.buffer, v.byteOffset, v.byteLength))), plans }
}

describe('training with recomputation', () => {
  const settings: [string, Setting][] = [
    ['clipped', {}],
    ['updated as gradients come', { clip: null }],
    ['with dropout', { dropout: 0.2, clip: null }],
    ['in bfloat16', { dtype: 'bfloat16', dropout: 0.1 }],
    ['over micro-batches', { micro: 3, dropout: 0.1 }],
  ]
  test.each(settings)('gives the bits of training without: %s', { timeout: 60_000 }, async (_, setting) => {
    const plain = await trained(setting)
    for (const share of [0.8, 0]) {
      const arena = Math.floor(share * Math.max(...plain.plans.map((p) => p.arenaBytes)))
      const again = await trained(setting, arena)
      expect(again.losses).toEqual(plain.losses)
      expect(again.weights.equals(plain.weights)).toBe(true)
      // Something was computed again, and memory was won by it.
      expect(Math.max(...again.plans.map((p) => p.recomputed))).toBeGreaterThan(0)
      plain.plans.forEach((p, i) => expect(again.plans[i].arenaBytes).toBeLessThanOrEqual(p.arenaBytes))
      if (arena > 0) for (const p of again.plans) expect(p.arenaBytes).toBeLessThanOrEqual(arena)
    }
    expect(new Set(plain.losses).size).toBe(4)
  })
})

const planOf = (f: (...args: Tensor[]) => unknown, args: Tensor[], arena?: number) =>
  build(trace('plan', f, args).graph, new Set(), 'cpu', { arena }).plan

/** The names of the ops of a plan, those that compute something again in brackets. */
const opsOf = (plan: Plan) => plan.instructions.map((i) => (i.again ? `(${i.op.name})` : i.op.name))

const N = 64
const matrix = (n: number) => random.normal(random.key(n), [N, N])

test('an activation is computed again from what comes before it, a norm from its input: products stay as they are', () => {
  const loss = (w: Tensor, x: Tensor) => {
    const block = (y: Tensor) => add(y, matmul(tanh(matmul(layerNorm(y, { weight: zeros([N]) }), w)), w))
    return sum(mul(block(block(block(x))), 2))
  }
  const args = [matrix(1), matrix(2)]
  const plain = planOf((w, x) => grad(loss)(w, x), args)
  expect(opsOf(plain).some((name) => name.startsWith('('))).toBe(false)
  const again = planOf((w, x) => grad(loss)(w, x), args, plain.arenaBytes - N * N * 4)
  const repeated = opsOf(again).filter((name) => name.startsWith('('))
  expect(repeated.length).toBeGreaterThan(0)
  expect(repeated).not.toContain('(matmul)')
  expect(again.arenaBytes).toBeLessThanOrEqual(plain.arenaBytes - N * N * 4)
})

test('each budget of the curve is met, with more time for less memory', () => {
  const loss = (w: Tensor, x: Tensor) => {
    let y = x
    for (let i = 0; i < 12; i++) y = tanh(matmul(exp(mul(matmul(y, w), 0.1)), w))
    return sum(y)
  }
  const { graph } = trace('curve', (w: Tensor, x: Tensor) => grad(loss)(w, x), [matrix(1), matrix(2)])
  const curve = tradeoffs(lowerGraph(graph, new Set()))
  expect(curve.length).toBeGreaterThan(4)
  for (let i = 1; i < curve.length; i++) {
    expect(curve[i].arenaBytes).toBeLessThan(curve[i - 1].arenaBytes)
    expect(curve[i].milliseconds).toBeGreaterThanOrEqual(curve[i - 1].milliseconds)
  }
  expect(curve.at(-1)!.arenaBytes).toBeLessThan(0.55 * curve[0].arenaBytes)
  for (const { arenaBytes } of curve) {
    const { plan } = build(graph, new Set(), 'cpu', { arena: arenaBytes })
    expect(plan.arenaBytes).toBeLessThanOrEqual(arenaBytes)
  }
})

test('the simulated peak is what lives in the planned arena', () => {
  const loss = (w: Tensor, x: Tensor) => {
    let y = x
    for (let i = 0; i < 5; i++) y = add(y, matmul(tanh(matmul(layerNorm(y, { weight: zeros([N]) }), w)), w))
    return sum(mul(y, exp(y)))
  }
  const { graph } = trace('peak', (w: Tensor, x: Tensor) => grad(loss)(w, x), [matrix(1), matrix(2)])
  const lowered = lower(optimize(graph), new Set(), (i) => (i.op.name === 'matmul' ? 1000 : 0))
  const model = modelOf(lowered)
  let seen = 0
  for (const outcome of frontier(model)) {
    const { bufs, arenaBytes } = placed(rewritten(lowered, model, outcome))
    expect(liveBytes(bufs.filter((b) => b.space === 'arena' && !b.into && b.last >= 0))).toBe(outcome.peak)
    expect(arenaBytes).toBeGreaterThanOrEqual(outcome.peak)
    expect(arenaBytes).toBeLessThan(1.1 * outcome.peak)
    seen++
  }
  expect(seen).toBeGreaterThan(4)
})

test('nothing is computed again from state that has been overwritten', () => {
  const run = trainer({ clip: null }, 0, 'null')
  const [plan] = run.plan(batch(0))
  run.close()
  expect(plan.recomputed).toBeGreaterThan(0)
  const written = new Map<number, number>()
  plan.instructions.forEach((i, at) => {
    if (i.again) {
      for (const o of i.inputs) {
        const buf = finalBuf(o.buf)
        if (buf.space === 'external') expect(written.has(buf.at), `${i.scope} ${i.op.name}`).toBe(false)
      }
    }
    for (const o of i.outputs) if (o.buf.space === 'external') written.set(o.buf.at, at)
  })
  // Every value is there when it is read.
  const made = new Set<unknown>()
  for (const i of plan.instructions) {
    for (const o of i.inputs) if (o.buf.space === 'arena') expect(made.has(o.buf)).toBe(true)
    for (const o of i.outputs) made.add(o.buf)
  }
})

test('the gradient of an output layer is computed where it is read, by a pass of its own, to the same bits', {
  timeout: 60_000,
}, async () => {
  const setting: Setting = { vocabSize: 4000, clip: null, layers: 8, context: 64 }
  const heads = ([plan]: Plan[]) =>
    plan.instructions
      .filter((i) => i.op.name === 'linearCrossEntropyWithGradients')
      .map((i) => [i.attrs.dx, i.attrs.dweight, i.again ?? false])
  const plain = await trained(setting)
  expect(heads(plain.plans)).toEqual([[true, true, false]])
  const again = await trained(setting, 0)
  expect(heads(again.plans)).toEqual([
    [true, false, false],
    [false, true, true],
  ])
  expect(again.losses).toEqual(plain.losses)
  expect(again.weights.equals(plain.weights)).toBe(true)
})

test('random masks are drawn again, not kept', async () => {
  const key = random.key(3)
  const loss = (w: Tensor, x: Tensor) => {
    let y = x
    for (let i = 0; i < 6; i++) y = dropout(tanh(matmul(y, w)), { p: 0.3, key, site: i })
    return sum(mul(y, y))
  }
  const { graph } = trace('mask', (w: Tensor, x: Tensor) => grad(loss)(w, x), [matrix(1), matrix(2)])
  const { plan } = build(graph, new Set(), 'cpu', { arena: 0 })
  expect(opsOf(plan)).toContain('(dropout)')
})
