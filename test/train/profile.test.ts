import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { models, optim, train, type TrainEvent } from '../../lib/index.js'
import { eventNote } from '../../lib/train/terminal-lines.js'

const out = mkdtempSync(join(tmpdir(), 'steepest-profile-'))
afterAll(() => rmSync(out, { recursive: true, force: true }))

type Of<T extends TrainEvent['type']> = Extract<TrainEvent, { type: T }>

test('a profiled run tells where the time of its steps went, by op and by module, and writes it as a trace', async () => {
  const model = new models.GPT2({ vocabSize: 64, context: 16, layers: 2, heads: 2, width: 32 })
  function* data() {
    for (;;) {
      const ids = (n: number) => ({ data: Int32Array.from({ length: 32 }, (_, i) => (7 * i + n) % 64), shape: [2, 16] })
      yield { inputIds: ids(0), targets: ids(7) }
    }
  }
  const events: TrainEvent[] = []
  const options = { optimizer: optim.adamw({ lr: 1e-3 }), steps: 5, accumulate: 3, profile: true, out }
  for await (const event of train(model, data(), options)) events.push(event)
  const profile = events.find((e): e is Of<'profile'> => e.type === 'profile')!
  const start = events.find((e): e is Of<'start'> => e.type === 'start')!
  expect(events.at(-1)!.type).toBe('stop')
  expect(profile.steps).toBe(5)

  const total = (rows: Of<'profile'>['ops'], what: 'ms' | 'flops' | 'bytes' | 'calls') =>
    rows.reduce((n, row) => n + row[what], 0)
  for (const what of ['ms', 'flops', 'bytes', 'calls'] as const)
    expect(total(profile.modules, what)).toBeCloseTo(total(profile.ops, what), 6)
  expect(total(profile.ops, 'ms')).toBeCloseTo(profile.ms, 9)
  expect(total(profile.ops, 'flops')).toBeCloseTo(start.flopsPerStep, 3)
  const ops = new Map(profile.ops.map((row) => [row.name, row]))
  // Forward products of two layers and three micro-batches.
  expect(ops.get('attention')!.calls).toBeCloseTo(6, 9)
  expect(profile.modules.map((row) => row.name)).toContain('transformer.h.*.mlp.c_fc')
  for (const row of profile.ops) expect(row.ms).toBeGreaterThanOrEqual(0)

  const { traceEvents } = JSON.parse(readFileSync(profile.path!, 'utf8')) as {
    traceEvents: { ph: string; tid: number; ts: number; dur: number; name: string }[]
  }
  const runs = new Map([0, 1, 2].map((tid) => [tid, traceEvents.filter((e) => e.ph === 'X' && e.tid === tid)]))
  for (const list of runs.values()) {
    expect(list.length).toBeGreaterThan(10)
    list.slice(1).forEach((e, i) => expect(e.ts).toBeCloseTo(list[i].ts + list[i].dur, 6))
  }
  // Each of the three programs (first, middle, last micro-batch) runs once a step.
  const sum = [...runs.values()].flat().reduce((n, e) => n + e.dur / 1000, 0)
  expect(sum).toBeCloseTo(profile.ms, 6)

  const lines = eventNote(profile, { color: false, unicode: true, tty: false, width: 80 } as never)
  expect(lines[0]).toMatch(/^profile of 5 steps: /)
  expect(lines.find((line) => line.includes('attentionBackward'))).toMatch(/\d %|\d%/)
  expect(Math.max(...lines.map((l) => l.length))).toBeLessThan(160)
})

test('without it nothing is timed and no trace is written', async () => {
  const model = new models.GPT2({ vocabSize: 16, context: 4, layers: 1, heads: 1, width: 8 })
  const ids = { data: Int32Array.of(1, 2, 3, 4), shape: [1, 4] }
  const data = [{ inputIds: ids, targets: ids }]
  const events: TrainEvent[] = []
  for await (const event of train(model, data, { optimizer: optim.sgd({ lr: 0.1 }), steps: 1 })) events.push(event)
  expect(events.some((e) => e.type === 'profile')).toBe(false)
})
