import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { add, log, matmul, mean, mul, random, square, sub, tanh, type Tensor, zeros } from '../../lib/index.js'
import { withScope } from '../../lib/tensor/tensor.js'
import { adamw, schedules, sgd } from '../../lib/optim/index.js'
import type { StepData, StepSource } from '../../lib/train/data.js'
import type { TrainEvent } from '../../lib/train/events.js'
import { type FitOptions, train } from '../../lib/train/train.js'
import { stepKey } from '../../lib/train/trainer.js'

/** A small net for y = sin(3·a)·b, whose data is made by a counter that can be saved. */
class Net {
  w1: Tensor
  b1 = zeros([16])
  w2: Tensor
  constructor(seed = 1) {
    this.w1 = mul(random.normal(random.key(seed), [4, 16]), 0.5)
    this.w2 = mul(random.normal(random.key(seed + 1), [16, 1]), 0.5)
  }
  loss({ x, y }: { x: Tensor; y: Tensor }): { loss: Tensor } {
    const h = withScope('hidden', () => tanh(add(matmul(x, this.w1), this.b1)))
    return { loss: mean(square(sub(matmul(h, this.w2), y))) }
  }
}

function batchAt(n: number, rows = 32) {
  const x = new Float32Array(rows * 4)
  for (let i = 0; i < x.length; i++) x[i] = Math.sin(12.9898 * (n * 4096 + i + 1)) * 0.99
  const y = new Float32Array(rows)
  for (let i = 0; i < rows; i++) y[i] = Math.sin(3 * x[4 * i]) * x[4 * i + 1]
  return { x: { data: x, shape: [rows, 4] }, y: { data: y, shape: [rows, 1] } }
}

/** Batch after batch of the counter; its position is the counter. */
function source(rows = 32): StepSource {
  let at = 0
  return {
    next: () => ({ microBatches: [batch(at++, rows)], tokens: rows }) as StepData,
    state: () => at,
    restore: (state) => {
      at = state as number
    },
  }
}
const batch = (n: number, rows: number) =>
  Object.fromEntries(Object.entries(batchAt(n, rows)).map(([k, v]) => [k, { ...v, dtype: 'float32' }])) as never

const folders: string[] = []
const folder = () => {
  const dir = mkdtempSync(join(tmpdir(), 'steepest-loop-'))
  folders.push(dir)
  return dir
}
afterEach(() => {
  for (const dir of folders.splice(0)) rmSync(dir, { recursive: true, force: true })
})

const weightsOf = async (net: Net) => Promise.all([net.w1, net.b1, net.w2].map(async (t) => [...(await t.read())]))
const run = async (net: Net, options: Partial<FitOptions> = {}, data: StepSource | Iterable<StepData> = source()) => {
  const events: TrainEvent[] = []
  for await (const event of train(net, data, { optimizer: adamw({ lr: 1e-2 }), steps: 40, ...options }))
    events.push(event)
  return events
}
const stopOf = (events: TrainEvent[]) => events.at(-1) as TrainEvent & { type: 'stop' }
const filesOf = (dir: string) =>
  Object.fromEntries(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name)).toString('latin1')]))

test('the loop learns, tells events in order and leaves the weights in the model', async () => {
  const net = new Net()
  const before = (await weightsOf(net))[2]
  const events = await run(net, { steps: 600 })
  expect(events[0].type).toBe('start')
  const steps = events.filter((e) => e.type === 'step')
  expect(steps.at(-1)!.step).toBe(600)
  expect(steps.at(-1)!.loss).toBeLessThan(0.01)
  expect(stopOf(events)).toMatchObject({ type: 'stop', reason: 'done', step: 600 })
  expect((await weightsOf(net))[2]).not.toEqual(before)
})

test('the number of threads changes no bit', async () => {
  const all = []
  for (const threads of [1, 2, 5]) {
    native().threads(threads)
    const net = new Net()
    await run(net)
    all.push(await weightsOf(net))
  }
  native().threads(2)
  expect(all[1]).toEqual(all[0])
  expect(all[2]).toEqual(all[0])
})

test('stopped and resumed, a run leaves the files of an uninterrupted one, byte for byte', async () => {
  const whole = folder()
  const parts = folder()
  const lr = schedules.cosine({ lr: 1e-2, steps: 40, warmup: 4 })
  const options = { optimizer: adamw({ lr }), config: { model_type: 'net' } }
  await run(new Net(), { ...options, out: whole })
  const first = await run(new Net(), { ...options, out: parts, stopAfter: 20 })
  expect(stopOf(first)).toMatchObject({ reason: 'stopAfter', step: 20, path: join(parts, 'checkpoint-20') })
  // The seed of the second net must not matter: everything comes from the checkpoint.
  const second = await run(new Net(77), { ...options, out: parts, resume: join(parts, 'checkpoint-20') })
  expect(stopOf(second)).toMatchObject({ reason: 'done', step: 40 })
  expect(filesOf(join(parts, 'checkpoint-40'))).toEqual(filesOf(join(whole, 'checkpoint-40')))
})

test('micro-batches with a common weight are one big batch', async () => {
  const halves = (rows: number): Iterable<StepData> =>
    (function* () {
      for (let n = 0; ; n++) {
        const b = batchAt(n, 32)
        const cut = (from: number) => ({
          x: { data: b.x.data.slice(from * 4, (from + rows) * 4), shape: [rows, 4], dtype: 'float32' },
          y: { data: b.y.data.slice(from, from + rows), shape: [rows, 1], dtype: 'float32' },
          normalized: { data: Uint8Array.of(1), shape: [1], dtype: 'uint8' },
        })
        yield {
          microBatches: Array.from({ length: 32 / rows }, (_, i) => cut(i * rows)) as never,
          weight: 32,
          tokens: 32,
        }
      }
    })()
  class Summed extends Net {
    override loss({ x, y }: { x: Tensor; y: Tensor }, ctx?: { normalizer?: Tensor }): { loss: Tensor } {
      const h = tanh(add(matmul(x, this.w1), this.b1))
      const errors = square(sub(matmul(h, this.w2), y))
      const total = mul(mean(errors), x.shape[0])
      return { loss: mul(total, ctx?.normalizer ? mean(ctx.normalizer) : 1) }
    }
  }
  // The weight comes to the model as a number to divide by; here its reciprocal is irrelevant, equality is what counts.
  const one = new Summed()
  const two = new Summed()
  const four = new Summed()
  const options = { optimizer: sgd({ lr: 1e-4 }), steps: 10, clip: null }
  const a = await run(one, options, halves(32))
  const b = await run(two, options, halves(16))
  await run(four, options, halves(8))
  const [wa, wb, wc] = [await weightsOf(one), await weightsOf(two), await weightsOf(four)]
  for (const [i, list] of wa.entries()) {
    list.forEach((w, j) => {
      expect(wb[i][j]).toBeCloseTo(w, 5)
      expect(wc[i][j]).toBeCloseTo(w, 5)
    })
  }
  const losses = (events: TrainEvent[]) => events.flatMap((e) => (e.type === 'step' ? [e.loss] : []))
  expect(losses(b).at(-1)! / losses(a).at(-1)!).toBeCloseTo(1, 4)
})

describe('what is not finite', () => {
  class Breaks extends Net {
    override loss(b: { x: Tensor; y: Tensor }): { loss: Tensor } {
      const bad = withScope('broken', () => mean(log(sub(mean(b.x), mean(b.x)))))
      return { loss: mul(super.loss(b).loss, bad) }
    }
  }

  test('ends the run at its step, names op and module, and changes nothing', async () => {
    const net = new Breaks()
    const before = await weightsOf(net)
    const events = await run(net)
    const stop = stopOf(events)
    expect(stop.reason).toBe('nonFinite')
    expect(stop.message).toMatch(/^step 1: \[broken: /)
    expect(await weightsOf(net)).toEqual(before)
  })

  test('is left out where the user wants to go on', async () => {
    const net = new Breaks()
    const before = await weightsOf(net)
    const events = await run(net, { allowNonFinite: true, steps: 3 })
    expect(stopOf(events)).toMatchObject({ reason: 'done', step: 3 })
    expect(events.filter((e) => e.type === 'warning')).toHaveLength(3)
    expect(await weightsOf(net)).toEqual(before)
  })
})

test('a signal ends the run after a whole step, saved', async () => {
  const dir = folder()
  const stop = new AbortController()
  const events: TrainEvent[] = []
  for await (const event of train(new Net(), source(), {
    optimizer: adamw(),
    steps: 1e6,
    out: dir,
    signal: stop.signal,
  })) {
    events.push(event)
    if (event.type === 'step' && event.step > 5) stop.abort()
  }
  const last = stopOf(events)
  expect(last.reason).toBe('interrupted')
  expect(last.path).toBe(join(dir, `checkpoint-${last.step}`))
})

test('evaluations stop a run that gets no better', async () => {
  const evalData = () => [{ microBatches: [batch(999, 32)], tokens: 32 }]
  const events = await run(new Net(), { optimizer: sgd({ lr: 0 }), steps: 100, evalEvery: 5, evalData, patience: 2 })
  expect(stopOf(events)).toMatchObject({ reason: 'earlyStopping', step: 15 })
  expect(events.filter((e) => e.type === 'eval').map((e) => e.best)).toEqual([true, false, false])
})

test('two runs of different shapes go on at once, and another batch shape goes on with the same state', async () => {
  const mixed = function* (): Generator<StepData> {
    for (let n = 0; ; n++) yield { microBatches: [batch(n, n % 2 ? 8 : 24)], tokens: 1 }
  }
  const [a, b] = [new Net(1), new Net(5)]
  const alone = new Net(1)
  await run(alone, {}, mixed())
  await Promise.all([run(a, {}, mixed()), run(b, {}, source(7))])
  expect(await weightsOf(a)).toEqual(await weightsOf(alone))
})

test('a checkpoint of another model or optimizer, and wrong options, are one sentence', async () => {
  const dir = folder()
  await run(new Net(), { out: dir, steps: 2 })
  const resume = join(dir, 'checkpoint-2')
  class Wider extends Net {
    b3 = zeros([3])
  }
  await expect(run(new Wider(), { resume })).rejects.toThrow(/another model: it has no b3/)
  await expect(run(new Net(), { resume, optimizer: sgd() })).rejects.toThrow(/same optimizer/)
  await expect(run(new Net(), { stepz: 3 } as never)).rejects.toThrow(/unknown option `stepz`.*steps/)
  await expect(run({ loss: () => ({ loss: zeros([]) }) } as never)).rejects.toThrow(/no float tensors/)
  await expect(run(new Net(), {}, [] as StepData[])).rejects.toThrow(/no batch/)
})

test('random keys do not come again, however long a run is', () => {
  const keys = new Set<string>()
  for (const seed of [0, 1]) {
    for (const step of [1, 2, 65_535, 65_536, 65_537, 65_538, 2 ** 31, 2 ** 31 + 1]) {
      for (const micro of [0, 1, 65_536]) keys.add(stepKey(seed, step, micro).join())
    }
  }
  expect(keys.size).toBe(2 * 8 * 3)
})

test('who leaves the events of a run can still await it', async () => {
  const going = train(new Net(), source(), { optimizer: adamw(), steps: 1e6 })
  for await (const event of going) if (event.type === 'step') break
  await expect(going).rejects.toThrow(/no longer read/)
})
