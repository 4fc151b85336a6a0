import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { setTimeout } from 'node:timers/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { fromArrays, fromGenerator, fromWorker, prefetch } from '../../lib/data/index.js'
import type { StepData, StepSource } from '../../lib/train/data.js'

const x = { data: Float32Array.from({ length: 30 }, (_, i) => i), shape: [10, 3] }
const y = Int32Array.from({ length: 10 }, (_, i) => i)

async function all(source: StepSource, most = 1000): Promise<StepData[]> {
  const out: StepData[] = []
  for (let step = await source.next(); step && out.length < most; step = await source.next()) out.push(step)
  return out
}

/** That from any position the source gives what it gave without stopping. */
async function resumes(make: () => StepSource, steps: number): Promise<void> {
  const straight = make()
  const states: unknown[] = []
  const given: (StepData | null)[] = []
  for (let i = 0; i < steps; i++) {
    states.push(JSON.parse(JSON.stringify(straight.state!())))
    given.push(await straight.next())
  }
  await straight.close?.()
  for (let at = 0; at < steps; at++) {
    const resumed = make()
    await resumed.restore!(states[at])
    expect(resumed.state!()).toEqual(states[at])
    for (const data of given.slice(at)) expect(await resumed.next()).toEqual(data)
    await resumed.close?.()
  }
}

describe('fromArrays', () => {
  test('rows stay together, every example comes once an epoch', async () => {
    const steps = await all(fromArrays({ x, y }, { batch: 2, epochs: 2 }))
    expect(steps).toHaveLength(10)
    const rows = steps.flatMap(({ microBatches: [b] }) =>
      [0, 1].map((r) => [...b.x.data.subarray(3 * r, 3 * r + 3), b.y.data[r], b.ids.data[r]]),
    )
    for (const [a, b, c, label, id] of rows)
      expect([a, b, c, id]).toEqual([3 * label, 3 * label + 1, 3 * label + 2, label])
    for (const epoch of [rows.slice(0, 10), rows.slice(10)])
      expect(epoch.map((r) => r[3]).sort((a, b) => a - b)).toEqual([...y])
    expect(rows.slice(0, 10)).not.toEqual(rows.slice(10))
    expect(steps[0].weight).toBeUndefined()
  })

  test('in order without shuffling; what is no whole step at the end is left out', async () => {
    const steps = await all(fromArrays({ y }, { batch: 3, shuffle: false, epochs: 2 }))
    expect(steps.map((s) => [...s.microBatches[0].y.data])).toEqual([
      [0, 1, 2],
      [3, 4, 5],
      [6, 7, 8],
      [9, 0, 1],
      [2, 3, 4],
      [5, 6, 7],
    ])
  })

  test('accumulation gives the weight of the step', async () => {
    const [step] = await all(fromArrays({ x, y }, { batch: 2, accumulate: 3 }), 1)
    expect([step.microBatches.length, step.weight, step.tokens]).toEqual([3, 6, 6])
    expect(step.microBatches[0].normalized.data[0]).toBe(1)
  })

  test('goes on from any position', () => resumes(() => fromArrays({ x, y }, { batch: 3, epochs: 4, seed: 9 }), 13))

  test('says what does not fit', () => {
    expect(() => fromArrays({ x, y: y.subarray(1) }, { batch: 2 })).toThrow(
      '[arrays.y] all fields must have as many examples as x; got 9 for 10',
    )
    expect(() => fromArrays({ x: { data: x.data, shape: [10, 4] } }, { batch: 2 })).toThrow(
      'got [10, 4] for 30 numbers',
    )
    expect(() => fromArrays({ y }, { batch: 11 })).toThrow(
      'got 10 for a batch of 11. Give more, or a batch of at most 10',
    )
    expect(() => fromArrays({ y: [1, 2] as never }, { batch: 1 })).toThrow('[arrays.y] must be a Float32Array')
    expect(() => fromArrays({ y }, { batch: 1.5 })).toThrow('`batch` must be a whole number')
    expect(() =>
      fromArrays({ y }, { batch: 1 }).restore!({ epoch: 0, at: 0, examples: 9, seed: 0, shuffle: true }),
    ).toThrow('the data, seed and shuffling')
  })
})

async function* slowly(epoch: number) {
  for (let i = 0; i < 4; i++) {
    await setTimeout(1)
    yield { y: Float32Array.of(epoch, i) }
  }
}

describe('fromGenerator', () => {
  test('takes iterables and async iterables, epoch after epoch', async () => {
    const steps = await all(fromGenerator(slowly, { epochs: 2 }))
    expect(steps.map((s) => [...s.microBatches[0].y.data])).toEqual([
      [0, 0],
      [0, 1],
      [0, 2],
      [0, 3],
      [1, 0],
      [1, 1],
      [1, 2],
      [1, 3],
    ])
    expect(await all(fromGenerator(() => [{ y }]))).toHaveLength(1)
  })

  test('weighs micro-batches by their labels', async () => {
    const make = () => [{ y, weight: Int32Array.of(3) }, { y, weight: Int32Array.of(4) }, { y }]
    const [step, ...rest] = await all(fromGenerator(make, { accumulate: 2 }))
    expect([step.weight, step.tokens, rest.length]).toEqual([7, 20, 0])
    expect(Object.keys(step.microBatches[0]).sort()).toEqual(['normalized', 'y'])
  })

  test('goes on from any position', () => resumes(() => fromGenerator(slowly, { epochs: 2 }), 9))

  test('says what is wrong', async () => {
    await expect(all(fromGenerator(() => [], { epochs: 2 }))).rejects.toThrow('an epoch must have at least one batch')
    await expect(all(fromGenerator(() => [{ y: 'no' }]))).rejects.toThrow('[batch.y] must be a Float32Array')
    let first = true
    const fickle = fromGenerator(() => (first ? [{ y }, { y }] : [{ y }]))
    await fickle.next()
    await fickle.next()
    const state = fickle.state!()
    first = false
    await expect(Promise.resolve(fickle.restore!(state))).rejects.toThrow(
      'the batches that it made before; got fewer than 2',
    )
  })
})

describe('prefetch', () => {
  test('asks ahead, in order, and tells the position of what was taken', async () => {
    let asked = 0
    const source = prefetch(
      { ...fromGenerator(slowly, { epochs: 2 }), next: undefined as never, ...counted(() => asked++) },
      3,
    )
    await source.next()
    await setTimeout(20)
    expect(asked).toBe(4)
    expect(source.state!()).toEqual({ epoch: 0, taken: 1 })
    expect(await all(source)).toHaveLength(7)
    expect(await source.next()).toBeNull()
  })

  const counted = (count: () => void) => {
    const inner = fromGenerator(slowly, { epochs: 2 })
    return {
      next: () => {
        count()
        return inner.next()
      },
      state: () => inner.state!(),
    }
  }

  test('goes on from any position', () => resumes(() => prefetch(fromGenerator(slowly, { epochs: 2 })), 9))

  test('an error comes in its turn', async () => {
    const source = prefetch(
      fromGenerator(function* () {
        yield { y }
        throw new Error('the disk is gone')
      }),
    )
    expect(await source.next()).not.toBeNull()
    await expect(source.next()).rejects.toThrow('the disk is gone')
    expect(await source.next()).toBeNull()
    await source.close!()
  })
})

describe('fromWorker', () => {
  function module(code: string): URL {
    const dir = mkdtempSync(join(tmpdir(), 'steepest-'))
    onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
    writeFileSync(join(dir, 'batches.mjs'), code)
    return pathToFileURL(join(dir, 'batches.mjs'))
  }

  test('the work is done on another thread, and not far ahead', async () => {
    const url = module(`
      import { isMainThread } from 'node:worker_threads'
      export default function* (data) {
        const began = Date.now()
        for (let i = 0; i < data.count; i++) {
          if (i === 0) while (Date.now() - began < 200);
          Atomics.add(data.made, 0, 1)
          yield { y: Float32Array.of(i, isMainThread ? 1 : 0) }
        }
      }`)
    const made = new Int32Array(new SharedArrayBuffer(4))
    let ticks = 0
    const timer = setInterval(() => ticks++, 5)
    const batches = fromWorker(url, { data: { count: 20, made }, ahead: 2 })
    const source = fromGenerator(() => batches)
    expect([...(await source.next())!.microBatches[0].y.data]).toEqual([0, 0])
    clearInterval(timer)
    expect(ticks).toBeGreaterThan(10)
    await setTimeout(50)
    expect(made[0]).toBeLessThanOrEqual(4)
    expect(await all(source)).toHaveLength(19)
  })

  test('a reader that stops ends the thread', async () => {
    const url = module('export default function* () { for (;;) yield { y: Float32Array.of(1) } }')
    for await (const _ of fromWorker(url)) break
  })

  test('its errors come through', async () => {
    const source = fromGenerator(() =>
      fromWorker(module('export default function* () { throw new Error("no such shard") }')),
    )
    await expect(source.next()).rejects.toThrow('the generator on a worker thread must not fail; got no such shard')
    await expect(fromWorker(module('export const x = 1')).next()).rejects.toThrow('no function as its default export')
    await expect(fromWorker(module('export default () => { process.exit(3) }')).next()).rejects.toThrow(
      'ended with code 3',
    )
    await expect(fromWorker('file:///nowhere.mjs', { ahead: 0 }).next()).rejects.toThrow('`ahead` must be')
  })
})
