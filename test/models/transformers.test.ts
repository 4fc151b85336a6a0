import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { peerPython } from '../../bench/harness.mjs'
import { modelChecker } from '../../lib/cli/fixtures/models.js'
import { loadModel, saveModel } from '../../lib/models/hf.js'
import { root } from '../house/scan.js'

const python = peerPython() as string | undefined

// Needs transformers in the peers' environment, and a minute: `npm run test:long` after `npm run bench`.
describe.runIf(process.env.STEEPEST_LONG && python)('every architecture, beside transformers', () => {
  const [made, back] = ['a', 'b'].map(() => mkdtempSync(join(tmpdir(), 'steepest-transformers-')))
  const run = (script: string, ...args: string[]) =>
    execFileSync(python!, [join(root, 'bench/peers', script), ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
  let names: string[] = []

  beforeAll(() => {
    run('model_fixtures.py', made)
    names = readdirSync(made)
  }, 300_000)
  afterAll(() => {
    for (const dir of [made, back]) rmSync(dir, { recursive: true, force: true })
  })

  test('gives the logits, losses, gradients, weights and tokens that it gives', async () => {
    expect(names.length).toBeGreaterThan(20)
    for (const name of names) {
      const path = join(made, name)
      const json = JSON.parse(readFileSync(join(path, 'training.json'), 'utf8'))
      const compared = await modelChecker.check({ path, json, folder: true })
      expect(
        compared.filter((c) => !(c.ok ?? c.error <= c.bound)),
        name,
      ).toEqual([])
    }
  }, 300_000)

  test('reads what was written here, with the same logits', async () => {
    for (const name of names) await saveModel(join(back, name), await loadModel(join(made, name)))
    expect(run('model_roundtrip.py', made, back).trim().split('\n')).toHaveLength(names.length)
  }, 300_000)
})
