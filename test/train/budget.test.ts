import { describe, expect, test } from 'vitest'
import type { Packed } from '../../lib/graph/recompute-pack.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { adamw } from '../../lib/optim/index.js'
import { allowedFrom, Budget, choiceLine, MemoryError } from '../../lib/train/budget.js'
import { Candidate } from '../../lib/train/budget-setup.js'
import { bytesFrom } from '../../lib/train/bytes.js'
import type { StepData } from '../../lib/train/data.js'
import type { StartEvent } from '../../lib/train/events.js'
import { HostArray } from '../../lib/train/host.js'
import { planMemory } from '../../lib/train/memory.js'
import { PeekedSource, splitBatches, splitSource, splitsOf } from '../../lib/train/split.js'
import { train } from '../../lib/train/train.js'
import { Trainer } from '../../lib/train/trainer.js'

const CONTEXT = 32
const modelOf = (layers = 4) => new GPT2({ vocabSize: 97, context: CONTEXT, layers, heads: 2, width: 64, seed: 3 })
const tokens = (rows: number, seed = 0) => {
  const ids = Int32Array.from({ length: rows * CONTEXT }, (_, i) => ((i + seed) * 37) % 97)
  return new HostArray(ids, [rows, CONTEXT])
}
const stepOf = (rows: number, seed = 0): StepData => ({
  microBatches: [{ inputIds: tokens(rows, seed), targets: tokens(rows, seed + 1) }],
  tokens: rows * CONTEXT,
})
const setupOf = (model = modelOf()) => ({ model, optimizer: adamw({ lr: 1e-2 }), seed: 5, split: 1 })

test.each([
  ['3GB', 3e9],
  ['800MB', 8e8],
  ['1.5 GiB', 1.5 * 2 ** 30],
  ['.5g', 5e8],
  [2 ** 30, 2 ** 30],
  ['123456', 123456],
])('%s is a size', (size, expected) => {
  expect(bytesFrom('memory', size)).toBe(expected)
})

test.each(['3 elephants', '', 'GB', '-3GB', 0, -1, Number.NaN, Infinity, '1e3XB'])(
  '%s is refused in one sentence',
  (size) => {
    expect(() => bytesFrom('--memory', size)).toThrow(/--memory.*must be a size such as 3GB/)
  },
)

test('methods are checked by name, with the near one told', () => {
  expect(allowedFrom('allow', ['recompute', 'sampled'])).toEqual(['recompute', 'sampled'])
  expect(() => allowedFrom('allow', ['sampeld'])).toThrow(/Did you mean sampled\?/)
})

describe('a budget', () => {
  const budget = new Budget(setupOf(), stepOf(16))
  const [plain] = budget.table()
  const exact = budget.table().filter((row) => row.exact)
  const least = Math.min(...exact.map((row) => row.total))

  test('that is enough changes nothing', () => {
    const choice = budget.choose(plain.total)
    expect(choice.methods).toEqual([])
    expect(choice.slowdown).toBe(1)
    expect(choice.total).toBe(plain.total)
  })

  test('is kept by what is planned, whatever it is, down to the least', () => {
    for (const share of [0.9, 0.7, 0.5, 0.2, 0]) {
      const bytes = Math.ceil(least + share * (plain.total - least))
      const choice = budget.choose(bytes)
      expect(choice.total).toBeLessThanOrEqual(bytes)
      expect(choice.exact).toBe(true)
      expect(choice.methods.length).toBeGreaterThan(0)
      const trainer = new Trainer(choice.setup.model, {
        ...choice.setup,
        device: 'null',
        arena: bytes - (choice.total - choice.arenaBytes),
      })
      const { memory } = planMemory(trainer, splitBatches(stepOf(16).microBatches, choice.setup.split))
      trainer.close()
      expect(memory.total).toBe(choice.total)
    }
  })

  test('that is too small is refused with a table of all ways, of which none fits', () => {
    const refused = () => budget.choose(Math.floor(0.9 * least))
    expect(refused).toThrow(MemoryError)
    try {
      refused()
    } catch (error) {
      const { table, message, code } = error as MemoryError
      expect(code).toBe('OUT_OF_MEMORY')
      expect(table.map((row) => row.total > 0.9 * least)).not.toContain(false)
      for (const row of table) expect(message).toContain(row.method)
      expect(message).toMatch(/does not fit/)
    }
  })

  test('that exact means do not keep is kept by what is allowed, as little of it as does', () => {
    const wide = () => new GPT2({ vocabSize: 2000, context: CONTEXT, layers: 2, heads: 2, width: 128, seed: 3 })
    const own = new Budget(setupOf(wide()), stepOf(2))
    const exact = Math.min(
      ...own
        .table()
        .filter((row) => row.exact)
        .map((row) => row.total),
    )
    const eight = Math.min(
      ...own
        .table()
        .filter((row) => row.method.includes('8 bits'))
        .map((row) => row.total),
    )
    expect(eight).toBeLessThan(exact)
    const budget = Math.ceil((eight + exact) / 2)
    expect(() => own.choose(budget)).toThrow(/Allow what changes the numbers/)
    const choice = own.choose(budget, ['sampled', 'states8bit'])
    expect(choice.exact).toBe(false)
    expect(choice.total).toBeLessThanOrEqual(budget)
    expect(choice.methods.join()).toMatch(/8 bits/)
    expect(choice.methods.join()).not.toMatch(/sampled/)
    // Where exact means do, nothing else is taken, whatever is allowed.
    expect(own.choose(exact, ['states8bit', 'lowrank', 'sampled', 'blocks']).exact).toBe(true)
  })

  test('takes the mildest of what is allowed and fits, each kind where it is named', { timeout: 120_000 }, () => {
    // No gradient is held for a norm: what is left are weights and states.
    const setup = {
      ...setupOf(new GPT2({ vocabSize: 97, context: CONTEXT, layers: 3, heads: 2, width: 256, seed: 3 })),
      clip: null,
    }
    const own = new Budget(setup, stepOf(1))
    const rows = own.table()
    const least = (text: string) => Math.min(...rows.filter((r) => r.method.includes(text)).map((r) => r.total))
    const exact = Math.min(...rows.filter((row) => row.exact).map((row) => row.total))
    // A search for a budget may come to a little less than the table.
    const short = Math.floor(0.98 * exact)
    const names = ['8 bits', 'FRUGAL', 'Fira', 'GaLore', 'APOLLO-mini', 'BAdam', 'LoRA']
    for (const name of names) expect(least(name), name).toBeLessThan(Infinity)
    for (const name of ['8 bits', 'FRUGAL', 'BAdam', 'LoRA']) expect(least(name), name).toBeLessThan(exact)
    const chosen = (bytes: number, allow: string[]) => own.choose(bytes, allowedFrom('allow', allow)).methods.join()
    expect(chosen(short, ['states8bit', 'activations', 'sampled', 'lowrank', 'blocks'])).toMatch(/states in 8 bits/)
    expect(chosen(short, ['lowrank', 'blocks'])).toMatch(/FRUGAL|BAdam/)
    expect(chosen(short, ['blocks'])).toMatch(/BAdam/)
    expect(chosen(least('LoRA'), ['lowrank'])).toMatch(/LoRA/)
    expect(() => own.choose(short, ['sampled'])).toThrow(MemoryError)
    // A run that leaves files of the model leaves none of additions.
    const writing = new Budget({ ...setup, writes: true }, stepOf(1))
    expect(writing.table().some((row) => row.method.includes('LoRA'))).toBe(false)
  })

  test('is kept in less time where activations may be kept in fewer bits, as many of them as it takes', () => {
    // One row: nothing can be cut into parts.
    const model = new GPT2({ vocabSize: 97, context: 512, layers: 4, heads: 2, width: 32, seed: 3 })
    const ids = new HostArray(
      Int32Array.from({ length: 512 }, (_, i) => (i * 37) % 97),
      [1, 512],
    )
    const data: StepData = { microBatches: [{ inputIds: ids, targets: ids }], tokens: 512 }
    const way = (activations?: Packed) => new Candidate({ ...setupOf(model), clip: null, activations }, [], data)
    const exact = way()
    const [most, least] = exact.ends()
    const bytes = Math.ceil(0.05 * most.total + 0.95 * least.total)
    const again = exact.within(bytes)!
    expect(again.packed).toBe(0)
    for (const activations of ['bfloat16', '8bit'] as const) {
      const fit = way(activations).within(bytes)!
      expect(fit.total).toBeLessThanOrEqual(bytes)
      expect(fit.packed).toBeGreaterThan(0)
      expect(fit.milliseconds).toBeLessThan(again.milliseconds)
    }
  })

  test('has a curve on which less memory costs more time', () => {
    const curve = budget.curve()
    expect(curve[0]).toEqual({ total: plain.total, slowdown: 1 })
    expect(curve.length).toBeGreaterThan(3)
    for (let i = 1; i < curve.length; i++) {
      expect(curve[i].total).toBeLessThan(curve[i - 1].total)
      expect(curve[i].slowdown).toBeGreaterThanOrEqual(curve[i - 1].slowdown)
    }
  })
})

async function lossesOf(memoryBudget: number | undefined): Promise<{ losses: number[]; start: StartEvent }> {
  const losses: number[] = []
  let start: StartEvent | undefined
  const data = Array.from({ length: 6 }, (_, i) => stepOf(16, 5 * i))
  const run = train(modelOf(), data, { optimizer: adamw({ lr: 1e-2 }), steps: 6, seed: 5, memoryBudget })
  for await (const event of run) {
    if (event.type === 'start') start = event
    if (event.type === 'step') losses.push(event.loss)
  }
  return { losses, start: start! }
}

test('a run within a budget goes the way of the run without', { timeout: 60_000 }, async () => {
  const plain = await lossesOf(undefined)
  expect(plain.start.fitted).toBeUndefined()
  const budget = Math.round(new Budget(setupOf(), stepOf(16)).curve()[0].total * 0.97)
  const tight = await lossesOf(budget)
  expect(tight.start.memory.total).toBeLessThanOrEqual(budget)
  expect(tight.start.fitted).toMatch(/recompute|micro-batches/)
  expect(tight.losses.at(-1)).toBeCloseTo(plain.losses.at(-1)!, 4)
})

test('a batch with an array that has other rows is not cut; one that can only be computed again is', () => {
  const odd = {
    ...stepOf(16),
    microBatches: [{ ...stepOf(16).microBatches[0], extra: new HostArray(Int32Array.of(1)) }],
  }
  expect(splitsOf(odd)).toEqual([1])
  const plain = new Budget(setupOf(), stepOf(1)).curve()[0].total
  const choice = new Budget(setupOf(), stepOf(1)).choose(plain - 1)
  expect(choiceLine(plain - 1, choice)).toMatch(/recompute \d+ values/)
})

test('parts of a batch give the gradient of the whole: only where its mean is theirs', () => {
  expect(splitsOf(stepOf(12))).toEqual([1, 2, 3, 4, 6, 12])
  const masked = stepOf(4)
  ;(masked.microBatches[0].targets.data as Int32Array)[3] = -100
  expect(splitsOf(masked)).toEqual([1])
  expect(splitsOf({ ...masked, weight: 127 })).toEqual([1, 2, 4])
  const parts = splitBatches(stepOf(4).microBatches, 2)
  expect(parts.map((p) => p.inputIds.shape)).toEqual([
    [2, CONTEXT],
    [2, CONTEXT],
  ])
  const joined = parts.flatMap((p) => [...p.inputIds.data])
  expect(joined).toEqual([...stepOf(4).microBatches[0].inputIds.data])
})

test('looking at the first step of a source takes nothing from it', async () => {
  let at = 0
  const source = {
    next: () => (at < 3 ? stepOf(1, at++) : null),
    state: () => at,
    restore: (state: unknown) => {
      at = state as number
    },
  }
  const peeked = new PeekedSource(source)
  const first = await peeked.peek()
  expect(peeked.state!()).toBe(0)
  expect(await peeked.peek()).toBe(first)
  expect(await peeked.next()).toBe(first)
  expect(peeked.state!()).toBe(1)
  await peeked.peek()
  await peeked.restore!(2)
  expect((await peeked.next())!.microBatches[0].inputIds.data).toEqual(tokens(1, 2).data)
  expect(await peeked.next()).toBeNull()
})

test('a source that is cut or looked at is told what the given one is told', async () => {
  const told: unknown[] = []
  const source = { unit: 'rows', next: () => stepOf(4), observe: (metrics: unknown) => told.push(metrics) }
  for (const changed of [splitSource(source, 2), new PeekedSource(source)]) {
    expect(changed.unit).toBe('rows')
    changed.observe!({ spread: 1 })
  }
  expect(told).toEqual([{ spread: 1 }, { spread: 1 }])
  expect((await splitSource(source, 2).next())!.microBatches.length).toBe(2)
})

test('what additions of low rank learned within a budget is in the model when the run ends', {
  timeout: 60_000,
}, async () => {
  const model = new GPT2({ vocabSize: 97, context: CONTEXT, layers: 2, heads: 2, width: 256, seed: 3 })
  const lossNow = async () => {
    const trainer = new Trainer(model, { optimizer: adamw({ lr: 0 }), seed: 5 })
    await trainer.materialize()
    const loss = await trainer.evaluate(stepOf(2).microBatches[0])
    trainer.close()
    return loss
  }
  const before = await model.transformer.h[0].mlp.c_fc.weight.read()
  const untrained = await lossNow()
  const own = new Budget(setupOf(model), stepOf(2))
  const [least] = own.table().filter((row) => row.method.includes('LoRA'))
  let last = Number.NaN
  let fitted = ''
  const run = train(
    model,
    Array.from({ length: 12 }, () => stepOf(2)),
    {
      optimizer: adamw({ lr: 1e-2 }),
      steps: 12,
      seed: 5,
      memoryBudget: Math.ceil(least.total * 1.01),
      allow: ['lowrank'],
    },
  )
  for await (const event of run) {
    if (event.type === 'start') fitted = event.fitted!
    if (event.type === 'step') last = event.loss
  }
  expect(fitted).toMatch(/LoRA/)
  const after = await model.transformer.h[0].mlp.c_fc.weight.read()
  expect(after).not.toEqual(before)
  const loss = await lossNow()
  expect(loss).toBeLessThan(last)
  expect(loss).toBeLessThan(0.9 * untrained)
})
