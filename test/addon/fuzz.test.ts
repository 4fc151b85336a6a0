import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findNative, native } from '../../lib/addon.js'
import { KERNELS } from '../../lib/graph/table.gen.js'
import { root } from '../house/scan.js'
import { kernelsOf, type Recorded, recordPrograms } from './programs.js'

const CASES = process.env.STEEPEST_LONG ? 200_000 : 3000
const SEED = Number(process.env.STEEPEST_FUZZ_SEED ?? 20_250_101)

const folder = mkdtempSync(join(tmpdir(), 'steepest-fuzz-'))
let programs: Recorded[]

beforeAll(async () => {
  native().threads(2)
  programs = await recordPrograms()
  writeFileSync(join(folder, 'programs.json'), JSON.stringify(programs.map(({ threads }) => ({ threads }))))
  programs.forEach(({ words, constants }, i) => {
    writeFileSync(join(folder, `${i}.words`), words)
    writeFileSync(join(folder, `${i}.constants`), constants)
  })
}, 120_000)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test('the recorded programs use every kernel', () => {
  const used = new Set(programs.flatMap(kernelsOf))
  // What is missing needs a line in test/addon/programs.ts.
  expect(KERNELS.filter((name) => !used.has(name))).toEqual([])
})

interface Child {
  /** Number of the last case that began. */
  last: number
  stuck: boolean
  counts?: { refused: number; run: number; cancelled: number; large: number }
  end: string
}

function child(first: number): Promise<Child> {
  const args = [
    join(root, 'test/addon/fuzz-child.mjs'),
    findNative(),
    folder,
    String(first),
    String(CASES),
    String(SEED),
  ]
  return new Promise((resolve) => {
    execFile(process.execPath, args, { maxBuffer: 1 << 28 }, (error, stdout, stderr) => {
      const lines = stdout.trim().split('\n')
      const end = lines.at(-1) ?? ''
      resolve({
        last: Number(lines.findLast((line) => /^\d+$/.test(line)) ?? first),
        stuck: end.startsWith('stuck'),
        counts: end.startsWith('{') ? JSON.parse(end) : undefined,
        end: error ? `${error.signal ?? error.code} ${stderr.slice(-2000)}` : '',
      })
    })
  })
}

test(`of ${CASES} wrong programs each is refused, run or cancelled, and none ends the process`, {
  timeout: process.env.STEEPEST_LONG ? 3_600_000 : 240_000,
}, async () => {
  const fatal: string[] = []
  const total = { refused: 0, run: 0, cancelled: 0 }
  for (let first = 0; first < CASES; ) {
    const done = await child(first)
    if (done.counts) {
      total.refused += done.counts.refused
      total.run += done.counts.run
      total.cancelled += done.counts.cancelled
      break
    }
    fatal.push(`case ${done.last} of seed ${SEED}: ${done.stuck ? 'did not end when it was cancelled' : done.end}`)
    if (fatal.length > 20) break
    first = done.last + 1
  }
  expect(fatal).toEqual([])
  // Most changes are seen; what is left runs, the unchanged ones among them.
  expect(total.refused).toBeGreaterThan(CASES / 4)
  expect(total.run).toBeGreaterThan(CASES / 20)
  expect(total.cancelled).toBeLessThan(CASES / 100)
})
