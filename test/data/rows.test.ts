import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { collected } from '../collected.js'
import { afterAll, describe, expect, test } from 'vitest'
import { packing, padding } from '../../lib/data/batchers.js'
import { ChatTemplate } from '../../lib/data/chat.js'
import { examplesOf, type Placed } from '../../lib/data/examples.js'
import { RowLoader } from '../../lib/data/row-loader.js'
import { type Parted, readParts, storeRows } from '../../lib/data/parts.js'
import { TOKEN_ROW, TokenRows } from '../../lib/data/token-rows.js'
import { byteTokenizer } from '../../lib/data/tokenizers.js'

const dir = mkdtempSync(join(tmpdir(), 'steepest-rows-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const file = (name: string, content: string | Uint8Array): string => {
  const path = join(dir, name)
  writeFileSync(path, content)
  return path
}

const readExamples = (path: string) => collected(examplesOf(path))
const tokenRows = async (examples: readonly Placed[]) => {
  const maker = new TokenRows({ tokenizer: byteTokenizer(), context: 16 })
  return (await Promise.all(examples.map((example) => maker.of(example, 'p')))).flat()
}

// Three rows in two row groups, snappy, as pyarrow writes it: text ['a b', 'c', 'ü'], label [1, 0, 1].
const PARQUET = [
  'UEFSMRUEFRgVHEwVBBUAEgAADCwDAAAAYSBiAQAAAGMVABUSFRYsFQQVEBUGFQYcNgAoAWMYA2EgYhERAAAACSACAAAABAEBAwIVBBUgFSRMFQQVABIAABA8AQAAAAAAAAAAAAAAAAAA',
  'ABUAFRIVFiwVBBUQFQYVBhwYCAEAAAAAAAAAGAgAAAAAAAAAABYAKAgBAAAAAAAAABgIAAAAAAAAAAAREQAAAAkgAgAAAAQBAQMCFQQVDBUQTBUCFQASAAAGFAIAAADDvBUAFRIVFiwV',
  'AhUQFQYVBhw2ACgCw7wYAsO8EREAAAAJIAIAAAACAQECABUEFRAVFEwVAhUAEgAACBwBAAAAAAAAABUAFRIVFiwVAhUQFQYVBhwYCAEAAAAAAAAAGAgBAAAAAAAAABYAKAgBAAAAAAAA',
  'ABgIAQAAAAAAAAAREQAAAAkgAgAAAAIBAQIAFQQZPDUAGAZzY2hlbWEVBAAVDCUCGAR0ZXh0JQBMHAAAABUEJQIYBWxhYmVsABYGGSwZLCYAHBUMGTUABhAZGAR0ZXh0FQIWBBaEARaM',
  'ASZAJggcNgAoAWMYA2EgYhERABksFQQVABUCABUAFRAVAgA8FggZBhkmAAQAAAAmABwVBBk1AAYQGRgFbGFiZWwVAhYEFswBFtQBJtQBJpQBHBgIAQAAAAAAAAAYCAAAAAAAAAAAFgAo',
  'CAEAAAAAAAAAGAgAAAAAAAAAABERABksFQQVABUCABUAFRAVAgA8KQYZJgAEAAAAFtACFgQmCBbgAgAZLCYAHBUMGTUABhAZGAR0ZXh0FQIWAhZ4FoABJpQDJugCHDYAKALDvBgCw7wR',
  'EQAZLBUEFQAVAgAVABUQFQIAPBYEGQYZJgACAAAAJgAcFQQZNQAGEBkYBWxhYmVsFQIWAha8ARbEASaYBCboAxwYCAEAAAAAAAAAGAgBAAAAAAAAABYAKAgBAAAAAAAAABgIAQAAAAAA',
  'AAAREQAZLBUEFQAVAgAVABUQFQIAPCkGGSYAAgAAABa0AhYCJugCFsQCACggcGFycXVldC1jcHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZLBwAABwAAADfAQAAUEFSMQ==',
].join('')

describe('rows of data', () => {
  test.each([
    ['a.jsonl', '{"text":"a b","label":1}\n\n{"text":"c","label":0}\r\n{"text":"ü","label":1}'],
    ['a.csv', 'text,label\na b,1\n"c",0\nü,1\n'],
    ['a.tsv', 'text\tlabel\na b\t1\nc\t0\nü\t1\n'],
    ['a.parquet', Buffer.from(PARQUET, 'base64')],
  ])('%s', async (name, content) => {
    const rows = await readExamples(file(name, content))
    expect(rows.map((r) => r.kind === 'label' && [r.text, Number(r.label)])).toEqual([
      ['a b', 1],
      ['c', 0],
      ['ü', 1],
    ])
  })

  test('of every kind, by the names that people give them', async () => {
    const kinds = async (row: object) => (await readExamples(file('k.jsonl', JSON.stringify(row))))[0]
    expect(await kinds({ instruction: 'do', input: 'it', output: 'done' })).toMatchObject({
      kind: 'pair',
      prompt: 'do\n\nit',
      completion: 'done',
    })
    expect(await kinds({ sentence1: 'a', sentence2: 'b', label: 'yes' })).toMatchObject({ second: 'b', label: 'yes' })
    expect((await kinds({ messages: [{ role: 'assistant', content: 'x' }] })).kind).toBe('chat')
    expect((await readExamples(file('k.txt', 'one\ntwo\n')))[0]).toMatchObject({ kind: 'text', text: 'one\ntwo' })
  })

  test.each<[string, string, string | Uint8Array, RegExp]>([
    ['no such file', 'nothing.jsonl', '', /the file is empty/],
    ['a format that nobody reads', 'a.xlsx', 'x', /steepest reads .jsonl/],
    ['a line that is no JSON', 'b.jsonl', '{"text":"a"}\n{"text"', /b.jsonl, line 2\] must be a JSON object/],
    ['a list', 'b.jsonl', '[1]', /line 1\] must be a JSON object/],
    ['bytes that are no text', 'b.jsonl', Uint8Array.of(0x7b, 0xff, 0x0a), /line 1\] the file must be UTF-8/],
    ['columns with other names', 'b.jsonl', '{"promt":"a","completion":"b"}', /Did you mean `prompt`/],
    ['a row of another kind', 'b.jsonl', '{"text":"a"}\n{"text":7}', /line 2\] `text` must be a text/],
    ['an empty answer', 'b.jsonl', '{"prompt":"a","completion":" "}', /the answer must not be empty/],
    ['nobody who answers', 'b.jsonl', '{"messages":[{"role":"user","content":"a"}]}', /of the role `assistant`/],
    ['a row of more columns', 'b.csv', 'text,label\na,1\nb,2,3\n', /b.csv, line \d/],
    ['no parquet', 'b.parquet', 'PAR1 is not enough', /must be a parquet file/],
    ['a header and no rows', 'b.csv', 'text,label\n', /the file has no rows/],
  ])('%s is told', async (_, name, content, message) => {
    await expect(readExamples(file(name, content))).rejects.toThrow(message)
  })
})

test('a chat template tells answers from the rest', async () => {
  const template =
    '{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}'
  writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify({ chat_template: template, bos_token: '^' }))
  const chat = (await ChatTemplate.of(dir))!
  const turn = (role: string, content: string) => ({ role, content })
  expect(chat.pieces([turn('user', 'a'), turn('assistant', 'b'), turn('user', 'c'), turn('assistant', 'd')])).toEqual([
    { text: '^<user>a</><assistant>', learned: false },
    { text: 'b</>', learned: true },
    { text: '<user>c</><assistant>', learned: false },
    { text: 'd</>', learned: true },
  ])
  writeFileSync(join(dir, 'chat_template.jinja'), '{% for m in messages %}')
  await expect(ChatTemplate.of(dir)).rejects.toThrow(/must be Jinja/)
})

test('a chat template that writes the last answer otherwise than those before still tells answers from the rest', async () => {
  // Qwen 3 has thoughts, empty ones too, before the last answer only.
  writeFileSync(
    join(dir, 'chat_template.jinja'),
    `{%- for m in messages %}<|{{ m.role }}|>
{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}`,
  )
  const chat = (await ChatTemplate.of(dir))!
  const turn = (role: string, content: string) => ({ role, content })
  expect(
    chat.pieces([
      turn('user', 'a'),
      turn('assistant', 'b'),
      turn('user', 'b'),
      turn('assistant', 'd'),
      turn('user', 'e'),
    ]),
  ).toEqual([
    { text: '<|user|>\na<|end|>\n<|assistant|>\n', learned: false },
    { text: 'b<|end|>\n', learned: true },
    { text: '<|user|>\nb<|end|>\n<|assistant|>\n', learned: false },
    { text: '<think></think>d<|end|>\n', learned: true },
  ])
  writeFileSync(join(dir, 'chat_template.jinja'), '{% for m in messages | reverse %}{{ m.content }}{% endfor %}')
  const turned = (await ChatTemplate.of(dir))!
  expect(() => turned.pieces([turn('user', 'a'), turn('assistant', 'b')])).toThrow(/one after the other/)
})

const pairs = (n: number) =>
  Array.from({ length: n }, (_, i) => ({
    kind: 'pair' as const,
    prompt: 'q'.repeat(1 + (i % 5)),
    completion: 'abc'.slice(0, 1 + (i % 3)),
    line: i + 1,
  }))

describe('rows as batches', () => {
  test('packed: every document once an epoch, apart from the others, and only answers learned', async () => {
    const rows = await tokenRows(pairs(23))
    const loader = new RowLoader(rows, packing(2, 16), { seed: 3, accumulate: 2 })
    const seen: string[] = []
    let weights = 0
    while (loader.epochs < 1) {
      const { microBatches, weight } = loader.next()
      let labels = 0
      for (const { inputIds, targets, segments, positions } of microBatches) {
        const at = (a: typeof inputIds, i: number) => a.data[i]
        for (let i = 0; i < 32; i++) {
          if (at(targets, i) !== -100) {
            labels++
            expect(at(targets, i)).toBe(at(inputIds, i + 1))
            expect(at(segments, i)).toBe(at(segments, i + 1))
          }
          if (at(segments, i) >= 0 && at(positions, i) === 0) {
            let end = i
            while (end < 32 && at(segments, end) === at(segments, i) && (end === i || at(positions, end) > 0)) end++
            seen.push([...inputIds.data.slice(i, end)].join())
          }
        }
      }
      expect(labels).toBe(weight)
      weights += weight!
    }
    expect(weights).toBeGreaterThan(0)
    expect(seen.slice(0, 23).sort()).toEqual(rows.map((r) => [...r.ids].join()).sort())
  })

  test('go on from a position, and from no other data', async () => {
    const make = async (n: number, seed = 1) => new RowLoader(await tokenRows(pairs(n)), packing(2, 16), { seed })
    const [a, b] = [await make(20), await make(20)]
    for (let i = 0; i < 7; i++) a.next()
    b.restore(JSON.parse(JSON.stringify(a.state())))
    expect(b.next()).toEqual(a.next())
    expect(() => (a.state(), b.restore({ ...(a.state() as object), seed: 9 }))).toThrow(
      /the data, the order and the seed/,
    )
    const other = await make(19)
    expect(() => other.restore(a.state())).toThrow(/the data, the order and the seed/)
  })

  test('padded to few lengths, with classes', () => {
    const row = (n: number, label: number) => ({
      ids: new Int32Array(n).fill(7),
      types: new Int32Array(n),
      label: [label],
      line: 1,
    })
    const { batch, weight } = padding(4, 0, false).batch([row(3, 1), row(40, 0)], [5, 6])
    expect(batch.inputIds.shape).toEqual([2, 64])
    expect([...batch.attentionMask.data].reduce((a, b) => a + b, 0)).toBe(43)
    expect([...batch.labels.data]).toEqual([1, 0])
    expect(weight).toBe(2)
  })

  test('rows of which nothing is left to learn are counted, and no part may be of such alone', async () => {
    const maker = new TokenRows({ tokenizer: byteTokenizer(), context: 16 })
    const path = file('long.jsonl', `${JSON.stringify({ prompt: 'x'.repeat(50), completion: 'y' })}\n`.repeat(3))
    const parts = await readParts({ data: path, validation: 0.1, seed: 1 }, () => {})
    const rowsOf = ({ example, path: from }: Parted) => maker.of(example, from)
    await expect(storeRows(parts, TOKEN_ROW, (r) => r.ids.length, rowsOf)).rejects.toThrow(/longer --context/)
    expect(maker.shortened).toEqual({ cut: 3, dropped: 3 })
  })
})
