import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { latestCheckpoint } from '../../lib/io/checkpoint.js'
import { readRunLog } from '../../lib/io/runlog.js'
import { begin, STEPS, steepest, workplace } from './train-child.js'

const MOMENTS = process.env.STEEPEST_LONG ? 200 : 20

async function filesOf(dir: string): Promise<Record<string, string>> {
  const names = (await readdir(dir)).sort()
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, (await readFile(join(dir, name))).toString('base64')])),
  )
}

test(`SIGKILL at ${MOMENTS} random moments of a training run, resumed each time, ends at the bytes of the run that was left alone`, async () => {
  // In one folder: a checkpoint remembers where its text is.
  const cwd = await workplace()
  const whole = await steepest(begin('alone'), cwd)
  expect([whole.code, whole.err]).toEqual([0, ''])
  const expected = await filesOf(join(cwd, 'alone', `checkpoint-${STEPS}`))

  let seed = 20_250_102
  const random = (n: number) => (seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff) % n
  let killed = 0
  let ends = 0
  const reached = new Set<number>()
  while (killed < MOMENTS || ends === 0) {
    const out = `run-${ends}`
    const run = join(cwd, out)
    const before = (await latestCheckpoint(run)).step ?? 0
    // Four kills or so in the time that a whole run takes; after the last, the run is let go to its end.
    const moment = killed < MOMENTS ? random(Math.ceil(whole.trained / 4)) : undefined
    const ended = await steepest(before > 0 ? ['--resume', out] : begin(out), cwd, { killAfter: moment })
    const latest = await latestCheckpoint(run)
    expect(latest.skipped).toEqual([])
    expect(latest.step ?? 0).toBeGreaterThanOrEqual(before)
    if (existsSync(run)) {
      expect((await readdir(run)).filter((name) => !/^(checkpoint-\d+|run\.jsonl|loss\.svg)$/.test(name))).toEqual([])
      if (existsSync(join(run, 'run.jsonl'))) await readRunLog(join(run, 'run.jsonl'))
    }
    reached.add(latest.step ?? 0)
    if (ended.signal === 'SIGKILL') killed++
    else expect([ended.code, ended.err]).toEqual([0, ''])
    if (latest.step === STEPS) {
      expect(await filesOf(join(run, `checkpoint-${STEPS}`))).toEqual(expected)
      ends++
    }
  }
  expect(reached.size).toBeGreaterThan(3)
}, 1_800_000)
