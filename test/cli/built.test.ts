import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { expectTrains, installed } from './packed.js'

// Fetches what the build needs and builds the native part from nothing.
test.runIf(process.env.STEEPEST_LONG)('a package without a binary says what to type, and what it says works', () => {
  const folder = mkdtempSync(join(tmpdir(), 'steepest-built-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const { home, inProject } = installed(folder, { ...process.env, NO_COLOR: '1', CI: 'true' })
  rmSync(join(home, 'node_modules/steepest/prebuilds'), { recursive: true, force: true })
  writeFileSync(
    join(home, 'uses.mjs'),
    "import { tensor } from 'steepest'\nconsole.log(await tensor([1, 2]).sum().item())\n",
  )

  const before = inProject('node', ['uses.mjs'])
  expect(before.code).toBe(1)
  expect(before.err).toContain('Build it with: npx steepest build')

  const built = inProject('npx', ['steepest', 'build'])
  expect(built.code, built.out.slice(-3000) + built.err.slice(-3000)).toBe(0)
  expect(inProject('node', ['uses.mjs'])).toEqual({ code: 0, out: '3\n', err: '' })
  expectTrains(home, inProject)
})
