import { describe, expect, test } from 'vitest'
import { liveBytes } from '../../lib/graph/allocate.js'
import { launch } from '../../lib/graph/evaluate.js'
import { build, lowerGraph } from '../../lib/graph/executable.js'
import { placed, type Plan } from '../../lib/graph/place.js'
import type { PlanOptions } from '../../lib/graph/plan.js'
import { rewritten, tradeoffs } from '../../lib/graph/recompute.js'
import { modelOf } from '../../lib/graph/recompute-model.js'
import { endOfForward, PACKED } from '../../lib/graph/recompute-pack.js'
import { frontier } from '../../lib/graph/recompute-search.js'
import {
  cast,
  dequantizeBlockwise,
  layerNorm,
  matmul,
  mul,
  quantizeBlockwise,
  random,
  sum,
  tanh,
  type Tensor,
  valueAndGrad,
} from '../../lib/index.js'
import { guard } from '../../lib/ops/control.js'
import { fromStorage } from '../../lib/ops/shape.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { adamw } from '../../lib/optim/index.js'
import { HostArray } from '../../lib/train/host.js'
import { Trainer } from '../../lib/train/trainer.js'
import { trace } from '../../lib/transform/trace.js'

const N = 96
const matrix = (n: number) => random.normal(random.key(n), [N, N], { std: 0.2 })

/** What rows of numbers become on their way through fewer bits. */
const rounded = {
  bfloat16: (x: Tensor) => cast(cast(x, 'bfloat16'), 'float32'),
  '8bit': (x: Tensor) => dequantizeBlockwise(quantizeBlockwise(x)),
}

async function numbersOf(f: (...args: Tensor[]) => unknown, args: Tensor[], options?: PlanOptions) {
  await Promise.all(args.map((t) => t.read()))
  const { graph } = trace('packed', f, args)
  const built = build(graph, new Set(), undefined, options)
  const storages = launch(built, args, graph.outputs)
  const numbers = await Promise.all(storages.map((s, i) => fromStorage(s, graph.outputs[i]).read()))
  return { plan: built.plan, numbers: numbers.map((list) => Float32Array.from(list)) }
}

describe.each(PACKED)('activations in %s', (packed) => {
  test('give the gradient of the rounded activation, and the exact loss', async () => {
    // d/dw2 Σ (tanh(x w1) w2)² /2 = tanh(x w1)ᵀ y, in which the backward pass reads tanh(x w1) and y.
    const loss = (w1: Tensor, w2: Tensor, x: Tensor) => {
      const y = matmul(tanh(matmul(x, w1)), w2)
      return guard(mul(sum(mul(y, y)), 0.5))
    }
    const args = [matrix(1), matrix(2), matrix(3)]
    const step = (w1: Tensor, w2: Tensor, x: Tensor) => valueAndGrad((w: Tensor) => loss(w1, w, x))(w2)
    const exact = await numbersOf(step as never, args)
    const low = await numbersOf(step as never, args, { packed })
    expect(exact.plan.packed).toBe(0)
    expect(low.plan.packed).toBe(2)
    expect(low.numbers[0]).toEqual(exact.numbers[0])
    const [w1, w2, x] = args
    const h = tanh(matmul(x, w1))
    const y = matmul(h, w2)
    const expected = await matmul(rounded[packed](h).transpose(), rounded[packed](y)).read()
    const size = Math.max(...expected.map(Math.abs))
    const far = Math.max(...low.numbers[1].map((g, i) => Math.abs(g - Number(expected[i]))))
    expect(far).toBeLessThan(1e-6 * size * N)
    const changed = Math.max(...low.numbers[1].map((g, i) => Math.abs(g - exact.numbers[1][i])))
    expect(changed).toBeGreaterThan(10 * far)
    expect(changed).toBeLessThan(0.05 * size)
  })

  test('are read by the backward pass alone; what is simulated is what is planned', () => {
    const loss = (w: Tensor, x: Tensor) => {
      let y = x
      for (let i = 0; i < 6; i++) y = matmul(tanh(layerNorm(matmul(y, w), { weight: sum(w, { axis: 0 }) })), w)
      return guard(sum(mul(y, y)))
    }
    const { graph } = trace('packed', (w: Tensor, x: Tensor) => valueAndGrad(loss)(w, x), [matrix(1), matrix(2)])
    const lowered = lowerGraph(graph, new Set())
    const model = modelOf(lowered, packed)
    expect(model.packs.size).toBeGreaterThan(6)
    let most = 0
    for (const outcome of frontier(model)) {
      const plan = placed(rewritten(lowered, model, outcome))
      const { bufs, arenaBytes, instructions } = plan
      expect(liveBytes(bufs.filter((b) => b.space === 'arena' && !b.into && b.last >= 0))).toBe(outcome.peak)
      expect(arenaBytes).toBeGreaterThanOrEqual(outcome.peak)
      const end = endOfForward(instructions)
      const low = new Set(instructions.filter((i) => i.packs).flatMap((i) => i.outputs.map((o) => o.buf)))
      instructions.forEach((i, at) => {
        if (!i.packs && at < end) expect(i.inputs.some((o) => low.has(o.buf))).toBe(false)
        if (i.packs) expect(at).toBeLessThan(end)
      })
      most = Math.max(most, plan.packed)
    }
    expect(most).toBeGreaterThan(0)
    // With it as an offer, no memory costs more than without.
    const [exact, offered] = [tradeoffs(lowered), tradeoffs(lowered, packed)]
    expect(offered.at(-1)!.arenaBytes).toBeLessThanOrEqual(exact.at(-1)!.arenaBytes)
  })

  test('train about as without, in less memory', { timeout: 60_000 }, async () => {
    const run = async (activations?: 'bfloat16' | '8bit'): Promise<{ losses: number[]; plan: Plan }> => {
      const model = new GPT2({ vocabSize: 61, context: 32, layers: 3, heads: 2, width: 64, seed: 1 })
      const trainer = new Trainer(model, { optimizer: adamw({ lr: 3e-3 }), clip: null, seed: 7, activations })
      await trainer.materialize()
      const losses: number[] = []
      const ids = Int32Array.from({ length: 256 }, (_, i) => (i * 37) % 61)
      const batch = { inputIds: new HostArray(ids, [8, 32]), labels: new HostArray(ids, [8, 32]) }
      for (let step = 1; step <= 12; step++)
        losses.push((await (await trainer.step([batch], { lr: 3e-3, step }))()).loss)
      const [plan] = trainer.plan(batch)
      trainer.close()
      return { losses, plan }
    }
    const [exact, low] = [await run(), await run(packed)]
    expect(low.losses[0]).toBe(exact.losses[0])
    expect(low.losses.at(-1)).not.toBe(exact.losses.at(-1))
    expect(Math.abs(low.losses.at(-1)! - exact.losses.at(-1)!)).toBeLessThan(0.05 * exact.losses.at(-1)!)
    expect(low.plan.packed).toBeGreaterThan(10)
    expect(low.plan.arenaBytes).toBeLessThan(exact.plan.arenaBytes * (packed === '8bit' ? 0.7 : 0.8))
  })
})
