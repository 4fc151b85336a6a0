import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { masking } from '../../lib/data/masking.js'
import { philox } from '../../lib/data/philox.js'
import { type Filled, RowLoader } from '../../lib/data/row-loader.js'
import { Bert, loadModel, Roberta, saveModel } from '../../lib/models/index.js'
import type { TrainEvent } from '../../lib/train/events.js'
import type { FinetuneOptions } from '../../lib/train/finetune/options.js'
import { prepareFinetune } from '../../lib/train/finetune/prepare.js'
import { entities, TagMetrics, TokenMetrics } from '../../lib/train/finetune/token-metrics.js'
import { HostArray } from '../../lib/train/host.js'

const cwd = mkdtempSync(join(tmpdir(), 'steepest-words-'))
afterAll(() => rmSync(cwd, { recursive: true, force: true }))

const SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
const VOCAB = [...SPECIAL, 'anna', 'bob', 'paris', 'rome', 'lives', 'in', 'sees', 'and', 'red', 'car', '##s', '##let']
const TOKENIZER = {
  version: '1.0',
  truncation: null,
  padding: null,
  added_tokens: SPECIAL.map((content, id) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  })),
  normalizer: {
    type: 'BertNormalizer',
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  pre_tokenizer: { type: 'BertPreTokenizer' },
  post_processor: {
    type: 'TemplateProcessing',
    single: [
      { SpecialToken: { id: '[CLS]', type_id: 0 } },
      { Sequence: { id: 'A', type_id: 0 } },
      { SpecialToken: { id: '[SEP]', type_id: 0 } },
    ],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: Object.fromEntries(
      ['[CLS]', '[SEP]'].map((id) => [id, { id, ids: [SPECIAL.indexOf(id)], tokens: [id] }]),
    ),
  },
  decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
  model: {
    type: 'WordPiece',
    unk_token: '[UNK]',
    continuing_subword_prefix: '##',
    max_input_chars_per_word: 100,
    vocab: Object.fromEntries(VOCAB.map((token, id) => [token, id])),
  },
}
const SIZES = {
  vocabSize: VOCAB.length,
  positions: 34,
  types: 2,
  layers: 1,
  heads: 2,
  width: 32,
  hidden: 64,
  activation: 'gelu',
  eps: 1e-12,
  dropout: 0,
  padId: 0,
  classes: 2,
  problem: 'single',
  task: 'maskedLm',
  initializerRange: 0.1,
  dtype: 'float32',
  seed: 1,
} as const
const pick = <T>(list: readonly T[], i: number): T => list[philox([i, 0, 0, 0], [1, 2])[0] % list.length]

beforeAll(async () => {
  const files = { 'tokenizer.json': JSON.stringify(TOKENIZER), 'tokenizer_config.json': '{"mask_token": "[MASK]"}' }
  for (const [name, model] of [
    ['bert', new Bert(SIZES)],
    ['roberta', new Roberta(SIZES)],
    ['tagger', new Bert({ ...SIZES, task: 'token' })],
  ] as const)
    await saveModel(join(cwd, name), model, { files: () => files })
  const rows = Array.from({ length: 120 }, (_, i) => {
    const [who, where] = [pick(['anna', 'bob', 'carlet'], i), pick(['paris', 'rome'], i + 500)]
    return {
      words: [who, 'lives', 'in', where, 'and', 'sees', 'cars'],
      tags: ['B-PER', 'O', 'O', 'B-LOC', 'O', 'O', 'O'],
    }
  })
  const lines = (f: (row: (typeof rows)[number]) => object) => rows.map((row) => JSON.stringify(f(row))).join('\n')
  writeFileSync(
    join(cwd, 'tags.jsonl'),
    lines(({ words, tags }) => ({ tokens: words, ner_tags: tags })),
  )
  writeFileSync(
    join(cwd, 'texts.jsonl'),
    lines(({ words }) => ({ text: words.join(' ') })),
  )
})

async function run(options: FinetuneOptions): Promise<TrainEvent[]> {
  const planned = await prepareFinetune(options, { cwd })
  const events: TrainEvent[] = []
  for await (const event of planned.run()) events.push(event)
  return events
}
const evals = (events: TrainEvent[]) => events.flatMap((e) => (e.type === 'eval' ? [e] : []))

test('Philox gives the numbers of its paper', () => {
  const hex = (counter: number[], key: number[]) => philox(counter, key).map((n) => n.toString(16))
  expect(hex([0, 0, 0, 0], [0, 0])).toEqual(['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8'])
  expect(hex([-1, -1, -1, -1], [-1, -1])).toEqual(['408f276d', '41c83b0e', 'a20bc7c6', '6d5451fd'])
})

describe('tokens that are hidden', () => {
  const ids = Int32Array.from({ length: 402 }, (_, i) => (i === 0 ? 2 : i === 401 ? 3 : 10 + (i % 80)))
  const row = { ids, before: 1, after: 1, line: 1 }
  const batcher = masking(4, { maskId: 4, padId: 0, vocabSize: 1000, seed: 7 })
  const of = (numbers: number[], epoch?: number) =>
    batcher.batch(
      numbers.map(() => row),
      numbers,
      epoch,
    ) as Filled

  test('are 15 %, of these 80 % behind the mask, 10 % another, 10 % as they were', () => {
    let [told, masked, same] = [0, 0, 0]
    for (let epoch = 0; epoch < 30; epoch++) {
      const { batch, weight } = of([0, 1, 2, 3], epoch)
      const [inputs, labels] = [batch.inputIds.data, batch.labels.data]
      expect(labels.filter((l) => l >= 0).length).toBe(weight)
      labels.forEach((label, i) => {
        const at = i % batch.labels.shape[1]
        if (label < 0) {
          expect(inputs[i]).toBe(at < ids.length ? ids[at] : 0)
          return
        }
        expect([at > 0 && at < 401, label]).toEqual([true, ids[at]])
        told++
        masked += Number(inputs[i] === 4)
        same += Number(inputs[i] === ids[at])
      })
    }
    const all = 30 * 4 * 400
    expect(Math.abs(told / all - 0.15)).toBeLessThan(4 * Math.sqrt((0.15 * 0.85) / all))
    expect(Math.abs(masked / told - 0.8)).toBeLessThan(4 * Math.sqrt(0.16 / told))
    expect(Math.abs(same / told - 0.1)).toBeLessThan(4 * Math.sqrt(0.09 / told))
  })

  test('are others in every epoch and row, the same where a run goes on or rows are evaluated, and at least one', () => {
    const labels = (numbers: number[], epoch?: number) => [...of(numbers, epoch).batch.labels.data]
    expect(labels([3], 1)).toEqual(labels([5, 3], 1).slice(416))
    expect(labels([3], 1)).not.toEqual(labels([3], 2))
    expect(labels([3], 1)).not.toEqual(labels([4], 1))
    expect(labels([3])).toEqual(labels([3]))
    const short = { ids: Int32Array.of(2, 9, 3), before: 1, after: 1, line: 1 }
    for (let n = 0; n < 20; n++) expect((batcher.batch([short], [n], 0) as Filled).weight).toBe(1)
    const rows = Array.from({ length: 5 }, () => row)
    const [a, b] = [0, 1].map(() => new RowLoader(rows, masking(2, { maskId: 4, padId: 0, vocabSize: 90, seed: 1 })))
    for (let i = 0; i < 4; i++) a.next()
    b.restore(a.state())
    expect(b.next()).toEqual(a.next())
  })
})

describe('words', () => {
  test.each(['bert', 'roberta'])('a %s learns hidden tokens', async (model) => {
    const events = await run({ model, data: 'texts.jsonl', lr: 5e-3, steps: 100, evalEvery: 25, out: `m-${model}` })
    const [first, last] = [evals(events)[0], evals(events).at(-1)!]
    expect(last.loss).toBeLessThan(0.8 * first.loss)
    expect(last.metrics!.accuracy).toBeGreaterThan(0.5)
    expect((await loadModel<Bert>(join(cwd, `m-${model}/model`))).config.task).toBe('maskedLm')
  })

  test('goes on to the same bits, with the tokens that were hidden', async () => {
    const options = { model: 'bert', data: 'texts.jsonl', steps: 8, evalEvery: 4, keep: 2 }
    await run({ ...options, out: 'one' })
    await run({ ...options, out: 'two', stopAfter: 4 })
    await run({ resume: 'two' })
    const weights = (dir: string) => readFileSync(join(cwd, dir, 'checkpoint-8/model.safetensors'))
    expect(weights('two').equals(weights('one'))).toBe(true)
  })

  test.each(['bert', 'roberta'])('a %s learns tags, with their names', async (model) => {
    const events = await run({ model, data: 'tags.jsonl', lr: 5e-3, epochs: 5, out: `t-${model}` })
    expect(evals(events).at(-1)!.metrics).toEqual({ accuracy: 1, precision: 1, recall: 1, f1: 1 })
    const { config } = await loadModel<Bert>(join(cwd, `t-${model}/model`))
    expect(config).toMatchObject({ task: 'token', classes: 3, labels: ['B-LOC', 'B-PER', 'O'] })
  })

  test('the first token of a word has its tag, the others and special ones none', async () => {
    const { preview } = await prepareFinetune({ model: 'bert', data: 'tags.jsonl' }, { cwd })
    const shown = preview().find((text) => text.includes('car'))!
    expect(shown).toMatch(/^\[CLS\] .*⟦B-PER⟧ .*lives⟦O⟧ in⟦O⟧ \w+⟦B-LOC⟧ and⟦O⟧ sees⟦O⟧ car⟦O⟧ ##s \[SEP\]$/)
  })

  test.each<[string, string, RegExp]>([
    ['{"tokens": ["a", "b"], "tags": ["O"]}', 'bert', /line 1\] every word must have one tag; got "?2 words, 1 tags/],
    ['{"tokens": "", "tags": []}', 'bert', /line 1\] `tokens` must be a list of words/],
    [
      '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a"], "tags": [0.5]}',
      'bert',
      /line 2\] `tags` must be a list of tags/,
    ],
    ['{"text": "anna"}\n{"text": "bob"}', 'tagger', /rows of text and a head for tags/],
  ])('%j for a %s is one sentence, and nothing is written', async (content, model, message) => {
    writeFileSync(join(cwd, 'bad.jsonl'), content)
    await expect(run({ model, data: 'bad.jsonl', out: 'bad' })).rejects.toThrow(message)
    expect(existsSync(join(cwd, 'bad'))).toBe(false)
  })
})

describe('measures', () => {
  const labels = (data: number[], shape: number[]) => ({ labels: new HostArray(Int32Array.from(data), shape) })

  test('of tokens and whole rows', () => {
    const metrics = new TokenMetrics(true)
    metrics.add(labels([1, 2, -100, 3, 4, 5], [2, 3]), Float32Array.of(1, 2, 9, 3, 4, 6))
    expect(metrics.result()).toEqual({ accuracy: 0.8, exactMatch: 0.5 })
  })

  test('of entities: one that begins anew, one that is cut short', () => {
    expect(entities(['B-A', 'I-A', 'B-A', 'I-B', 'O', 'I-A'])).toEqual(['0-2 A', '2-3 A', '3-4 B', '5-6 A'])
    const metrics = new TagMetrics(['O', 'B-A', 'I-A'])
    metrics.add(labels([1, 2, 0, 1, -100], [1, 5]), Float32Array.of(1, 0, 0, 1, 0))
    const { accuracy, precision, recall, f1 } = metrics.result()
    expect([accuracy, precision, recall, f1]).toEqual([0.75, 0.5, 0.5, 0.5])
  })
})
