import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test, vi } from 'vitest'
import { prepareTraining, type TrainEvent, type TrainOptions } from '../../lib/index.js'
import { RunLog } from '../../lib/io/runlog.js'

const root = mkdtempSync(join(tmpdir(), 'steepest-moved-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))
afterEach(() => vi.restoreAllMocks())

const SIZES: TrainOptions = { layers: 1, heads: 1, width: 8, context: 8, batch: 2, steps: 4, vocab: 257 }
const text = Array.from({ length: 400 }, (_, i) => `${i} is ${i % 2 ? 'odd' : 'even'}.\n`).join('')

function project(name: string): string {
  const folder = join(root, name)
  mkdirSync(folder)
  writeFileSync(join(folder, 'book.txt'), text)
  return folder
}

async function trained(cwd: string, options: TrainOptions): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of (await prepareTraining(options, { cwd })).run()) events.push(event)
  return events
}

const fileOf = (checkpoint: string): string =>
  JSON.parse(readFileSync(join(checkpoint, 'state.json'), 'utf8')).state.run.file

test('a folder with a text and its run can be moved, and the run goes on', async () => {
  const cwd = project('here')
  await trained(cwd, { ...SIZES, file: 'book.txt', stopAfter: 2 })
  expect(fileOf(join(cwd, 'runs/book/checkpoint-2'))).toBe('../../book.txt')
  const there = join(root, 'there')
  renameSync(cwd, there)
  // From whatever folder it is resumed.
  const events = await trained(root, { resume: 'there/runs/book' })
  expect(events.at(-1)).toMatchObject({ type: 'stop', reason: 'done', step: 4 })
  expect(fileOf(join(there, 'runs/book/checkpoint-4'))).toBe('../../book.txt')
})

test('a text that is gone is told with where it was looked for and how to say where it is', async () => {
  const cwd = project('gone')
  await trained(cwd, { ...SIZES, file: 'book.txt', out: 'my run', stopAfter: 2 })
  renameSync(join(cwd, 'book.txt'), join(cwd, 'novel.txt'))
  await expect(prepareTraining({ resume: 'my run' }, { cwd })).rejects.toThrow(
    `[${join(cwd, 'book.txt')}] the text of the run is not there any more; got ../book.txt from the run folder. Say where it is: steepest train FILE --resume 'my run'`,
  )
  const events = await trained(cwd, { resume: 'my run', file: 'novel.txt' })
  expect(events.at(-1)).toMatchObject({ type: 'stop', reason: 'done', step: 4 })
})

test('a text that lies elsewhere is remembered by its whole path', async () => {
  const cwd = project('far')
  const out = join(root, 'a/b/c/d/run')
  await trained(cwd, { ...SIZES, file: 'book.txt', out, stopAfter: 2 })
  expect(fileOf(join(out, 'checkpoint-2'))).toBe(join(cwd, 'book.txt'))
  rmSync(join(cwd, 'book.txt'))
  await expect(prepareTraining({ resume: out }, { cwd })).rejects.toThrow(
    `[${join(cwd, 'book.txt')}] the text of the run is not there any more. Say where it is: steepest train FILE --resume ${out}`,
  )
})

test('a last line that the log does not take is reported, and the checkpoint is whole', async () => {
  const cwd = project('full')
  const append = RunLog.prototype.append
  vi.spyOn(RunLog.prototype, 'append').mockImplementation(function (this: RunLog, event) {
    return event.type === 'stop' ? Promise.reject(new Error('no space is left')) : append.call(this, event)
  })
  const told: TrainEvent[] = []
  const run = async () => {
    for await (const event of (await prepareTraining({ ...SIZES, file: 'book.txt' }, { cwd })).run()) told.push(event)
  }
  await expect(run()).rejects.toThrow('no space is left')
  expect(told.slice(-2)).toMatchObject([
    { type: 'stop', reason: 'done' },
    { type: 'error', message: 'no space is left' },
  ])
  vi.restoreAllMocks()
  expect((await prepareTraining({ resume: 'runs/book', steps: 6 }, { cwd })).plan.fromStep).toBe(4)
})
