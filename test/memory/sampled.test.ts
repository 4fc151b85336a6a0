import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { memory, nn, optim } from '../../lib/index.js'
import { schedule } from '../../lib/graph/graph.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { Context, parameters } from '../../lib/nn/module.js'
import { mean, mul, relu, square, sub, type Tensor, tanh, tensor } from '../../lib/ops/index.js'
import { random } from '../../lib/ops/random.js'
import { HostArray } from '../../lib/train/host.js'
import { type FitOptions, train } from '../../lib/train/train.js'
import { type Trainable, Trainer } from '../../lib/train/trainer.js'
import { grad, hvp, jvp, vmap } from '../../lib/transform/index.js'
import { noise } from '../ops/differences.js'
import { expectMean, gradients, numbers } from './sampled-mean.js'

const folders: string[] = []
afterAll(() => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true })
})
const folder = () => {
  folders.push(mkdtempSync(join(tmpdir(), 'steepest-sampled-')))
  return folders.at(-1)!
}

type Pair = { x: Tensor; y: Tensor }
const ROWS = 64

/** Two layers that share their input, one behind them, and running statistics. */
class Net extends nn.Module {
  left = new nn.Linear(6, 8, { key: random.key(1), dtype: 'float64' })
  right = new nn.Linear(6, 8, { key: random.key(2), dtype: 'float64' })
  norm = new nn.BatchNorm(8, { dtype: 'float64' })
  out = new nn.Linear(8, 3, { key: random.key(3), dtype: 'float64' })

  loss({ x, y }: Pair, ctx: Context): { loss: Tensor } {
    const gated = mul(tanh(this.left.forward(x)), this.right.forward(x))
    return { loss: mean(square(sub(this.out.forward(this.norm.forward(gated, ctx)), y))) }
  }
}

const uneven = (n: number, width: number, seed: number) =>
  Float64Array.from(noise(n * width, seed), (v, i) => v * Math.exp(2 * noise(n, seed + 1)[Math.floor(i / width)]))
const hostBatch = (step: number, rows = ROWS) => ({
  x: new HostArray(uneven(rows, 6, 100 + step), [rows, 6]),
  y: new HostArray(uneven(rows, 3, 200 + step), [rows, 3]),
  ids: new HostArray(Int32Array.from({ length: rows }, (_, i) => step * rows + i)),
})
const batchOf = (step: number, rows = ROWS): Pair => ({
  x: tensor(uneven(rows, 6, 100 + step), { shape: [rows, 6], dtype: 'float64' }),
  y: tensor(uneven(rows, 3, 200 + step), { shape: [rows, 3], dtype: 'float64' }),
})
/** Bytes: room for all examples of these tests. */
const cache = 4096

describe('memory.sampled', () => {
  test('is the same model with sampled weight gradients, and all else exact', async () => {
    const net = new Net()
    const model = memory.sampled(net, { ratio: 0.3 })
    expect(model).toBeInstanceOf(Net)
    expect(Object.keys(parameters(model))).toEqual(Object.keys(parameters(net)))
    expect(parameters(model)['left.weight']).toBe(net.left.weight)
    const [exact, sampled] = [await gradients(net, batchOf(0)), await gradients(model, batchOf(0))]
    expect(sampled.loss).toBe(exact.loss)
    for (const [name, g] of Object.entries(exact.grads)) {
      const worst = Math.max(...g.map((v, i) => Math.abs(v - sampled.grads[name][i])))
      if (/norm|bias/.test(name)) expect(worst).toBeLessThan(1e-15)
      else expect(worst).toBeGreaterThan(1e-6)
    }
  })

  test.each([
    ['winners', 'systematic'],
    ['winners', 'replacement'],
    ['crs', 'replacement'],
  ] as const)('%s with %s draws has the exact gradient as its mean', async (method, draw) => {
    const net = new Net()
    const model = memory.sampled(net, { ratio: 0.3, method, draw })
    await expectMean(model, net, ['left.weight', 'right.weight', 'out.weight'], batchOf(1))
  })

  test.each(['stale', 'zero', 'partly missing'])('%s norms leave the mean as it is', async (kind) => {
    const net = new Net()
    const model = memory.sampled(net, { ratio: 0.3, cache })
    const ids = tensor(
      Array.from({ length: ROWS }, (_, i) => 3 * i),
      { dtype: 'int32' },
    )
    // Records of 4 numbers: the example, the width, and the norms of both sites.
    const records = new Float32Array(cache / 4)
    const old = noise(2 * ROWS, 21)
    for (let i = 0; i < ROWS; i++) {
      if (kind === 'partly missing' && i % 3 === 0) continue
      const norms = kind === 'zero' ? [0, 0] : [Math.exp(3 * old[2 * i]), Math.exp(3 * old[2 * i + 1])]
      records.set([3 * i + 1, 4, ...norms], ((3 * i) % (cache / 16)) * 4)
    }
    const known = nn.withTensors(model, { 'sampling.norms': tensor(records) })
    await expectMean(known, net, ['left.weight', 'right.weight', 'out.weight'], batchOf(1), { ids })
  })

  test('keeps one choice for products that share their input', () => {
    const model = memory.sampled(new Net())
    const { loss } = model.loss(batchOf(0), new Context({ training: true, key: random.key(0) }))
    const count = (name: string) => schedule([loss]).filter((node) => node.op.name === name).length
    expect(count('sampledProduct')).toBe(3)
    expect(count('sampleRows')).toBe(2)
    expect(count('takeScaled')).toBe(2)
  })

  test('samples what `layers` says', async () => {
    const exact = (await gradients(new Net(), batchOf(0))).grads
    for (const layers of [/^out/, ['out'], ['out.weight'], (name: string) => name === 'out.weight']) {
      const { grads } = await gradients(memory.sampled(new Net(), { layers }), batchOf(0))
      expect(grads['left.weight']).toEqual(exact['left.weight'])
      expect(grads['out.weight']).not.toEqual(exact['out.weight'])
    }
  })

  test('is exact where nothing is saved: at evaluation, at ratio 1, with few rows', async () => {
    const net = new Net()
    const exact = (await gradients(net, batchOf(0, 10))).grads
    for (const [options, rows] of [
      [{ ratio: 1 }, 10],
      [{ ratio: 0.1 }, 10],
    ] as const)
      expect((await gradients(memory.sampled(net, options), batchOf(0, rows))).grads).toEqual(exact)
    const evaluated = memory.sampled(net).loss(batchOf(0), new Context()).loss
    expect(schedule([evaluated]).some((node) => node.op.name === 'sampledProduct')).toBe(false)
  })

  test('refuses what it cannot do, and says why', () => {
    const make = (options: object) => () => memory.sampled(new Net(), options)
    expect(make({ ratio: 0 })).toThrow('`ratio` must be in (0, 1]')
    expect(make({ cache: -1 })).toThrow('`cache` must be')
    expect(make({ floor: 2 })).toThrow('`floor` must be')
    expect(make({ method: 'best' })).toThrow('`method` must be winners, crs or topK')
    expect(make({ draw: 'blind' })).toThrow('`draw` must be systematic or replacement')
    expect(make({ ration: 0.3 })).toThrow('Did you mean `ratio`?')
    expect(() => memory.sampled(memory.sampled(new Net()))).toThrow('sampled once')
    const ctx = () => new Context({ training: true, key: random.key(0) })
    expect(() => memory.sampled(new Net(), { layers: /nothing/ }).loss(batchOf(0), ctx())).toThrow('left.weight')
    expect(() => memory.sampled(new Net()).loss(batchOf(0), new Context({ training: true }))).toThrow('need a key')
  })

  test('a weight on the left is sampled by its columns', async () => {
    class Columns {
      w = tensor(noise(5 * 6, 3), { shape: [5, 6], dtype: 'float64' })
      loss({ x }: { x: Tensor }) {
        return { loss: mean(square(tanh(this.w.matmul(x.transpose())))) }
      }
    }
    const net = new Columns() as unknown as Trainable
    await expectMean(memory.sampled(net, { cache: 0 }), net, ['w'], batchOf(2))
  })
})

describe('a sampled product under another transform', () => {
  const lossOf = (model: Net) => (w: Tensor) =>
    nn.withTensors(model, { 'out.weight': w }).loss(batchOf(0), new Context({ training: true, key: random.key(1) }))
      .loss

  test('is exact, and says so once', async () => {
    const warnings: string[] = []
    const listen = (w: Error & { code?: string }) => void (w.code === 'SAMPLED_EXACT' && warnings.push(w.message))
    process.on('warning', listen)
    const net = new Net()
    const [exact, sampled] = [lossOf(net), lossOf(memory.sampled(net))]
    const w = net.out.weight
    const v = tensor(noise(24, 8), { shape: [3, 8], dtype: 'float64' })
    const close = async (a: Tensor, b: Tensor) => {
      const [p, q] = [await a.read(), await b.read()]
      p.forEach((x, i) => expect(Math.abs(x - q[i])).toBeLessThan(1e-12))
    }
    await close(hvp(sampled, w, v), hvp(exact, w, v))
    await close(jvp(sampled, [w], [v])[1], jvp(exact, [w], [v])[1])
    const stack = tensor(noise(72, 5), { shape: [3, 3, 8], dtype: 'float64' })
    await close(vmap(sampled)(stack), vmap(exact)(stack))
    await close(vmap(grad(sampled))(stack), vmap(grad(exact))(stack))
    await new Promise((resolve) => setImmediate(resolve))
    expect(warnings).toEqual(['a sampled product is exact under hvp, jvp and vmap: nothing is saved there'])
    process.off('warning', listen)
  })
})

async function trained(model: Trainable, options: Partial<FitOptions> = {}, steps = 6, cut = 1) {
  const at = { n: 0 }
  const source = {
    next: () => {
      if (at.n >= steps) return null
      const whole = hostBatch(at.n++ % 3)
      const own = ROWS / cut
      const part = (a: HostArray, i: number) => {
        const width = a.data.length / ROWS
        return new HostArray(a.data.slice(i * own * width, (i + 1) * own * width), [own, ...a.shape.slice(1)])
      }
      const microBatches = Array.from({ length: cut }, (_, i) =>
        Object.fromEntries(Object.entries(whole).map(([k, a]) => [k, part(a, i)])),
      )
      return { microBatches, tokens: ROWS }
    },
    state: () => at.n,
    restore: (n: unknown) => {
      at.n = n as number
    },
  }
  const run = train(model, source as never, { steps, optimizer: optim.adamw({ lr: 0.01 }), ...options } as FitOptions)
  const metrics: number[] = []
  for await (const event of run) if (event.type === 'step') metrics.push(event.metrics?.samplingVariance ?? Number.NaN)
  const { path } = await run
  const { sampling } = model as { sampling?: { norms: Tensor } }
  const state = { ...parameters(model), ...(sampling?.norms ? { norms: sampling.norms } : {}) }
  return { metrics, path, state: await numbers(state) }
}

describe('training', () => {
  test('remembers norms by example, and tells the error of its gradient', async () => {
    const model = memory.sampled(new Net(), { cache })
    const { metrics, state } = await trained(model)
    expect(metrics.at(-1)).toBeGreaterThan(0)
    // 3 batches of 64 examples; each record has a number, its width, and two norms.
    const records = Array.from({ length: 192 }, (_, id) => state.norms.slice(4 * id, 4 * id + 4))
    records.forEach(([id, width, first, second], i) => {
      expect([id, width]).toEqual([i + 1, 4])
      expect(first).toBeGreaterThan(0)
      expect(second).toBeGreaterThan(0)
    })
    expect(state.norms.slice(192 * 4).every((v) => v === 0)).toBe(true)
  })

  test('remembers exactly the norms of the output gradients', async () => {
    const net = new Net()
    const model = memory.sampled(net, { layers: /out/, cache })
    const trainer = new Trainer(model as never, { optimizer: optim.sgd({ lr: 0 }) })
    await trainer.materialize()
    await (await trainer.step([hostBatch(1)], { lr: 0, step: 1 }))()
    const got = new Float32Array(1024)
    trainer.buffer('m:sampling.norms').read(got)
    trainer.close()
    // The gradient of the output is 2 (out − y) / size: its rows come from the gradient of the targets.
    const { x, y } = batchOf(1)
    const targets = grad((t: Tensor) => net.loss({ x, y: t }, new Context({ training: true })).loss)(y)
    const g = await targets.read()
    for (let i = 0; i < ROWS; i++) {
      const slot = (ROWS + i) % Math.floor(1024 / 3)
      expect(got[slot * 3]).toBe(ROWS + i + 1)
      expect(got[slot * 3 + 2]).toBeCloseTo(Math.hypot(...g.slice(3 * i, 3 * i + 3)), 7)
    }
  })

  test('remembered norms make the error smaller', async () => {
    const last = async (cache: number) => (await trained(memory.sampled(new Net(), { cache }), {}, 30)).metrics.at(-1)!
    expect(await last(1e5)).toBeLessThan(0.9 * (await last(0)))
  })

  test('a seed gives the same bits, with any number of micro-batches its own', async () => {
    const run = (cut: number, seed = 3) =>
      trained(memory.sampled(new Net(), { cache }), { seed, accumulate: cut }, 5, cut)
    for (const cut of [1, 2]) expect((await run(cut)).state).toEqual((await run(cut)).state)
    expect((await run(1, 4)).state).not.toEqual((await run(1)).state)
  })

  test('goes on after a checkpoint with the bits of a run that was not stopped', async () => {
    const whole = await trained(memory.sampled(new Net(), { cache }))
    const out = folder()
    const { path } = await trained(memory.sampled(new Net(), { cache }), { out, stopAfter: 4 })
    const resumed = await trained(memory.sampled(new Net(), { cache }), { resume: path })
    expect(resumed.state).toEqual(whole.state)
  })

  test.each([1, 2])(
    'an optimizer that evaluates the objective remembers and tells too (%i micro-batches)',
    async (cut) => {
      const sharp = { optimizer: optim.sam(optim.sgd({ lr: 0 })) }
      const flat = { optimizer: optim.sgd({ lr: 0 }) }
      const run = (options: { optimizer: optim.Optimizer }) =>
        trained(memory.sampled(new Net(), { cache }), { ...options, accumulate: cut }, 4, cut)
      const [a, b] = [await run(sharp), await run(flat)]
      // Micro-batches count by their share within one objective and one after the other alike.
      a.state.norms.forEach((v, i) => expect(Math.abs(v - b.state.norms[i])).toBeLessThan(1e-6 * Math.max(1, v)))
      expect(Math.abs(a.metrics.at(-1)! / b.metrics.at(-1)! - 1)).toBeLessThan(1e-5)
    },
  )

  test('what is kept of a layer is its k rows, in the peak of the plan', async () => {
    class Deep extends nn.Module {
      layers = Array.from({ length: 6 }, () => new nn.Linear(256, 256))
      loss({ x }: { x: Tensor }) {
        return { loss: mean(square(this.layers.reduce((h, layer) => relu(layer.forward(h)), x))) }
      }
    }
    const rows = 4096
    const peak = (model: Trainable) => {
      const trainer = new Trainer(model, { optimizer: optim.sgd({ lr: 0.1 }), clip: null, device: 'null' })
      const [plan] = trainer.plan({ x: new HostArray(new Float32Array(rows * 256), [rows, 256]) })
      trainer.close()
      return plan.arenaBytes
    }
    const [exact, sampled] = [peak(new Deep()), peak(memory.sampled(new Deep(), { ratio: 0.25 }))]
    // Of five inner activations of rows × 256 floats a quarter is kept, and a bit of each; exact training keeps them whole.
    const activation = rows * 256 * 4
    // While rows are chosen the whole input is there too.
    expect(exact - sampled).toBeGreaterThan((5 * (1 - 0.25 - 1 / 32) - 1) * activation)
    // Nothing but what is kept, and the gradients that the backward pass is at.
    expect(sampled).toBeLessThan((6 * (0.25 + 1 / 32) + 3) * activation)
  })

  test('ReLU keeps its signs, with the same derivatives', async () => {
    class Rectified extends nn.Module {
      up = new nn.Linear(6, 13, { key: random.key(1), dtype: 'float64' })
      down = new nn.Linear(13, 3, { key: random.key(2), dtype: 'float64' })
      loss({ x, y }: Pair): { loss: Tensor } {
        return { loss: mean(square(sub(this.down.forward(relu(this.up.forward(x))), y))) }
      }
    }
    const net = new Rectified()
    const [exact, sampled] = await Promise.all([
      gradients(net, batchOf(0)),
      gradients(memory.sampled(net, { layers: /down/ }), batchOf(0)),
    ])
    expect(sampled.loss).toBe(exact.loss)
    for (const name of ['up.weight', 'up.bias', 'down.bias']) expect(sampled.grads[name]).toEqual(exact.grads[name])
    expect(sampled.grads['down.weight']).not.toEqual(exact.grads['down.weight'])
  })

  test('a GPT-2 learns as with exact gradients', async () => {
    const config = { vocabSize: 32, context: 32, layers: 2, heads: 2, width: 32, seed: 1 }
    const steps = 60
    const last = async (wrap: (m: GPT2) => Trainable) => {
      const data = Array.from({ length: steps }, (_, s) => {
        const ids = Int32Array.from({ length: 8 * 32 }, (__, i) => (7 * (i % 32) + 3 * Math.floor(i / 32) + s) % 32)
        const targets = ids.map((v) => (v + 7) % 32)
        return { inputIds: new HostArray(ids, [8, 32]), targets: new HostArray(targets, [8, 32]) }
      })
      return (await train(wrap(new GPT2(config)), data as never, { steps, optimizer: optim.adamw({ lr: 3e-3 }) })).loss
    }
    const exact = await last((m) => m)
    const sampled = await last((m) => memory.sampled(m, { ratio: 0.3 }))
    expect(exact).toBeLessThan(1)
    expect(sampled).toBeLessThan(exact + 0.15)
  })
})
