import { execFileSync } from 'node:child_process'
import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { SteepestError } from '../../lib/errors.js'
import { latestCheckpoint, loadCheckpoint, saveCheckpoint } from '../../lib/io/checkpoint.js'
import { compileScript, freshFolder, runScript } from './child.js'
import { type Fault, faulty } from './faults.js'
import { partsOf } from './parts.js'

let child: string
beforeAll(() => {
  child = compileScript('kill-child')
}, 60_000)

async function bytesOf(dir: string): Promise<Record<string, string>> {
  const names = (await readdir(dir)).sort()
  return Object.fromEntries(
    await Promise.all(names.map(async (n) => [n, (await readFile(join(dir, n))).toString('base64')])),
  )
}

/** A run with a whole checkpoint-1, and the bytes that checkpoint-1 and `step` have when all goes well. */
async function scene(step: number) {
  const base = freshFolder('base')
  await saveCheckpoint(base, 1, partsOf(1))
  const before = await bytesOf(join(base, 'checkpoint-1'))
  const done = freshFolder('done')
  await saveCheckpoint(done, step, partsOf(step + 100))
  return { base, before, after: await bytesOf(join(done, `checkpoint-${step}`)) }
}

/** What must hold whatever happened: the last checkpoint is the old or the new one, whole, and the next save works and cleans up. */
async function checkWhole(run: string, step: number, before: object, after: object): Promise<void> {
  const latest = await latestCheckpoint(run)
  expect(latest.skipped).toEqual([])
  expect([1, step]).toContain(latest.step)
  const bytes = await bytesOf(latest.dir!)
  if (step !== 1) expect(bytes).toEqual(latest.step === 1 ? before : after)
  else expect([before, after]).toContainEqual(bytes)
  await saveCheckpoint(run, 3, partsOf(3), { keep: 1, keepBest: false })
  expect((await readdir(run)).filter((n) => !n.startsWith('checkpoint-'))).toEqual([])
  expect((await latestCheckpoint(run)).step).toBe(3)
}

describe('nothing is lost', () => {
  // Step 2 is a new checkpoint after which checkpoint-1 is rotated away; step 1 replaces the one that is there.
  for (const step of [2, 1]) {
    test(`SIGKILL before each call and within each write of a save of step ${step}`, async () => {
      const { base, before, after } = await scene(step)
      const dry = freshFolder('dry')
      await cp(base, dry, { recursive: true })
      const calls = JSON.parse((await runScript(child, [dry, String(step), '-1', 'kill'])).out) as string[]
      expect(calls.length).toBeGreaterThan(30)
      const jobs = calls.flatMap((call, n): [number, Fault][] =>
        call.startsWith('write')
          ? [
              [n, 'kill'],
              [n, 'torn'],
            ]
          : [[n, 'kill']],
      )
      const seen = new Set<number>()
      await inPairs(jobs, async ([n, fault]) => {
        const run = freshFolder('kill')
        await cp(base, run, { recursive: true })
        expect((await runScript(child, [run, String(step), String(n), fault])).signal).toBe('SIGKILL')
        seen.add((await latestCheckpoint(run)).step!)
        await checkWhole(run, step, before, after)
        await rm(run, { recursive: true })
      })
      expect([...seen].sort()).toEqual(step === 2 ? [1, 2] : [1])
    }, 120_000)
  }

  for (const step of [2, 1]) {
    for (const fault of ['ENOSPC', 'EROFS', 'EIO', 'short'] as const) {
      test(`${fault} at each call of a save of step ${step}`, async () => {
        const { base, before, after } = await scene(step)
        const dry = freshFolder('dry')
        await cp(base, dry, { recursive: true })
        const whole = faulty()
        await saveCheckpoint(dry, step, partsOf(step + 100), { keep: 1, keepBest: false, fs: whole.fs })
        let failed = 0
        for (let n = 0; n < whole.calls.length; n++) {
          for (const persist of fault === 'ENOSPC' ? [false, true] : [false]) {
            const run = freshFolder('fault')
            await cp(base, run, { recursive: true })
            const { fs } = faulty(n, fault, persist)
            const saved = await saveCheckpoint(run, step, partsOf(step + 100), { keep: 1, keepBest: false, fs }).catch(
              (e: unknown) => e,
            )
            const problem = saved instanceof Error ? saved : (saved as { problem?: Error }).problem
            if (problem) {
              failed++
              expect(problem).toBeInstanceOf(SteepestError)
              expect(problem.message).toContain(`(${fault})`)
              expect(problem.message.split('\n')).toHaveLength(1)
            }
            if (fault === 'short') expect(await bytesOf(join(run, `checkpoint-${step}`))).toEqual(after)
            await checkWhole(run, step, before, after)
            await rm(run, { recursive: true })
          }
        }
        expect(failed).toBeGreaterThan(fault === 'short' ? -1 : whole.calls.length / 2)
      }, 60_000)
    }
  }

  test('a real limit of the file size gives one sentence and leaves the old checkpoint', async () => {
    const run = freshFolder('limit')
    await saveCheckpoint(run, 1, partsOf(1))
    const command = `ulimit -f 1; exec ${JSON.stringify(process.execPath)} ${JSON.stringify(child)} ${JSON.stringify(run)} 2 -1 EIO`
    let message = ''
    try {
      execFileSync('bash', ['-c', command], { stdio: 'pipe' })
    } catch (error) {
      message = String((error as { stderr: Buffer }).stderr)
    }
    expect(message).toMatch(
      /SteepestError: .*model\.safetensors\] cannot be written: the file would be larger than .* \(EFBIG\)/,
    )
    expect(await readdir(run)).toEqual(['checkpoint-1'])
    expect((await latestCheckpoint(run)).step).toBe(1)
  })

  test('nothing gets its name before all of it is on the device', async () => {
    const run = freshFolder('order')
    await mkdir(run, { recursive: true })
    const { fs, calls } = faulty()
    await saveCheckpoint(run, 1, partsOf(1), { fs })
    const renamed = calls.findIndex((c) => c.startsWith('rename'))
    const [from] = calls[renamed].slice('rename '.length).split(' -> ')
    const opened = calls.flatMap((c) => (c.startsWith(`open ${from}/`) ? [c.slice('open '.length)] : []))
    expect(opened.map((p) => p.slice(from.length + 1)).sort()).toEqual(
      Object.keys(await bytesOf(join(run, 'checkpoint-1'))),
    )
    for (const path of opened) {
      const synced = calls.lastIndexOf(`sync ${path}`)
      expect(synced).toBeGreaterThan(calls.lastIndexOf(`write ${path}`))
      expect(synced).toBeLessThan(renamed)
    }
    expect(calls.indexOf(`syncFolder ${from}`)).toBeLessThan(renamed)
    expect(calls.indexOf(`syncFolder ${from}`)).toBeGreaterThan(0)
    expect(calls.indexOf(`syncFolder ${run}`)).toBeGreaterThan(renamed)
  })

  test('a read that fails is a sentence about that file', async () => {
    const run = freshFolder('read')
    await saveCheckpoint(run, 1, partsOf(1))
    const whole = faulty()
    await (await loadCheckpoint(join(run, 'checkpoint-1'), { fs: whole.fs })).close()
    const results = []
    for (let n = 0; n < whole.calls.length; n++) {
      const { fs } = faulty(n, 'EIO')
      results.push(
        await loadCheckpoint(join(run, 'checkpoint-1'), { fs }).then(
          (c) => c.close(),
          (e: unknown) => e,
        ),
      )
    }
    const errors = results.filter((r) => r !== undefined)
    expect(errors.length).toBeGreaterThan(20)
    for (const error of errors)
      expect(String(error)).toMatch(/^SteepestError: \[.*checkpoint-1.*\] cannot be read: .*\(EIO\)/)
  })
})

async function inPairs<T>(jobs: readonly T[], work: (job: T) => Promise<void>): Promise<void> {
  const queue = [...jobs]
  const worker = async () => {
    for (let job = queue.shift(); job !== undefined; job = queue.shift()) await work(job)
  }
  await Promise.all([worker(), worker()])
}
