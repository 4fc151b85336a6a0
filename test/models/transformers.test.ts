import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { peerPython } from '../../bench/harness.mjs'
import { modelChecker } from '../../lib/cli/fixtures/models.js'
import * as memory from '../../lib/memory/index.js'
import { add, random } from '../../lib/index.js'
import { parameters, withTensors } from '../../lib/nn/module.js'
import { saveAdapter } from '../../lib/models/peft.js'
import type { Writer } from '../../lib/models/causal.js'
import { type FolderModel, loadModel, saveModel } from '../../lib/models/hf.js'
import { Sampler, type SamplerOptions } from '../../lib/train/generate/sampler.js'
import { root } from '../house/scan.js'

const python = peerPython() as string | undefined

// Needs transformers in the peers' environment, and a minute: `npm run test:long` after `npm run bench`.
describe.runIf(process.env.STEEPEST_LONG && python)('every architecture, beside transformers', () => {
  const [made, back] = ['a', 'b'].map(() => mkdtempSync(join(tmpdir(), 'steepest-transformers-')))
  const run = (script: string, ...args: string[]) =>
    execFileSync(python!, [join(root, 'bench/peers', script), ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      // Its threads wait in loops, which on a busy machine takes minutes.
      env: { ...process.env, OMP_NUM_THREADS: '1' },
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

  test('writes the tokens that it writes, several rows at once and with a penalty', async () => {
    type Case = Record<'prompts' | 'plain' | 'penalized', number[][]> & { name: string }
    const cases = run('model_generate.py', made)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Case)
    expect(cases.length).toBeGreaterThan(13)
    for (const { name, prompts, plain, penalized } of cases) {
      const model = await loadModel<FolderModel & Writer>(join(made, name), { dtype: 'float64' })
      const sampler = new Sampler(model)
      const write = async (rows: number[][], count: number, options: SamplerOptions) => {
        const out: number[][] = rows.map(() => [])
        for await (const tokens of sampler.generate(rows, { temperature: 0, length: 40, ...options })) {
          tokens.forEach((token, i) => out[i].push(token))
          if (out[0].length === count) break
        }
        return out
      }
      // Their angles are those of the longest row, and beyond this context they grow with every token.
      const count = name === 'llama-dynamic' ? 24 - 9 : plain[0].length
      expect(await write(prompts, count, {}), name).toEqual(plain.map((row) => row.slice(0, count)))
      const alone: number[][] = []
      for (const prompt of prompts) alone.push(...(await write([prompt], count, { repetitionPenalty: 1.3 })))
      expect(alone, name).toEqual(penalized.map((row) => row.slice(0, count)))
      sampler.close()
    }
  }, 300_000)

  test('reads low-rank additions that were written here through peft, with the logits of the merged model', async () => {
    const [adapters, merged] = ['c', 'd'].map((name) => join(back, name))
    for (const [n, name] of names.entries()) {
      // Convolutions get no additions.
      if (name.startsWith('resnet')) continue
      const fresh = memory.lora(await loadModel<FolderModel>(join(made, name)), {
        rank: 3,
        alpha: 6,
        train: /^(score|classifier|bert\.pooler)\./,
      })
      const moved = Object.entries(parameters(fresh)).map(([key, t], i) => {
        const noise = random.normal(random.key(100 * n + i), t.shape, { std: 0.1, dtype: t.dtype })
        return [key, add(t, noise)] as const
      })
      const adapted = withTensors(fresh, Object.fromEntries(moved))
      await saveAdapter(join(adapters, name), adapted, join(made, name))
      await saveModel(join(merged, name), adapted.merged())
    }
    const told = run('model_adapters.py', made, adapters, merged).trim().split('\n')
    expect(told.length).toBe(names.filter((name) => !name.startsWith('resnet')).length)
    rmSync(adapters, { recursive: true })
    rmSync(merged, { recursive: true })
  }, 300_000)

  test('reads what was written here, with the same logits', async () => {
    for (const name of names) await saveModel(join(back, name), await loadModel(join(made, name)))
    expect(run('model_roundtrip.py', made, back).trim().split('\n')).toHaveLength(names.length)
  }, 300_000)
})
