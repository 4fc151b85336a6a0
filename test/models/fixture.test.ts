import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Comparison } from '../../lib/cli/fixtures/checker.js'
import { modelChecker } from '../../lib/cli/fixtures/models.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { saveModel } from '../../lib/models/hf.js'
import { parameters } from '../../lib/nn/module.js'
import { root } from '../house/scan.js'

// Golden data lie beside the repository where it is developed; elsewhere the checker is tested by what it refuses.
const models = join(process.env.STEEPEST_FIXTURES ?? join(root, '../shared/fixtures'), 'models')
const golden = join(models, 'gpt2-tiny')
const others = existsSync(models) ? readdirSync(models).filter((name) => name !== 'gpt2-tiny') : []

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'steepest-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const trainingOf = (dir: string) => JSON.parse(readFileSync(join(dir, 'training.json'), 'utf8'))
const check = (path: string, json: unknown) => modelChecker.check({ path, json, folder: true })
const holds = (c: Comparison) => c.ok ?? c.error <= c.bound

describe.skipIf(!existsSync(golden))('the GPT-2 of transformers', () => {
  test('holds in float64 and float32: logits, losses, gradients, a run, continuations', async () => {
    const compared = await check(golden, trainingOf(golden))
    expect(compared.filter((c) => !holds(c))).toEqual([])
    expect(compared).toHaveLength(18)
  })

  test.each(others)('and so does %s', async (name) => {
    const dir = join(models, name)
    expect((await check(dir, trainingOf(dir))).filter((c) => !holds(c))).toEqual([])
  })

  test('and does not with another number in it', async () => {
    const json = trainingOf(golden)
    const expected = json.expect.float64
    expected.loss[11] += 3e-6
    expected.gradNorm[5] *= 1.0001
    expected.firstLogits[3] += 1e-6
    expected.clippedGradNormAtStep1['transformer.ln_f.bias'] *= 1.0001
    expected.finalNorm['transformer.h.1.mlp.c_fc.bias'] *= 0.9999
    const dir = folder()
    cpSync(golden, dir, { recursive: true })
    const generation = JSON.parse(readFileSync(join(dir, 'generation.json'), 'utf8'))
    generation.cases[0].greedy[0][14]++
    writeFileSync(join(dir, 'generation.json'), JSON.stringify(generation))
    const wrong = (await check(dir, json)).filter((c) => !holds(c)).map((c) => c.what)
    expect(wrong).toEqual([
      '64 logits, float64',
      'gradients of 40 tensors, float64',
      'losses of 12 steps of adamw, float64',
      'gradient norms of 12 steps, float64',
      'parameters after them, float64',
      'tokens of 3 greedy continuations, float64',
      'tokens of 3 greedy continuations with a cache, float64',
      'tokens of 3 greedy continuations, float32',
      'tokens of 3 greedy continuations with a cache, float32',
    ])
  })
})

describe('a model of our own', () => {
  async function made(changes: object = {}) {
    const dir = folder()
    const model = new GPT2({ vocabSize: 11, context: 8, layers: 1, heads: 2, width: 8, seed: 4 })
    await saveModel(dir, model)
    const rows = [[1, 2, 3, 4, 5, 6]]
    const norms = Object.fromEntries(Object.keys(parameters(model)).map((name) => [name, 123]))
    const expected = {
      loss: [9, 9],
      gradNorm: [9, 9],
      firstLogits: [9, 9, 9],
      logitsSum: 9,
      logitsAbsSum: 9,
      clippedGradNormAtStep1: norms,
      finalNorm: norms,
    }
    const optimizer = { name: 'adamw', lr: 0.01, betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0.1, clipGlobalNorm: null }
    const batch = { input_ids: rows, labels: rows }
    return {
      dir,
      json: { task: 'causal-lm', optimizer, batches: [batch, batch], expect: { float32: expected }, ...changes },
    }
  }

  test('no number that is wrong passes', async () => {
    const { dir, json } = await made()
    const compared = await check(dir, json)
    expect(compared.map(holds)).toEqual(compared.map(() => compared.length === 0))
    expect(compared.length).toBe(7)
  })

  test('what cannot be compared is said', async () => {
    const { dir, json } = await made()
    await expect(check(dir, { ...json, task: 'translation' })).rejects.toThrow('image-classification; got translation')
    await expect(check(dir, { ...json, expect: { float16: json.expect.float32 } })).rejects.toThrow(
      'float64 or float32; got float16',
    )
    const masked = { ...json.batches[0], position_ids: [[1]] }
    await expect(check(dir, { ...json, batches: [masked] })).rejects.toThrow('labels; got position_ids')
    const { 'transformer.ln_f.bias': _, ...fewer } = json.expect.float32.finalNorm
    await expect(
      check(dir, { ...json, expect: { float32: { ...json.expect.float32, finalNorm: fewer } } }),
    ).rejects.toThrow('no transformer.ln_f.bias in the fixture')
    expect(modelChecker.recognizes({ path: dir, json, folder: true })).toBe(true)
    expect(modelChecker.recognizes({ path: dir, json, folder: false })).toBe(false)
    expect(modelChecker.recognizes({ path: dir, json: { name: 'Adam' }, folder: true })).toBe(false)
  })
})
