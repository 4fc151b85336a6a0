import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { eventLine, type TrainEvent } from '../../lib/train/events.js'
import { drawingLoss } from '../../lib/train/loss-file.js'
import { temporaryFolder } from '../cli/cli-fake.js'
import { fakeRun, start, stepEvent } from './terminal-fake.js'

async function* from(events: Iterable<TrainEvent>): AsyncGenerator<TrainEvent> {
  yield* events
}

async function collect(events: AsyncIterable<TrainEvent>): Promise<TrainEvent[]> {
  const all: TrainEvent[] = []
  for await (const event of events) all.push(event)
  return all
}

test('hands every event on and leaves a picture of both losses', async () => {
  const folder = temporaryFolder()
  const events = [...fakeRun()]
  expect(await collect(drawingLoss(from(events), folder, 'book'))).toEqual(events)
  const svg = readFileSync(join(folder, 'loss.svg'), 'utf8')
  expect(svg).toMatch(/^<svg /)
  for (const text of ['book', 'validation', 'training']) expect(svg).toContain(text)
})

test('a resumed run draws what was before it too, and nothing that it makes again', async () => {
  const folder = temporaryFolder()
  const before = [1, 2, 3, 4].map((step) => eventLine({ ...stepEvent(step), loss: step === 4 ? 1e6 : 3 }))
  writeFileSync(join(folder, 'run.jsonl'), `${before.join('\n')}\n{"type":"st`)
  const resumed: TrainEvent[] = [
    { ...start, fromStep: 3 },
    { ...stepEvent(4), loss: 2 },
    { type: 'stop', reason: 'done', step: 4, seconds: 1 },
  ]
  await collect(drawingLoss(from(resumed), folder))
  const svg = readFileSync(join(folder, 'loss.svg'), 'utf8')
  expect(svg).not.toMatch(/1M|500k/)
  const alone = temporaryFolder()
  await collect(drawingLoss(from(resumed.map((e) => (e.type === 'start' ? { ...e, fromStep: 0 } : e))), alone))
  expect(svg).not.toBe(readFileSync(join(alone, 'loss.svg'), 'utf8'))
})

test('a picture that cannot be written is one warning', async () => {
  const folder = temporaryFolder()
  mkdirSync(join(folder, 'loss.svg'))
  const events = await collect(drawingLoss(from([...fakeRun()]), folder))
  const own = [...fakeRun()].map(eventLine)
  const more = events.filter((event) => !own.includes(eventLine(event)))
  expect(more).toEqual([{ type: 'warning', step: expect.any(Number), message: expect.stringContaining('loss.svg') }])
  expect(events.at(-1)).toMatchObject({ type: 'stop' })
})
