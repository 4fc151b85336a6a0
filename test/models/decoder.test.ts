import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { argmax, random, slice, tensor, type Tensor } from '../../lib/index.js'
import { openSafetensors } from '../../lib/io/safetensors.js'
import { Bert } from '../../lib/models/bert.js'
import { ConfigReader, type ConfigJson } from '../../lib/models/config-json.js'
import type { Decoder } from '../../lib/models/decoder.js'
import { decoderFolders } from '../../lib/models/decoder-folders.js'
import { loadModel, saveModel } from '../../lib/models/hf.js'
import { Llama } from '../../lib/models/llama.js'
import { ResNet } from '../../lib/models/resnet.js'
import { T5 } from '../../lib/models/t5.js'
import { Context, namedTensors, parameters } from '../../lib/nn/module.js'
import { Sampler } from '../../lib/train/generate/sampler.js'

const SIZES = {
  vocab_size: 61,
  hidden_size: 24,
  intermediate_size: 40,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  max_position_embeddings: 32,
  initializer_range: 0.3,
}
const KINDS: readonly (readonly [name: string, type: string, more: ConfigJson])[] = [
  ['llama', 'llama', {}],
  ['llama, tied, yarn', 'llama', { tie_word_embeddings: true, rope_scaling: { type: 'yarn', factor: 2 } }],
  ['mistral, window 4', 'mistral', { sliding_window: 4 }],
  ['qwen2', 'qwen2', {}],
  ['qwen3', 'qwen3', { use_sliding_window: true, sliding_window: 5, max_window_layers: 1 }],
  ['gemma2, window 3', 'gemma2', { sliding_window: 3, attn_logit_softcapping: 5, final_logit_softcapping: 4 }],
  ['gemma3, window 3', 'gemma3_text', { sliding_window: 3, sliding_window_pattern: 2 }],
]
const build = (type: string, more: ConfigJson, dtype: 'float32' | 'float64' = 'float64') =>
  decoderFolders
    .find((f) => f.type === type)!
    .build(new ConfigReader('config.json', { ...SIZES, ...more }), { dtype, dropout: 0 }) as Decoder

const ids = (row: readonly number[]) => tensor(Int32Array.from(row), { shape: [1, row.length] })
const row = (n: number) => Array.from({ length: n }, (_, i) => (i * 17 + 5) % 61)
const near = async (a: Tensor, b: Tensor, bound = 1e-12) => {
  const [x, y] = [await a.read(), await b.read()]
  expect(x.length).toBe(y.length)
  expect(Math.max(...x.map((v, i) => Math.abs(v - y[i])))).toBeLessThan(bound)
}

const folders: string[] = []
const folder = () => {
  folders.push(mkdtempSync(join(tmpdir(), 'steepest-decoder-')))
  return folders.at(-1)!
}
afterAll(() => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true })
})

describe.each(KINDS)('%s', (_, type, more) => {
  test('says token by token what it says of the whole row', async () => {
    const model = build(type, more)
    const sampler = new Sampler(model)
    const at = row(3)
    for await (const [token] of sampler.generate([at], { temperature: 0, length: 24 })) {
      const logits = model.logits(ids(at), new Context())
      const last = slice(logits, [null, [at.length - 1, at.length], null])
      expect(token).toBe(Number((await argmax(last, { axis: -1 }).read())[0]))
      at.push(token)
      if (at.length === 20) break
    }
    sampler.close()
  })

  test('reads packed documents as it reads each alone', async () => {
    const model = build(type, more)
    const [a, b] = [row(7), row(20).slice(9)]
    const segments = ids([...a.map(() => 0), ...b.map(() => 1)])
    const positions = ids([...a.keys(), ...b.keys()])
    const packed = model.hidden(ids([...a, ...b]), new Context(), { segments, positions })
    await near(slice(packed, [null, [0, 7], null]), model.hidden(ids(a), new Context()))
    await near(slice(packed, [null, [7, null], null]), model.hidden(ids(b), new Context()))
  })

  test('is not changed by what a mask hides', async () => {
    const model = build(type, more)
    const a = row(9)
    const attentionMask = ids([...a.map(() => 1), 0, 0])
    const masked = model.hidden(ids([...a, 4, 8]), new Context(), { attentionMask })
    await near(slice(masked, [null, [0, 9], null]), model.hidden(ids(a), new Context()))
  })

  test('is what was saved when it is loaded', async () => {
    const [dir, again] = [folder(), folder()]
    const model = build(type, more, 'float32')
    await saveModel(dir, model)
    const loaded = await loadModel<Decoder>(dir)
    expect(loaded.constructor).toBe(model.constructor)
    await near(loaded.logits(ids(row(12)), new Context()), model.logits(ids(row(12)), new Context()), 1e-30)
    await saveModel(again, loaded)
    for (const name of ['config.json', 'model.safetensors'])
      expect(readFileSync(join(again, name)).equals(readFileSync(join(dir, name)))).toBe(true)
  })
})

test('a Llama is made from its sizes, and wrong ones are told', async () => {
  const model = new Llama({ vocabSize: 50, context: 16, layers: 2, heads: 4, kvHeads: 2, width: 32 })
  expect(Object.keys(parameters(model)).filter((k) => k.includes('layers.1')).length).toBe(9)
  expect(model.config.hidden).toBe(128)
  const { loss } = model.loss(
    { inputIds: ids(row(8).map((x) => x % 50)), labels: ids(row(8).map((x) => x % 50)) },
    new Context(),
  )
  expect(await loss.item()).toBeCloseTo(Math.log(50), 0)
  const sizes = { vocabSize: 50, context: 16, layers: 2, heads: 4, width: 32 }
  expect(() => new Llama({ ...sizes, kvHeads: 3 })).toThrow(/must divide/)
  expect(() => new Llama({ ...sizes, depth: 7 })).toThrow(/even number/)
  expect(() => new Llama({ ...sizes, layer: 3 } as never)).toThrow(/`layers`/)
})

test.each<[string, string, ConfigJson, RegExp]>([
  ['a rotary kind that nobody knows', 'llama', { rope_scaling: { type: 'spiral' } }, /`rope_type` must be/],
  ['longrope without factors', 'llama', { rope_scaling: { type: 'longrope', factor: 2 } }, /needs 3 factors/],
  [
    'llama3 without its numbers',
    'llama',
    { rope_scaling: { type: 'llama3', factor: 8 } },
    /need the number `low_freq_factor`/,
  ],
  ['an activation that nobody knows', 'llama', { hidden_act: 'swirl' }, /activation must be/],
  ['a size that is no number', 'qwen2', { hidden_size: 'big' }, /`hidden_size` must be a whole number/],
])('%s is told', (_, type, more, message) => {
  expect(() => build(type, more).hidden(ids(row(4)), new Context())).toThrow(message)
})

const BERT = {
  vocabSize: 61,
  positions: 32,
  types: 2,
  layers: 2,
  heads: 2,
  width: 16,
  hidden: 24,
  activation: 'gelu',
  eps: 1e-12,
  dropout: 0,
  padId: 0,
  classes: 3,
  initializerRange: 0.3,
  dtype: 'float64',
  seed: 1,
} as const

describe('a row of several labels', () => {
  const batch = { inputIds: tensor(Int32Array.from(row(16)), { shape: [2, 8] }) }
  const logitsOf = (model: Bert) => model.logits(batch, new Context()).read()

  test('is learned by the mean of its binary cross-entropies', async () => {
    const model = new Bert({ ...BERT, task: 'sequence', problem: 'multi' })
    const y = [1, 0, 1, 0, 0, 1]
    const labels = tensor(y, { shape: [2, 3], dtype: 'float32' })
    const { loss } = model.loss({ ...batch, labels }, new Context())
    const x = [...(await logitsOf(model))]
    const each = x.map(
      (v, i) => -(y[i] * Math.log(1 / (1 + Math.exp(-v))) + (1 - y[i]) * Math.log(1 / (1 + Math.exp(v)))),
    )
    expect(await loss.item()).toBeCloseTo(each.reduce((a, b) => a + b) / 6, 12)
    const halves = model.loss({ ...batch, labels }, new Context({ normalizer: tensor(4, { dtype: 'float32' }) })).loss
    expect(await halves.item()).toBeCloseTo(each.reduce((a, b) => a + b) / 3 / 4, 7)
  })

  test('must have labels of its shape', () => {
    const model = new Bert({ ...BERT, task: 'sequence', problem: 'single' })
    const labels = tensor(Int32Array.of(1, 2, 0), { shape: [3] })
    expect(() => model.loss({ ...batch, labels }, new Context())).toThrow(/labels.*\[2\].*\[3\]/)
  })
})

test('a T5 says where labels are missing', () => {
  const config = {
    vocabSize: 61,
    layers: 1,
    decoderLayers: 1,
    heads: 2,
    depth: 4,
    width: 16,
    hidden: 24,
    activation: 'relu',
  }
  const more = { gated: false, buckets: 8, maxDistance: 20, eps: 1e-6, dropout: 0, tied: true, scaled: true } as const
  const model = new T5({ ...config, ...more, padId: 0, startId: 0, initializerFactor: 1, dtype: 'float32', seed: 0 })
  expect(() => model.loss({ inputIds: ids(row(5)) }, new Context())).toThrow(/needs `labels`/)
})

test.each(['basic', 'bottleneck'] as const)(
  'a ResNet of %s blocks moves its statistics in training, and reads them else',
  async (kind) => {
    const sizes = { channels: 3, stem: 4, widths: [4, 8], depths: [1, 1], activation: 'relu', classes: 3 } as const
    const more = {
      downsampleFirst: false,
      downsampleInBottleneck: false,
      problem: 'single',
      dtype: 'float32',
      seed: 1,
    } as const
    const model = new ResNet({ ...sizes, ...more, kind })
    const pixelValues = random.normal(random.key(3), [4, 3, 20, 20])
    const batch = { pixelValues, labels: tensor(Int32Array.of(0, 1, 2, 1)) }
    const ctx = new Context({ training: true })
    const [inTraining, outside] = [model.loss(batch, ctx).loss, model.loss(batch, new Context()).loss]
    expect(Math.abs((await inTraining.item()) - (await outside.item()))).toBeGreaterThan(1e-4)
    expect(ctx.writes.size).toBe(Object.keys(namedTensors(model).state).length)
    const dir = folder()
    await saveModel(dir, model)
    const file = await openSafetensors(dir)
    const names = [...file.tensors.keys()]
    await file.close()
    expect(names).toContain('resnet.embedder.embedder.normalization.running_mean')
    const loaded = await loadModel<ResNet>(dir)
    await near(loaded.logits(batch, new Context()), model.logits(batch, new Context()), 1e-30)
  },
)
