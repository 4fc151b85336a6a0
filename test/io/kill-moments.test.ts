import { spawn } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { latestCheckpoint, loadCheckpoint } from '../../lib/io/checkpoint.js'
import { readRunLog } from '../../lib/io/runlog.js'
import { compileScript, freshFolder } from './child.js'
import { partsOf } from './parts.js'

const MOMENTS = process.env.STEEPEST_LONG ? 200 : 20

let child: string
beforeAll(() => {
  child = compileScript('loop-child')
}, 60_000)

/** Runs the child until some milliseconds after it has begun to save, then kills it. */
async function killAfter(run: string, milliseconds: number): Promise<void> {
  const process_ = spawn(process.execPath, [child, run], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise<string | null>((resolve) => process_.on('close', (_, signal) => resolve(signal)))
  await new Promise((resolve) => process_.stdout.once('data', resolve))
  await setTimeout(milliseconds)
  process_.kill('SIGKILL')
  expect(await ended).toBe('SIGKILL')
}

test(`SIGKILL at ${MOMENTS} random moments of a run that saves without pause`, async () => {
  const run = freshFolder('moments')
  let reached = 0
  let seed = 20_250_101
  const random = (n: number) => (seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff) % n
  for (let moment = 0; moment < MOMENTS; moment++) {
    await killAfter(run, random(60))
    const latest = await latestCheckpoint(run)
    expect(latest.skipped).toEqual([])
    const step = latest.step ?? 0
    expect(step).toBeGreaterThanOrEqual(reached)
    reached = step
    // What has a checkpoint's name is one, and what a dead process left is gone.
    const names = await readdir(run)
    expect(names.filter((name) => !/^(checkpoint-\d+|run\.jsonl)$/.test(name))).toEqual([])
    if (latest.dir) {
      const checkpoint = await loadCheckpoint(latest.dir)
      expect(checkpoint.state).toEqual(partsOf(step).state)
      for (const source of partsOf(step).model) {
        const loaded = checkpoint.model.find((t) => t.name === source.name)!
        const bytes = new Uint8Array(1200)
        await loaded.readInto(bytes, 'float32')
        const expected: Uint8Array[] = []
        for await (const piece of (await source.read()) as AsyncIterable<Uint8Array>) expected.push(piece)
        expect(Buffer.compare(bytes, Buffer.concat(expected))).toBe(0)
      }
      await checkpoint.close()
    }
    // Every line of the log is whole but perhaps the last, and every save that it tells of happened.
    const saved = (await readRunLog(join(run, 'run.jsonl'))).filter((e) => e.type === 'save').map((e) => Number(e.step))
    expect(Math.max(0, ...saved)).toBeLessThanOrEqual(step)
  }
  expect(reached).toBeGreaterThan(MOMENTS / 4)
})
