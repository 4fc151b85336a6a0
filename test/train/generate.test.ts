import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { byteTokenizer } from '../../lib/data/tokenizers.js'
import { generate, generateText, tensor, type WrittenPiece } from '../../lib/index.js'
import { GPT2, ResNet, saveModel } from '../../lib/models/index.js'
import { StopText } from '../../lib/train/generate/stops.js'
import { penalized } from '../../lib/train/sample.js'

const dir = mkdtempSync(join(tmpdir(), 'steepest-generate-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const tokenizer = byteTokenizer()
// Weights that are large enough for tokens to depend on those before them.
const model = new GPT2({ vocabSize: 257, context: 64, layers: 1, heads: 2, width: 48, seed: 3 })

describe('a stop string', () => {
  test.each<[string[], string[], string, boolean]>([
    [['ab', 'cd', 'ef'], ['bcde'], 'a', true],
    [['ab', 'c', 'x', 'cd'], ['cd'], 'abcx', true],
    [['aa', 'a', 'b'], ['ab'], 'aa', true],
    [['one ', 'two'], ['two', 'ne'], 'o', true],
    [['abc'], ['cd', ''], 'abc', false],
  ])('in the pieces %j for %j', (pieces, stops, wanted, stopped) => {
    const watch = new StopText(stops)
    const text = pieces.map((p) => watch.push(p)).join('')
    expect([text + watch.end(), watch.stopped]).toEqual([wanted, stopped])
  })

  test('is held back only while it may come', () => {
    const watch = new StopText(['\n\nQ:'])
    expect(['a\n', '\n', 'B'].map((p) => watch.push(p))).toEqual(['a', '', '\n\nB'])
  })
})

test('what was said is made less likely', async () => {
  const logits = penalized(tensor([[2, -2, 3, -3]]), tensor([[1, 1, 0, 0]], { dtype: 'uint8' }), 2)
  expect([...(await logits.read())]).toEqual([1, -4, 3, -3])
})

describe('texts', () => {
  const greedy = { temperature: 0, tokens: 40, ends: [] }

  test('come in pieces or as wholes, and the same however they are put together', async () => {
    const prompts = ['Once upon', 'a', 'The third']
    const options = { temperature: 1.5, topK: 50, topP: 0.95, minP: 0.01, tokens: 12, samples: 2, seed: 5, ends: [] }
    const whole = await generate(model, tokenizer, prompts, options)
    expect(whole.map((w) => [w.prompt, w.sample])).toEqual([0, 1, 2].flatMap((p) => [0, 1].map((s) => [p, s])))
    expect(new Set(whole.map((w) => w.text)).size).toBe(6)
    const pieces: WrittenPiece[] = []
    for await (const piece of generate(model, tokenizer, prompts, { ...options, batch: 2 })) pieces.push(piece)
    for (const { prompt, sample, text, tokens, end } of whole) {
      const own = pieces.filter((p) => p.prompt === prompt && p.sample === sample)
      expect(own.map((p) => p.text).join('')).toBe(text)
      expect(own.map((p) => p.end).filter(Boolean)).toEqual([end])
      expect(tokens).toHaveLength(12)
    }
  })

  test('end before a stop string that tokens cut, others go on', async () => {
    const prompts = ['x', 'Once']
    const [a, b] = await generate(model, tokenizer, prompts, greedy)
    const bytes = Buffer.from(a.text)
    expect(bytes.length).toBeGreaterThan(10)
    const stop = a.text.slice(3, 7)
    const [c, d] = await generate(model, tokenizer, prompts, { ...greedy, stop: [stop] })
    expect(c).toMatchObject({ text: a.text.slice(0, a.text.indexOf(stop)), end: 'stop' })
    const at = b.text.indexOf(stop)
    expect(d.text).toBe(at < 0 ? b.text : b.text.slice(0, at))
  })

  test('end with the token that ends them', async () => {
    const [a] = await generate(model, tokenizer, 'x', greedy)
    const end = a.tokens.find((t, i) => i > 2 && !a.tokens.slice(0, i).includes(t)) ?? a.tokens[0]
    const [b] = await generate(model, tokenizer, 'x', { ...greedy, ends: [end] })
    expect(b).toMatchObject({ end: 'endOfText', tokens: a.tokens.slice(0, a.tokens.indexOf(end)) })
  })

  test('say less again with a penalty', async () => {
    const [a] = await generate(model, tokenizer, 'x', greedy)
    const [b] = await generate(model, tokenizer, 'x', { ...greedy, repetitionPenalty: 100 })
    expect(new Set(b.tokens).size).toBe(b.tokens.length)
    expect(new Set(a.tokens).size).toBeLessThan(a.tokens.length)
  })

  test.each<[object, RegExp]>([
    [{ samples: 0 }, /`samples` must be a whole number/],
    [{ topp: 0.9 }, /topP/],
    [{ minP: 2 }, /`minP` must be in \[0, 1\]/],
    [{ repetitionPenalty: 0 }, /`repetitionPenalty` must be above 0/],
  ])('options out of range: %j', async (options, message) => {
    await expect((async () => generate(model, tokenizer, 'x', options))()).rejects.toThrow(message)
  })

  test('of a model that writes none', () => {
    const sizes = { channels: 3, stem: 4, widths: [4], depths: [1], classes: 2, problem: 'single', seed: 0 } as const
    const more = { kind: 'basic', activation: 'relu', downsampleFirst: false, downsampleInBottleneck: false } as const
    expect(() => generate(new ResNet({ ...sizes, ...more, dtype: 'float32' }), tokenizer, 'x')).toThrow(/ResNet/)
  })
})

describe('of a folder', () => {
  beforeAll(async () => {
    await saveModel(dir, model, tokenizer)
    writeFileSync(join(dir, 'prompts.jsonl'), '{"prompt": "x"}\n{"text": "Once"}\n')
  })
  const texts = async (options: Parameters<typeof generateText>[1]) => {
    const out: string[] = []
    for await (const { prompt, text } of generateText(dir, { temperature: 0, tokens: 9, ...options })) {
      out[prompt] = (out[prompt] ?? '') + text
    }
    return out
  }

  test('prompts of a file, ends of generation_config.json, stop strings with escapes', async () => {
    const [x, once] = await texts({ prompts: join(dir, 'prompts.jsonl') })
    expect(await texts({ prompt: 'x' })).toEqual([x])
    expect(await texts({ prompt: 'Once' })).toEqual([once])
    const [{ tokens }] = await generate(model, tokenizer, 'x', { temperature: 0, tokens: 9 })
    writeFileSync(join(dir, 'generation_config.json'), JSON.stringify({ eos_token_id: [256, tokens[4]] }))
    const ended = await texts({ prompt: 'x' })
    expect(ended[0]).toBe(tokenizer.decode(tokens.slice(0, tokens.indexOf(tokens[4]))))
    writeFileSync(join(dir, 'generation_config.json'), '{}')
    const stop = tokenizer.decode(tokens.slice(2, 4))
    expect(await texts({ prompt: 'x', stop: `\\n|${stop}` })).toEqual([x.slice(0, x.indexOf(stop))])
  })

  test('a conversation goes through the chat template', async () => {
    await expect(texts({ prompt: 'x', chat: true })).rejects.toThrow(/chat template/)
    writeFileSync(join(dir, 'chat_template.jinja'), '{% for m in messages %}<{{ m.content }}>{% endfor %}')
    expect(await texts({ prompt: 'x', chat: true })).toEqual(await texts({ prompt: '<x>' }))
  })
})
