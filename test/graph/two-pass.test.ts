import { describe, expect, test } from 'vitest'
import { liveBytes } from '../../lib/graph/allocate.js'
import { finalBuf } from '../../lib/graph/instruction.js'
import { placed, type Plan } from '../../lib/graph/place.js'
import { ends, fitted, rewritten } from '../../lib/graph/recompute.js'
import { modelOf } from '../../lib/graph/recompute-model.js'
import { frontierTwice } from '../../lib/graph/recompute-search.js'
import { secondPass } from '../../lib/graph/recompute-second.js'
import type { Outcome } from '../../lib/graph/recompute-simulate.js'
import { unheld } from '../../lib/graph/two-pass.js'
import { sampled } from '../../lib/memory/index.js'
import { GPT2, type GPT2Config } from '../../lib/models/gpt2.js'
import { namedTensors } from '../../lib/nn/module.js'
import { adamw, lamb } from '../../lib/optim/index.js'
import type { Optimizer } from '../../lib/optim/index.js'
import { HostArray } from '../../lib/train/host.js'
import { Trainer } from '../../lib/train/trainer.js'

const TINY = { vocabSize: 61, context: 16, layers: 3, heads: 2, width: 160, seed: 3 }
const ROWS = 2

interface Setting extends Partial<GPT2Config> {
  optimizer?: () => Optimizer
  ratio?: number
}

const batch = (seed: number) => {
  const ids = Int32Array.from({ length: ROWS * TINY.context }, (_, i) => ((i + seed) * 37) % TINY.vocabSize)
  const array = new HostArray(ids, [ROWS, TINY.context])
  return { inputIds: array, labels: array, ids: new HostArray(Int32Array.from({ length: ROWS }, (_, i) => i)) }
}

function trainer({ optimizer, ratio, ...config }: Setting, arena?: number): Trainer {
  const model = new GPT2({ ...TINY, ...config })
  const rule = (optimizer ?? (() => adamw({ lr: 1e-2, weightDecay: 0.1 })))()
  return new Trainer(ratio ? sampled(model, { ratio }) : model, { optimizer: rule, clip: 0.5, seed: 7, arena })
}

/** Losses and gradient norms of some steps, and all weights after them. */
async function trained(setting: Setting, arena?: number) {
  const run = trainer(setting, arena)
  await run.materialize()
  const numbers: unknown[] = []
  for (let step = 1; step <= 3; step++) numbers.push(await (await run.step([batch(step)], { lr: 1e-2, step }))())
  const [plan] = run.plan(batch(0))
  const used = run.arena.bytes
  await run.publish()
  const values = await Promise.all(Object.values(run.parameters).map((t) => t.read()))
  run.close()
  const weights = Buffer.concat(values.map((v) => Buffer.from(v.buffer, v.byteOffset, v.byteLength)))
  return { numbers, weights, plan, used }
}

function loweredOf(setting: Setting) {
  const run = trainer(setting)
  const [{ program }] = run.lowered(batch(0))
  run.close()
  return program
}

const stages = ({ instructions }: Pick<Plan, 'instructions'>) =>
  instructions.filter((i) => i.op.name === 'globalNorm').map((i) => i.attrs.stage)

describe('a backward pass that is run twice', () => {
  const settings: [string, Setting][] = [
    ['float32, with dropout', { dropout: 0.1 }],
    ['bfloat16', { dtype: 'bfloat16' }],
    ['a rule that needs norms of its own', { optimizer: () => lamb({ lr: 1e-2 }) }],
    ['sampled weight gradients', { ratio: 0.5 }],
  ]
  test.each(settings)('gives the bits of one: %s', { timeout: 60_000 }, async (_, setting) => {
    const [, once, twice] = ends(loweredOf(setting))
    expect([once.twice, twice.twice]).toEqual([false, true])
    expect(twice.arenaBytes).toBeLessThan(0.8 * once.arenaBytes)
    const plain = await trained(setting)
    expect(stages(plain.plan)).toEqual(['whole'])
    const again = await trained(setting, twice.arenaBytes)
    expect(stages(again.plan)).toContain('join')
    expect(again.used).toBe(again.plan.arenaBytes)
    expect(again.plan.arenaBytes).toBeLessThanOrEqual(twice.arenaBytes)
    expect(again.numbers).toEqual(plain.numbers)
    expect(again.weights.equals(plain.weights)).toBe(true)
  })

  test('holds few of the gradients, is simulated as it is planned, and is taken only where less does not do', () => {
    const program = loweredOf({})
    const once = ends(program).filter((p) => !p.twice)
    const { lowered, norm } = unheld(program)!
    const model = modelOf(lowered)
    const second = secondPass(model, norm)!
    let last: Outcome | undefined
    for (const outcome of frontierTwice(model, second, once.at(-1)!.arenaBytes)) {
      const { bufs, arenaBytes } = placed(rewritten(lowered, model, outcome))
      expect(liveBytes(bufs.filter((b) => b.space === 'arena' && !b.into && b.last >= 0))).toBe(outcome.peak)
      expect(arenaBytes).toBeGreaterThanOrEqual(outcome.peak)
      last = outcome
    }
    const { instructions } = placed(rewritten(lowered, model, last!))
    const join = instructions.findIndex((i) => i.attrs.stage === 'join')
    const updates = instructions.filter((i) => i.op.name === 'update')
    const gradients = [...new Set(updates.map((i) => finalBuf(i.inputs[3].buf)))]
    const all = gradients.reduce((n, b) => n + b.bytes, 0)
    const over = gradients.filter((b) => b.first < join && b.last > join).reduce((n, b) => n + b.bytes, 0)
    expect(gradients.length).toBe(Object.keys(namedTensors(new GPT2(TINY)).parameters).length)
    expect(over).toBeLessThan(0.2 * all)

    expect(fitted(program, once[0].arenaBytes * 0.98).twice).toBe(false)
    expect(fitted(program, once.at(-1)!.arenaBytes * 0.9).twice).toBe(true)
  })
})

test('updates that no norm holds up, and micro-batches, have nothing to be run twice for', () => {
  const run = new Trainer(new GPT2(TINY), { optimizer: adamw({ lr: 1e-2 }), clip: null, seed: 7, device: 'null' })
  for (const { program } of run.lowered(batch(0))) expect(unheld(program)).toBeUndefined()
  run.close()
  // Sums of micro-batches are in their own memory, where all of them are held anyway.
  const sums = new Trainer(new GPT2(TINY), { optimizer: adamw({ lr: 1e-2 }), clip: 1, seed: 7, device: 'null' })
  for (const { program } of sums.lowered(batch(0), 3)) expect(unheld(program)).toBeUndefined()
  sums.close()
})
