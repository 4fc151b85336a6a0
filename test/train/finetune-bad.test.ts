import {
  cpSync,
  createWriteStream,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { byteTokenizer } from '../../lib/data/tokenizers.js'
import { openSafetensors, type TensorSource, writeSafetensors } from '../../lib/io/safetensors.js'
import { GPT2, saveModel } from '../../lib/models/index.js'
import type { FinetuneOptions } from '../../lib/train/finetune/options.js'
import { prepareFinetune } from '../../lib/train/finetune/prepare.js'

// Bad folders and data: each one clear sentence, and nothing is written.

const cwd = mkdtempSync(join(tmpdir(), 'steepest-bad-'))
afterAll(() => rmSync(cwd, { recursive: true, force: true }))
const at = (...names: string[]) => join(cwd, ...names)
const WEIGHTS = 'model.safetensors'

async function sources(
  dir: string,
  change: (name: string, data: Uint8Array) => void = () => {},
): Promise<TensorSource[]> {
  const file = await openSafetensors(dir)
  const out: TensorSource[] = []
  for (const { name, dtype, shape, bytes } of file.tensors.values()) {
    const data = new Uint8Array(bytes)
    await file.readInto(name, data)
    change(name, data)
    out.push({ name, dtype, shape, read: () => data })
  }
  await file.close()
  return out
}

beforeAll(async () => {
  await saveModel(
    at('gpt'),
    new GPT2({ vocabSize: 257, context: 32, layers: 1, heads: 2, width: 16, seed: 1 }),
    byteTokenizer(),
  )
  writeFileSync(
    at('good.jsonl'),
    Array.from({ length: 20 }, (_, i) => `{"prompt": "a${i}", "completion": "b"}`).join('\n'),
  )
})

/** A copy of the folder with something wrong in it. */
const folder = (make: (dir: string) => unknown) => async (): Promise<FinetuneOptions> => {
  rmSync(at('copy'), { recursive: true, force: true })
  cpSync(at('gpt'), at('copy'), { recursive: true })
  await make(at('copy'))
  return { model: 'copy', data: 'good.jsonl' }
}
const data =
  (content: string | Uint8Array, name = 'data.jsonl') =>
  async (): Promise<FinetuneOptions> => {
    writeFileSync(at(name), content)
    return { model: 'gpt', data: name }
  }
const shards = async (dir: string) => {
  const all = await sources(dir)
  const [a, b] = [all.slice(0, 3), all.slice(3)]
  await writeSafetensors(join(dir, 'model-00001-of-00002.safetensors'), a, { format: 'pt' })
  await writeSafetensors(join(dir, 'model-00002-of-00002.safetensors'), b, { format: 'pt' })
  rmSync(join(dir, WEIGHTS))
  const map = [a, b].flatMap((part, i) => part.map((t) => [t.name, `model-0000${i + 1}-of-00002.safetensors`]))
  writeFileSync(
    join(dir, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: Object.fromEntries(map) }),
  )
}
const header = (length: bigint, text = '') => {
  const bytes = Buffer.alloc(8 + text.length)
  bytes.writeBigUInt64LE(length)
  bytes.write(text, 8)
  return bytes
}
const changed = (dir: string, change: (config: Record<string, unknown>) => object) =>
  writeFileSync(
    join(dir, 'config.json'),
    JSON.stringify(change(JSON.parse(readFileSync(join(dir, 'config.json'), 'utf8')))),
  )

test.each<[string, () => Promise<FinetuneOptions>, RegExp]>([
  [
    'a shard that is cut',
    folder(async (dir) => {
      await shards(dir)
      truncateSync(join(dir, 'model-00002-of-00002.safetensors'), 2000)
    }),
    /model-00002-of-00002.safetensors\].*(within|beyond|ends|fill)/,
  ],
  [
    'an index that names a missing file',
    folder(async (dir) => {
      await shards(dir)
      rmSync(join(dir, 'model-00001-of-00002.safetensors'))
    }),
    /the shard model-00001-of-00002.safetensors is missing/,
  ],
  [
    'a header of more bytes than there are',
    folder((dir) => writeFileSync(join(dir, WEIGHTS), header(2n ** 62n))),
    /model.safetensors\]/,
  ],
  [
    'a header with deep nesting',
    folder((dir) => {
      const text = `{"a":${'['.repeat(50_000)}${']'.repeat(50_000)}}`
      writeFileSync(join(dir, WEIGHTS), header(BigInt(text.length), text))
    }),
    /model.safetensors\] the header is nested at most 3 deep; got one more at its character 7/,
  ],
  ['weights of 0 bytes', folder((dir) => writeFileSync(join(dir, WEIGHTS), '')), /got a file of 0 bytes/],
  [
    'a configuration of 0 bytes',
    folder((dir) => writeFileSync(join(dir, 'config.json'), '')),
    /config.json\] must be JSON/,
  ],
  [
    'weights that are not numbers',
    folder(async (dir) => {
      const all = await sources(dir, (name, bytes) => {
        if (name.endsWith('ln_f.weight')) new Float32Array(bytes.buffer)[3] = Number.NaN
      })
      await writeSafetensors(join(dir, WEIGHTS), all, { format: 'pt' })
    }),
    /ln_f.weight\] weights must be finite numbers; got 1 that are not/,
  ],
  [
    'a tokenizer of another vocabulary',
    folder((dir) => changed(dir, (c) => ({ ...c, vocab_size: 100 }))),
    /config.json asks for|an embedding for every token/,
  ],
  [
    'a tokenizer that is larger than the model',
    folder(async (dir) => {
      await saveModel(dir, new GPT2({ vocabSize: 200, context: 32, layers: 1, heads: 2, width: 16 }))
    }),
    /an embedding for every token of its tokenizer; got 257 tokens, 200 embeddings/,
  ],
  [
    'an architecture that nobody knows',
    folder((dir) => changed(dir, () => ({ model_type: 'mamba' }))),
    /`model_type` must be one that steepest has/,
  ],
  ['data of 0 bytes', data(''), /the file is empty/],
  ['data that are not UTF-8', data(Uint8Array.of(0x7b, 0xff, 0x0a)), /line 1\] the file must be UTF-8/],
  [
    'an empty answer',
    data('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": ""}'),
    /line 2\] the answer must not be empty/,
  ],
  [
    'a label that is no class',
    data('{"text": "a", "label": 0}\n{"text": "b", "label": {"x": 1}}'),
    /line 2\] `label` must be a class/,
  ],
  [
    'a label that would be the billionth class',
    data('{"text": "a", "label": 0}\n{"text": "b", "label": 1000000000}'),
    /line 2\] whole numbers as labels are those of classes, from 0 to 99999; got 1000000000\. Write.*1000000000\.0/,
  ],
  [
    'a label of the validation file that is not learned',
    async () => {
      await data('{"text": "a", "label": "x"}\n{"text": "b", "label": "z"}', 'other.jsonl')()
      const learned = await data('{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}')()
      return { ...learned, validationData: 'other.jsonl' }
    },
    /other.jsonl, line 2\] the label must be one of the 2 classes.*got z/,
  ],
  [
    'numbers of which one is none',
    data('text,label\na,1.5\nb,NaN\nc,2.5\n', 'data.csv'),
    /data.csv, line 3\] a label that is a number must be a finite one; got NaN/,
  ],
  [
    'one class',
    data('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}'),
    /data.jsonl\] there must be two classes to tell apart; got x alone/,
  ],
  [
    'two columns of one name',
    data('text,text\na,1\nb,2\n', 'data.csv'),
    /data.csv, line 1\] every column must have a name of its own; got two of the name "text"/,
  ],
  ['one row', data('{"prompt": "a", "completion": "b"}'), /rows to learn and rows to validate on; got 1 row\./],
  [
    'a label below zero',
    data('{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n{"text": "c", "label": -1}'),
    /line 3\] the label must be one of the 2 classes.*got -1/,
  ],
])('%s', async (_, make, message) => {
  const options = await make()
  const run = async () => {
    const { run } = await prepareFinetune({ ...options, validation: 0.4, steps: 2, out: 'out' }, { cwd })
    for await (const _ of run());
  }
  const error = await run().then(
    () => undefined,
    (e: Error) => e,
  )
  expect(error?.message).toMatch(message)
  expect(error?.message.split('\n')).toHaveLength(1)
  expect(existsSync(at('out', 'model'))).toBe(false)
})

test('a line of 100 MB is refused before it is in memory', async () => {
  const file = createWriteStream(at('long.jsonl'))
  file.write('{"text": "a"}\n{"text": "')
  const piece = Buffer.alloc(1 << 20, 'x')
  for (let i = 0; i < 100; i++) if (!file.write(piece)) await once(file, 'drain')
  file.end('"}\n')
  await once(file, 'finish')
  const before = process.memoryUsage().rss
  await expect(prepareFinetune({ model: 'gpt', data: 'long.jsonl', out: 'out' }, { cwd })).rejects.toThrow(
    /line 2\] a line must not be longer than 32 MiB/,
  )
  expect(process.memoryUsage().rss - before).toBeLessThan(80e6)
  expect(existsSync(at('out'))).toBe(false)
})
