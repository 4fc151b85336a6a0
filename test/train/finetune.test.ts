import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openSafetensors } from '../../lib/io/safetensors.js'
import { byteTokenizer } from '../../lib/data/tokenizers.js'
import { Bert, type BertConfig, type CausalClassifier, GPT2, loadModel, saveModel, T5 } from '../../lib/models/index.js'
import { parameters } from '../../lib/nn/module.js'
import { HostArray } from '../../lib/train/host.js'
import type { TrainEvent } from '../../lib/train/events.js'
import { ClassMetrics, MultiLabelMetrics, NumberMetrics } from '../../lib/train/finetune/metrics.js'
import type { FinetuneOptions } from '../../lib/train/finetune/options.js'
import { prepareFinetune } from '../../lib/train/finetune/prepare.js'

const cwd = mkdtempSync(join(tmpdir(), 'steepest-finetune-'))
afterAll(() => rmSync(cwd, { recursive: true, force: true }))

const WORDS = ['cat', 'dog', 'sun', 'sky', 'red', 'box', 'pen', 'cup']
const word = (i: number) => WORDS[Math.floor(Math.abs(Math.sin(i * 12.9898) * 43758.5453)) % 8]
const rows = (n: number, f: (i: number) => object) =>
  Array.from({ length: n }, (_, i) => JSON.stringify(f(i))).join('\n')

const BERT: BertConfig = {
  vocabSize: 257,
  positions: 48,
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
  initializerRange: 0.05,
  dtype: 'float32',
  seed: 1,
}

beforeAll(async () => {
  const tokenizer = byteTokenizer()
  await saveModel(
    join(cwd, 'gpt'),
    new GPT2({ vocabSize: 257, context: 32, layers: 1, heads: 2, width: 32, seed: 1 }),
    tokenizer,
  )
  await saveModel(join(cwd, 'bert'), new Bert(BERT), tokenizer)
  const sizes = {
    vocabSize: 257,
    layers: 1,
    decoderLayers: 1,
    heads: 2,
    depth: 8,
    width: 16,
    hidden: 32,
    activation: 'relu',
  }
  const more = { gated: false, buckets: 8, maxDistance: 20, eps: 1e-6, dropout: 0, tied: false, scaled: false } as const
  const t5 = new T5({ ...sizes, ...more, padId: 0, startId: 0, initializerFactor: 1, dtype: 'float32', seed: 0 })
  await saveModel(join(cwd, 't5'), t5, tokenizer)
  writeFileSync(join(cwd, 'gpt/generation_config.json'), '{"eos_token_id": 256}')
  writeFileSync(
    join(cwd, 'pairs.jsonl'),
    rows(96, (i) => ({ prompt: `${word(i)} ${word(i + 500)} first:`, completion: word(i) })),
  )
  writeFileSync(
    join(cwd, 'classes.jsonl'),
    rows(80, (i) => ({ text: `${word(i)} is ${i % 3 ? 'good' : 'bad'}`, label: i % 3 ? 'yes' : 'no' })),
  )
})

async function run(options: FinetuneOptions): Promise<TrainEvent[]> {
  const planned = await prepareFinetune(options, { cwd })
  const events: TrainEvent[] = []
  for await (const event of planned.run()) events.push(event)
  return events
}
const evals = (events: TrainEvent[]) => events.flatMap((e) => (e.type === 'eval' ? [e] : []))

describe('fine-tuning', () => {
  test('rows that do not fit into memory give the weights that they give there', async () => {
    const weights = async (memory: number, out: string) => {
      const options = { model: 'gpt', data: 'pairs.jsonl', steps: 8, epochs: 2, lr: 1e-2, out }
      const { run: go } = await prepareFinetune(options, { cwd, storage: { memory, folder: cwd } })
      for await (const _ of go());
      return readFileSync(join(cwd, out, 'model/model.safetensors'))
    }
    expect((await weights(100, 'stored')).equals(await weights(1e9, 'kept'))).toBe(true)
    const options = { model: 'gpt', data: 'pairs.jsonl', steps: 8, lr: 1e-2, out: 'halves' }
    const half = await prepareFinetune({ ...options, stopAfter: 3 }, { cwd, storage: { memory: 100, folder: cwd } })
    for await (const _ of half.run());
    await run({ resume: 'halves' })
    const resumed = readFileSync(join(cwd, 'halves/model/model.safetensors'))
    expect(resumed.equals(readFileSync(join(cwd, 'kept/model/model.safetensors')))).toBe(true)
  })

  test('a text file is learned in pieces, some of which are held back', async () => {
    const line = (i: number) => `${word(i)} ${word(i + 1)} ${word(i + 2)}.`
    const text = Array.from({ length: 900 }, (_, i) => line(i)).join('\r\n\r\n')
    writeFileSync(join(cwd, 'book.txt'), text)
    const planned = await prepareFinetune({ model: 'gpt', data: 'book.txt', lr: 1e-2, steps: 20, out: 'book' }, { cwd })
    expect(planned.plan.data).toMatch(/^book.txt: \d{3} rows, \d\d for validation$/)
    expect(planned.preview()[0]).toMatch(/^.?⟦\w+ \w+ \w+\.\n\n/)
    const losses: number[] = []
    for await (const event of planned.run()) if (event.type === 'eval') losses.push(event.loss)
    expect(losses.at(-1)).toBeLessThan(losses[0] / 1.3)
  })

  test('a GPT-2 learns answers to prompts, and leaves a folder that is loaded like the first', async () => {
    const events = await run({ model: 'gpt', data: 'pairs.jsonl', lr: 1e-2, steps: 60, evalEvery: 20, out: 'a' })
    const losses = evals(events).map((e) => e.loss)
    expect(losses.at(-1)).toBeLessThan(losses[0] / 2)
    const stop = events.at(-1)
    expect(stop).toMatchObject({ type: 'stop', reason: 'done', path: join(cwd, 'a/model') })
    expect(readFileSync(join(cwd, 'a/model/generation_config.json'), 'utf8')).toBe('{"eos_token_id": 256}')
    expect(readFileSync(join(cwd, 'a/model/tokenizer.json'))).toEqual(readFileSync(join(cwd, 'gpt/tokenizer.json')))
    expect(await loadModel(join(cwd, 'a/model'))).toBeInstanceOf(GPT2)
  })

  test('a BERT for masked tokens becomes one that tells classes, with their names', async () => {
    const events = await run({ model: 'bert', data: 'classes.jsonl', lr: 3e-3, epochs: 10, out: 'b' })
    expect(evals(events).at(-1)!.metrics).toEqual({ accuracy: 1, f1: 1, matthews: 1 })
    const config = JSON.parse(readFileSync(join(cwd, 'b/model/config.json'), 'utf8'))
    expect(config).toMatchObject({ architectures: ['BertForSequenceClassification'], id2label: { 0: 'no', 1: 'yes' } })
    const again = await loadModel<Bert>(join(cwd, 'b/model'))
    expect(again.config).toMatchObject({ task: 'sequence', classes: 2, labels: ['no', 'yes'] })
  })

  test('a GPT-2 learns classes by its last token', async () => {
    const events = await run({ model: 'gpt', data: 'classes.jsonl', lr: 3e-3, epochs: 4, out: 'g' })
    expect(evals(events).at(-1)!.metrics!.accuracy).toBe(1)
    const again = await loadModel<CausalClassifier>(join(cwd, 'g/model'))
    expect(again.config).toMatchObject({ classes: 2, labels: ['no', 'yes'] })
    expect(Object.keys(parameters(again)).filter((k) => !k.startsWith('transformer.'))).toEqual(['score.weight'])
  })

  test('low-rank additions are learned alone, merged into the model, and kept as PEFT has them', async () => {
    const events = await run({ model: 'bert', data: 'classes.jsonl', lr: 1e-2, epochs: 6, lora: 4, out: 'l' })
    expect(evals(events).at(-1)!.loss).toBeLessThan(evals(events)[0].loss)
    const [before, after] = await Promise.all(['bert', 'l/model'].map((dir) => loadModel<Bert>(join(cwd, dir))))
    const numbers = async (model: Bert, name: string) => [...(await parameters(model)[name].read())]
    const [query, words] = [
      'bert.encoder.layer.0.attention.self.query.weight',
      'bert.embeddings.word_embeddings.weight',
    ]
    expect(await numbers(after, words)).toEqual(await numbers(before, words))
    const adapter = await openSafetensors(join(cwd, 'l/adapter/adapter_model.safetensors'))
    const read = async (part: string, size: number) => {
      const out = new Float32Array(size)
      const name = `base_model.model.${query.replace('weight', `lora_${part}.weight`)}`
      await adapter.readInto(name, new Uint8Array(out.buffer))
      return out
    }
    const [a, b] = [await read('A', 4 * 32), await read('B', 32 * 4)]
    await adapter.close()
    const config = JSON.parse(readFileSync(join(cwd, 'l/adapter/adapter_config.json'), 'utf8'))
    expect(config).toMatchObject({ peft_type: 'LORA', task_type: 'SEQ_CLS', r: 4, lora_alpha: 8 })
    const [was, is] = [await numbers(before, query), await numbers(after, query)]
    is.forEach((w, at) => {
      const [i, j] = [Math.floor(at / 32), at % 32]
      let sum = 0
      for (let k = 0; k < 4; k++) sum += b[i * 4 + k] * a[k * 32 + j]
      expect(Math.abs(w - was[at] - 2 * sum)).toBeLessThan(1e-5)
    })
  })

  test.each<FinetuneOptions>([{ sampled: 0.5 }, { lowrank: 'galore', rank: 8 }, { lowrank: 'frugal' }])(
    'learns with %j',
    async (method) => {
      const out = JSON.stringify(method).replace(/\W/g, '')
      const events = await run({
        model: 'gpt',
        data: 'pairs.jsonl',
        lr: 1e-2,
        steps: 30,
        evalEvery: 10,
        out,
        ...method,
      })
      const losses = evals(events).map((e) => e.loss)
      expect(losses.at(-1)).toBeLessThan(0.7 * losses[0])
    },
  )

  test('numbers are learned where labels are numbers', async () => {
    writeFileSync(
      join(cwd, 'numbers.jsonl'),
      rows(60, (i) => ({ text: 'ab'.repeat(1 + (i % 4)), label: 0.5 + (i % 4) })),
    )
    const events = await run({ model: 'bert', data: 'numbers.jsonl', lr: 3e-3, epochs: 12, out: 'n' })
    expect(evals(events).at(-1)!.metrics!.pearson).toBeGreaterThan(0.9)
  })

  test('a T5 learns targets', async () => {
    const events = await run({ model: 't5', data: 'pairs.jsonl', lr: 1e-2, steps: 40, evalEvery: 20, out: 't' })
    const losses = evals(events).map((e) => e.loss)
    expect(losses.at(-1)).toBeLessThan(losses[0])
  })

  test('goes on to the same bits', async () => {
    const options = { model: 'gpt', data: 'pairs.jsonl', steps: 6, evalEvery: 3, keep: 2 }
    await run({ ...options, out: 'one' })
    await run({ ...options, out: 'two', stopAfter: 3 })
    await run({ resume: 'two' })
    for (const name of readdirSync(join(cwd, 'one/checkpoint-6')))
      expect(
        readFileSync(join(cwd, 'two/checkpoint-6', name)).equals(readFileSync(join(cwd, 'one/checkpoint-6', name))),
        name,
      ).toBe(true)
  })

  test('shows what is learned of its rows', async () => {
    const { preview } = await prepareFinetune({ model: 'gpt', data: 'pairs.jsonl' }, { cwd })
    expect(preview()[0]).toMatch(/^\w+ \w+ first:⟦ \w+<\|endoftext\|>⟧$/)
  })

  test.each<[string, FinetuneOptions, RegExp]>([
    ['a model that is not there', { model: 'nothing', data: 'pairs.jsonl' }, /nothing/],
    ['data that are not there', { model: 'gpt', data: 'nothing.jsonl' }, /must be a file/],
    ['neither', {}, /a model folder must be named/],
    ['answers for a BERT', { model: 'bert', data: 'pairs.jsonl' }, /a Bert learns rows of `text` and `label`/],
    ['labels for a T5', { model: 't5', data: 'classes.jsonl' }, /has no head that tells classes/],
  ])('%s is one sentence, and nothing is written', async (_, options, message) => {
    await expect(run({ ...options, out: 'bad' })).rejects.toThrow(message)
    expect(existsSync(join(cwd, 'bad'))).toBe(false)
  })
})

describe('measures', () => {
  const labels = (data: number[]) => ({ labels: new HostArray(Int32Array.from(data)) })

  test('of two classes are those of GLUE', () => {
    const metrics = new ClassMetrics(2)
    // True 1 1 1 0 0 0, told 1 1 0 1 0 0.
    metrics.add(labels([1, 1, 1, 0, 0, 0]), Float32Array.of(0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0))
    const { accuracy, f1, matthews } = metrics.result()
    expect([accuracy, f1, matthews].map((x) => x.toFixed(4))).toEqual(['0.6667', '0.6667', '0.3333'])
  })

  test('of three are means over classes, and what is not counted does not count', () => {
    const metrics = new ClassMetrics(3)
    metrics.add(labels([0, 1, 2, -100]), Float32Array.of(1, 0, 0, 0, 1, 0, 0, 1, 0, 9, 9, 9))
    const { accuracy, f1 } = metrics.result()
    expect([accuracy, f1].map((x) => x.toFixed(4))).toEqual(['0.6667', ((1 + 2 / 3 + 0) / 3).toFixed(4)])
  })

  test('of several labels to a row, and of numbers', () => {
    const several = new MultiLabelMetrics()
    several.add(labels([1, 0, 1, 1]), Float32Array.of(2, -1, -1, 3))
    expect(several.result()).toEqual({ accuracy: 0.75, f1: 0.8 })
    const numbers = new NumberMetrics()
    numbers.add({ labels: new HostArray(Float32Array.of(1, 2, 3, 3)) }, Float32Array.of(1, 4, 9, 9))
    const { pearson, spearman } = numbers.result()
    expect([pearson.toFixed(4), spearman.toFixed(4)]).toEqual(['0.9922', '1.0000'])
  })
})
