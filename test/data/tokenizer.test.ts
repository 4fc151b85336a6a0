import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Tokenizer as Library } from '@huggingface/tokenizers'
import { describe, expect, onTestFinished, test } from 'vitest'
import { byteTokenizer, defaultCorpus, encodeText, loadTokenizer, trainBpe } from '../../lib/data/index.js'
import { textPieces } from '../../lib/data/bytelevel.js'

const corpus = defaultCorpus().text
const sample = corpus.slice(1_000_000, 1_300_000)
// What trips tokenizers: several scripts, joined emoji, lone surrogates' neighbours, runs of white space, other line ends, the special token itself.
const odd = "naïve café — 東京  \t\n\n  it's we'll 1234 ½ 👩‍👩‍👧 \r\n\u00a0\u3000x\ufeffy <|endoftext|>z\u0000\u0001"

function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'steepest-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

describe('byte tokenizer', () => {
  test('is a token per byte', () => {
    const bytes = byteTokenizer()
    expect(bytes.vocabSize).toBe(257)
    expect(bytes.endOfText).toBe(256)
    expect([...bytes.encode('é<|endoftext|>')]).toEqual([0xc3, 0xa9, 256])
    expect(bytes.decode(bytes.encode(odd))).toBe(odd)
    expect(byteTokenizer(null).vocabSize).toBe(256)
  })

  test('streams characters whole, and says what is none', () => {
    const stream = byteTokenizer().decodeStream()
    expect([0xe6, 0x9d, 0xb1, 0x41, 0xe6].map((id) => stream.push(id))).toEqual(['', '', '東', 'A', ''])
    expect(stream.end()).toBe('\ufffd')
    expect(byteTokenizer().decode([0x41, 9999, 0x42])).toBe('A\ufffdB')
  })
})

describe('trained byte pairs', () => {
  test("are read by Hugging Face's library, which gives the same tokens", async () => {
    const own = await trainBpe(sample, { vocabSize: 1000 })
    expect(own.vocabSize).toBe(1000)
    const library = new Library(JSON.parse(own.files()['tokenizer.json']), {})
    for (const text of [odd, sample.slice(0, 50_000)]) {
      const ids = own.encode(text)
      expect([...ids]).toEqual(library.encode(text).ids)
      expect(own.decode(ids)).toBe(text)
    }
  })

  test('merge the most frequent pair first, the lowest of equal ones', async () => {
    const own = await trainBpe('ab ab ab cd cd', { vocabSize: 259, endOfText: null })
    // " a" and "ab" and " c" and "cd": ab occurs 3 times, then " ab" twice, as often as " c" and "cd".
    const { model } = JSON.parse(own.files()['tokenizer.json'])
    expect(model.merges[0]).toEqual(['a', 'b'])
    expect(model.merges).toHaveLength(3)
    expect([...own.encode('ab')]).toEqual([256])
  })

  test('are those of a plain count over all words', async () => {
    const text = sample.slice(0, 4000)
    const own = await trainBpe(text, { vocabSize: 330, endOfText: null })
    const words = (
      text.match(/'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) ?? []
    ).map((w) => [...Buffer.from(w)])
    const expected: number[][] = []
    for (let id = 256; id < 330; id++) {
      const count = new Map<number, number>()
      for (const w of words)
        for (let i = 0; i + 1 < w.length; i++)
          count.set(w[i] * 65536 + w[i + 1], (count.get(w[i] * 65536 + w[i + 1]) ?? 0) + 1)
      const [pair] = [...count].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0]
      const [a, b] = [Math.floor(pair / 65536), pair % 65536]
      expected.push([a, b])
      for (const w of words) for (let i = 0; i + 1 < w.length; i++) if (w[i] === a && w[i + 1] === b) w.splice(i, 2, id)
    }
    const { vocab, merges } = JSON.parse(own.files()['tokenizer.json']).model
    expect(merges.map(([a, b]: string[]) => [vocab[a], vocab[b]])).toEqual(expected)
  })

  test('have fewer entries where the text has no more pairs', async () => {
    expect((await trainBpe('aa aa', { vocabSize: 5000 })).vocabSize).toBeLessThan(261)
  })

  test('come out the same again, and leave the event loop free', async () => {
    let ticks = 0
    const timer = setInterval(() => ticks++, 1)
    const [a, b] = [await trainBpe(corpus, { vocabSize: 2000 }), await trainBpe(corpus, { vocabSize: 2000 })]
    clearInterval(timer)
    expect(a.files()).toEqual(b.files())
    expect(ticks).toBeGreaterThan(10)
  })

  test('say what is wrong', async () => {
    await expect(trainBpe('x', { vocabSize: 10 })).rejects.toThrow('vocabSize is an integer from 257 to 65536; got 10')
    await expect(trainBpe('', { vocabSize: 300 })).rejects.toThrow('is not empty')
    await expect(trainBpe('x', { vocabsize: 300 } as never)).rejects.toThrow('Did you mean `vocabSize`?')
    const controller = new AbortController()
    controller.abort()
    await expect(trainBpe(corpus, { vocabSize: 4000, signal: controller.signal })).rejects.toThrow('aborted')
  })
})

describe('encodeText', () => {
  test('cuts where nothing changes', async () => {
    const own = await trainBpe(sample, { vocabSize: 600 })
    const text = sample + odd + sample
    expect([...textPieces(text)].join('')).toBe(text)
    expect([...textPieces(text)].length).toBeGreaterThan(3)
    expect(await encodeText(own, text)).toEqual(own.encode(text))
  })
})

describe('loadTokenizer', () => {
  test('gives back what was saved, from the folder and from the file', async () => {
    const dir = folder()
    const own = await trainBpe(sample, { vocabSize: 400 })
    await own.save(dir)
    for (const path of [dir, join(dir, 'tokenizer.json')]) {
      const loaded = await loadTokenizer(path)
      expect(loaded.vocabSize).toBe(400)
      expect(loaded.endOfText).toBe(399)
      expect(loaded.encode(odd)).toEqual(own.encode(odd))
      expect(loaded.files()).toEqual(own.files())
    }
  })

  test('runs other kinds by the library', async () => {
    const dir = folder()
    const model = { type: 'WordLevel', vocab: { the: 0, cat: 1, '[UNK]': 2 }, unk_token: '[UNK]' }
    writeFileSync(
      join(dir, 'tokenizer.json'),
      JSON.stringify({ version: '1.0', pre_tokenizer: { type: 'Whitespace' }, added_tokens: [], model }),
    )
    const loaded = await loadTokenizer(dir)
    expect([...loaded.encode('the cat sat')]).toEqual([0, 1, 2])
    expect(loaded.decode([0, 1])).toBe('the cat')
    const stream = loaded.decodeStream()
    expect([0, 1].map((id) => stream.push(id)).join('') + stream.end()).toBe('the cat')
  })

  test('says what is wrong', async () => {
    const dir = folder()
    await expect(loadTokenizer(join(dir, 'none.json'))).rejects.toThrow('no such file')
    const path = join(dir, 'tokenizer.json')
    for (const [content, message] of [
      ['{', 'it is JSON'],
      ['[]', 'it is a JSON object'],
      ['{"model":{"type":"Unheard"}}', 'a tokenizer that steepest can run'],
    ]) {
      writeFileSync(path, content)
      await expect(loadTokenizer(path)).rejects.toThrow(message)
    }
    const broken = JSON.parse((await trainBpe('ab ab', { vocabSize: 259 })).files()['tokenizer.json'])
    broken.model.merges.push(['a', 'nowhere'])
    writeFileSync(path, JSON.stringify(broken))
    await expect(loadTokenizer(path)).rejects.toThrow(
      'a merge joins two tokens of the vocabulary to a third; got ["a","nowhere"]',
    )
  })
})
