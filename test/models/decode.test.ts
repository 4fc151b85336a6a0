import { expect, test } from 'vitest'
import { argmax, slice, tensor } from '../../lib/index.js'
import type { CausalLM } from '../../lib/models/causal.js'
import { Decoder, type DecoderConfig } from '../../lib/models/decoder.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { T5 } from '../../lib/models/t5.js'
import { Context } from '../../lib/nn/module.js'
import { Sampler, type SamplerOptions } from '../../lib/train/generate/sampler.js'

const take = async (sampler: Sampler, prompts: number[][], n: number, options: SamplerOptions) => {
  const out: number[][] = prompts.map(() => [])
  for await (const tokens of sampler.generate(prompts, options)) {
    tokens.forEach((token, i) => out[i].push(token))
    if (out[0].length === n) break
  }
  return out
}

const decoder = (more: Partial<DecoderConfig>) => {
  const rope = { base: 10000, kind: 'default', parameters: {}, context: 32 } as const
  return new Decoder({
    vocabSize: 50,
    context: 32,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    width: 20,
    hidden: 24,
    depth: 6,
    eps: 1e-6,
    rope: [rope, rope],
    windows: [null, null],
    activation: 'silu',
    bias: { qkv: true, out: false, mlp: false },
    qkNorm: true,
    gemma: false,
    embedScale: 1,
    scale: 0.4,
    tied: true,
    padId: null,
    dropout: 0,
    initializerRange: 0.5,
    dtype: 'float64',
    seed: 3,
    ...more,
  })
}

const last = async (model: CausalLM, row: number[]): Promise<number> => {
  const logits = model.logits(tensor(Int32Array.from(row), { shape: [1, row.length] }), new Context())
  return Number((await argmax(slice(logits, [null, [row.length - 1, row.length], null]), { axis: -1 }).read())[0])
}

const PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [7], [2, 7, 1]]

test.each<[string, () => CausalLM]>([
  ['GPT-2', () => new GPT2({ vocabSize: 50, context: 24, layers: 2, heads: 2, width: 16, seed: 5, dtype: 'float64' })],
  ['a decoder with a window on one layer', () => decoder({ windows: [null, 4] })],
  [
    'a decoder with norms on both sides and soft caps',
    () => decoder({ gemma: true, attentionSoftCap: 5, logitSoftCap: 3 }),
  ],
])('rows of different lengths together, token by token, say what %s says of each whole row', async (_, make) => {
  const model = make()
  const sampler = new Sampler(model)
  const out = await take(sampler, PROMPTS, 14, { temperature: 0 })
  for (const [i, prompt] of PROMPTS.entries()) {
    const row = [...prompt]
    for (const token of out[i]) {
      expect(token).toBe(await last(model, row))
      row.push(token)
    }
  }
  sampler.close()
})

test.each([true, false])(
  'a T5 reads sources of different lengths and writes targets token by token, tied %s',
  async (tied) => {
    const sizes = { vocabSize: 50, layers: 2, decoderLayers: 2, heads: 2, depth: 5, width: 16, hidden: 24, buckets: 8 }
    const more = {
      activation: 'relu',
      gated: false,
      maxDistance: 12,
      eps: 1e-6,
      dropout: 0,
      initializerFactor: 2,
    } as const
    const model = new T5({ ...sizes, ...more, tied, scaled: tied, padId: 0, startId: 0, dtype: 'float64', seed: 2 })
    const sampler = new Sampler(model)
    const out = await take(sampler, PROMPTS, 14, { temperature: 0, length: 15 })
    for (const [i, prompt] of PROMPTS.entries()) {
      const source = tensor(Int32Array.from(prompt), { shape: [1, prompt.length] })
      for (const at of [0, 1, 2, 6, 13]) {
        const before = tensor(Int32Array.from([0, ...out[i].slice(0, at)]), { shape: [1, at + 1] })
        const logits = model.logits({ inputIds: source, decoderInputIds: before }, new Context())
        const [token] = await argmax(slice(logits, [null, [at, at + 1], null]), { axis: -1 }).read()
        expect(Number(token)).toBe(out[i][at])
      }
    }
    sampler.close()
  },
)

test('goes on beyond the context, and the seed decides', async () => {
  const model = new GPT2({ vocabSize: 50, context: 16, layers: 1, heads: 2, width: 16, seed: 5 })
  const sampler = new Sampler(model)
  const [a] = await take(sampler, [[1]], 50, { seed: 1 })
  expect(a).toHaveLength(50)
  expect(await take(sampler, [[1]], 50, { seed: 1 })).toEqual([a])
  expect(await take(sampler, [[1]], 50, { seed: 2 })).not.toEqual([a])
  // A row draws the same beside others that fill the context earlier.
  const [, c] = await take(sampler, [[3, 4, 5, 6, 7, 8], [1]], 50, { seed: 1, ids: [9, 0] })
  expect(c).toEqual(a)
  await expect(take(sampler, [[]], 1, {})).rejects.toThrow(/at least one token/)
  sampler.close()
})

test('a row that has ended is told by −1, and the stream ends with the last', async () => {
  const model = new GPT2({ vocabSize: 8, context: 64, layers: 1, heads: 2, width: 16, seed: 5 })
  const sampler = new Sampler(model)
  const rows: number[][] = [[], [], []]
  for await (const tokens of sampler.generate([[1], [2], [3]], { seed: 4, temperature: 2, ends: [0] }))
    tokens.forEach((token, i) => rows[i].push(token))
  for (const row of rows) {
    const end = row.indexOf(-1)
    expect(row.slice(end).every((t) => t === -1)).toBe(true)
    expect(row).not.toContain(0)
  }
  expect(rows.some((row) => row.at(-2) !== -1)).toBe(true)
  sampler.close()
})
