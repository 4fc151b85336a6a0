import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { FileSystem } from '../../lib/io/files.js'
import { readRunLog, RunLog } from '../../lib/io/runlog.js'
import { freshFolder } from './child.js'
import { faulty } from './faults.js'

const fresh = () => join(freshFolder('log'), 'run.jsonl')

async function logged(path: string, from: number, to: number): Promise<void> {
  const log = await RunLog.open(path)
  for (let step = from; step <= to; step++) await log.append({ type: 'step', step, loss: 1 / step })
  await log.close()
}

describe('run.jsonl', () => {
  test('appends across openings, keeps the order of calls that are not awaited', async () => {
    const path = fresh()
    await logged(path, 1, 2)
    const log = await RunLog.open(path)
    await Promise.all([
      log.append({ step: 3 }),
      log.append({ step: 4, text: 'a\nb ü' }),
      log.flush(),
      log.append({ step: 5 }),
    ])
    await log.close()
    expect((await readRunLog(path)).map((e) => e.step)).toEqual([1, 2, 3, 4, 5])
    expect((await readRunLog(path))[3].text).toBe('a\nb ü')
    expect(readFileSync(path, 'utf8').split('\n')).toHaveLength(6)
  })

  test('repairs a last line that was cut at any byte', async () => {
    const line = JSON.stringify({ step: 3, text: 'ü'.repeat(10) })
    for (let cut = 1; cut <= Buffer.byteLength(line); cut++) {
      const path = fresh()
      await logged(path, 1, 2)
      appendFileSync(path, Buffer.from(line).subarray(0, cut))
      const whole = cut === Buffer.byteLength(line)
      expect((await readRunLog(path)).map((e) => e.step)).toEqual(whole ? [1, 2, 3] : [1, 2])
      await logged(path, 4, 4)
      expect((await readRunLog(path)).map((e) => e.step)).toEqual(whole ? [1, 2, 3, 4] : [1, 2, 4])
    }
  })

  test('repairs a torn line longer than one read, and a file that is nothing but one', async () => {
    const path = fresh()
    await logged(path, 1, 1)
    appendFileSync(path, `{"text":"${'x'.repeat(200_000)}`)
    await logged(path, 2, 2)
    expect((await readRunLog(path)).map((e) => e.step)).toEqual([1, 2])
    writeFileSync(path, '{"text":')
    await logged(path, 7, 7)
    expect((await readRunLog(path)).map((e) => e.step)).toEqual([7])
  })

  test('drops the lines after the step that a run resumes from', async () => {
    const path = fresh()
    writeFileSync(path, '{"type":"start"}\n')
    await logged(path, 1, 5)
    appendFileSync(path, '{"type":"note"}\n{"step":6,"lo')
    const log = await RunLog.open(path, { keepThroughStep: 3 })
    await log.append({ step: 4 })
    await log.close()
    expect(await readRunLog(path)).toEqual([
      { type: 'start' },
      ...[1, 2, 3].map((step) => ({ type: 'step', step, loss: 1 / step })),
      { type: 'note' },
      { step: 4 },
    ])
    writeFileSync(path, '{"step":9}')
    await (await RunLog.open(path, { keepThroughStep: 3 })).close()
    expect(readFileSync(path, 'utf8')).toBe('')
  })

  test('short writes go on; a failed write leaves no part of its line', async () => {
    for (const fault of ['short', 'ENOSPC'] as const) {
      const path = fresh()
      await logged(path, 1, 1)
      const { fs, calls } = faulty(4, fault)
      const log = await RunLog.open(path, { fs })
      const results: (true | string)[] = []
      for (const step of [2, 3, 4]) {
        const result = log.append({ step }).then(
          () => true as const,
          (e: Error) => e.message,
        )
        results.push(await result)
      }
      await log.close()
      expect(calls[4]).toMatch(/^append/)
      if (fault === 'short') expect(results).toEqual([true, true, true])
      else {
        const sentence = `[${path}] cannot be written: the disk is full (ENOSPC). Free some space or choose another folder`
        expect(results.filter((r) => r !== true)).toEqual([sentence])
      }
      expect((await readRunLog(path)).map((e) => e.step)).toEqual([
        1,
        ...[2, 3, 4].filter((_, i) => results[i] === true),
      ])
    }
  })

  test('a full disk in the middle of a line', async () => {
    const path = fresh()
    await logged(path, 1, 1)
    const { fs } = faulty()
    let appends = 0
    const full: FileSystem = {
      ...fs,
      async open(p, mode) {
        const file = await fs.open(p, mode)
        const append = (data: Uint8Array) => {
          appends++
          if (appends === 3) return Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' }))
          return file.append(appends === 2 ? data.subarray(0, 5) : data)
        }
        return { ...file, append }
      },
    }
    const log = await RunLog.open(path, { fs: full })
    await log.append({ step: 2 })
    await expect(log.append({ step: 3 })).rejects.toThrow(/disk is full/)
    expect((await readRunLog(path)).map((e) => e.step)).toEqual([1, 2])
    expect(readFileSync(path, 'utf8').endsWith('\n')).toBe(true)
    await log.append({ step: 4 })
    await log.close()
    expect((await readRunLog(path)).map((e) => e.step)).toEqual([1, 2, 4])
  })

  test('a line in the middle that is no object is named', async () => {
    const path = fresh()
    writeFileSync(path, '{"a":1}\noops\n{"a":2}\n')
    await expect(readRunLog(path)).rejects.toThrow(`[${path}:2] each line is a JSON object`)
    await expect(readRunLog(`${path}x`)).rejects.toThrow(/cannot be read: there is no such file/)
  })
})
