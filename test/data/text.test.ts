import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { defaultCorpus, openText, readText, splitTokens, unigramEntropy, vocabFor } from '../../lib/data/index.js'

function file(content: string | Uint8Array, name = 'book.txt'): string {
  const dir = mkdtempSync(join(tmpdir(), 'steepest-'))
  onTestFinished(() => rmSync(dir, { recursive: true, force: true }))
  writeFileSync(join(dir, name), content)
  return join(dir, name)
}

describe('readText', () => {
  test('gives the text, over the borders of pieces and without a byte order mark', async () => {
    const text = '東京 '.repeat(1_000_000)
    expect((await readText(file(`\ufeff${text}`))) === text).toBe(true)
  })

  test('is one clear sentence where there is none', async () => {
    await expect(readText('nowhere/book.txt')).rejects.toThrow(
      '[nowhere/book.txt] cannot be read: there is no such file or folder (ENOENT)',
    )
    await expect(readText(join(file('x'), '..'))).rejects.toThrow('it is a folder, not a file')
    await expect(readText(file(''))).rejects.toThrow('the text must not be empty; got 0 bytes')
    await expect(readText(file(' \n\n'))).rejects.toThrow('the text must not be empty; got white space alone')
    await expect(readText(file(Uint8Array.of(0x63, 0xe9, 0x21)))).rejects.toThrow(
      'the text must be UTF-8; got bytes of another encoding. Convert it',
    )
    await expect(readText(file(Uint8Array.of(0xff, 0xd8, 0, 0x10)))).rejects.toThrow('got bytes that are no text')
    await expect(readText(file(Buffer.from('cut é').subarray(0, 5)))).rejects.toThrow('must be UTF-8')
  })
})

describe('unigramEntropy', () => {
  test('is that of the counts', () => {
    expect(unigramEntropy(Int32Array.of(0, 1, 2, 3))).toBeCloseTo(Math.log(4), 12)
    expect(unigramEntropy(Int32Array.of(7, 7, 7))).toBe(0)
    expect(unigramEntropy(Int32Array.of(0, 0, 0, 5))).toBeCloseTo(-0.75 * Math.log(0.75) - 0.25 * Math.log(0.25), 12)
    expect(unigramEntropy(new Int32Array(0))).toBe(0)
  })
})

describe('splitTokens', () => {
  const tokens = Int32Array.from({ length: 100_003 }, (_, i) => i)

  test.each([
    [64, 0.1, 32],
    [1000, 0.1, 2],
    [9000, 0.1, 1],
    [64, 0.5, 32],
    [64, 0.001, 1],
  ])('context %i, share %d', (context, validation, pieces) => {
    const split = splitTokens(tokens, { context, validation })
    expect(split.validation).toHaveLength(pieces)
    // Every token is in one part, in order.
    const all = split.train.flatMap((t, i) => [...t, ...split.validation[i]])
    expect(all).toEqual([...tokens])
    const held = split.validation.reduce((n, p) => n + p.length, 0)
    expect(Math.abs(held - Math.max(context + 1, tokens.length * validation))).toBeLessThanOrEqual(pieces)
    for (const piece of split.validation) expect(piece.length).toBeGreaterThan(context)
    expect(Math.max(...split.train.map((p) => p.length))).toBeGreaterThan(context)
    if (pieces > 1) expect(split.validation[0][0]).toBeLessThan(tokens.length / 2)
  })

  test('takes the shortest text that has two windows, and no shorter', () => {
    const split = splitTokens(tokens.subarray(0, 130), { context: 64 })
    expect([split.train, split.validation].map((p) => p.map((t) => t.length))).toEqual([[65], [65]])
    const who = 'book.txt'
    expect(() => splitTokens(tokens.subarray(0, 129), { context: 64, who })).toThrow(
      '[book.txt] the text must be longer than the context, once for training and once for validation; got 129 tokens for a context of 64. Give a longer text, or a context of at most 63',
    )
    expect(() => splitTokens(tokens.subarray(0, 128), { context: 63 })).not.toThrow()
    expect(() => splitTokens(tokens, { context: 8, validation: 0.6 })).toThrow(
      'must be above 0 and at most 0.5; got 0.6',
    )
  })
})

describe('openText', () => {
  test('of the machine: some 3 MB of declarations', async () => {
    const text = await openText()
    expect(text.bytes).toBeGreaterThan(2e6)
    expect(text.name).toMatch(/TypeScript/)
    expect(text.note).toBeUndefined()
    expect(text.tokenizer.vocabSize).toBe(2048)
    expect(text.tokenizerLine).toBe('byte pairs, 2048 entries')
    const entropy = unigramEntropy(text.tokens)
    expect(entropy).toBeGreaterThan(4)
    expect(entropy).toBeLessThan(Math.log(2048))
  })

  test('of a file, with each tokenizer', async () => {
    const path = file('It was a dark and stormy night. '.repeat(2000))
    const bytes = await openText({ file: path, tokenizer: 'bytes' })
    expect([bytes.name, bytes.tokens.length, bytes.tokenizerLine]).toEqual(['book.txt', 64_000, 'bytes, 257 entries'])
    const pairs = await openText({ file: path, vocab: 270 })
    expect(pairs.tokens.length).toBeLessThan(64_000)
    expect(pairs.tokenizer.decode(pairs.tokens)).toBe(await readText(path))
    const saved = file(pairs.tokenizer.files()['tokenizer.json'], 'tokenizer.json')
    const loaded = await openText({ file: path, tokenizer: saved })
    expect(loaded.tokens).toEqual(pairs.tokens)
    await expect(openText({ file: path, tokenizer: saved, vocab: 300 })).rejects.toThrow('Leave out one of the two')
    expect((await openText({ file: file('short') })).tokenizer.vocabSize).toBe(257)
  })

  test('the vocabulary grows with the text', () => {
    const sizes = [1, 1e4, 1e5, 1e6, 3e6, 1e8, 1e9].map(vocabFor)
    expect(sizes).toEqual([257, 257, 512, 1024, 2048, 8192, 16_384])
  })
})

describe('defaultCorpus', () => {
  test('takes the next best text and says so', () => {
    const [big, small] = [file('const answer = 42\n'.repeat(20_000)), file('short')]
    const [a, b, c] = [
      { name: 'A', files: () => [] },
      { name: 'B', files: () => [small] },
      { name: 'C', files: () => [big, small] },
    ]
    expect(defaultCorpus([c, a])).toMatchObject({ name: 'C (2 files)' })
    expect(defaultCorpus([c, a]).note).toBeUndefined()
    expect(defaultCorpus([a, b, c]).note).toBe('A are not installed, so this run learns from C')
    expect(() => defaultCorpus([a, b])).toThrow('there is no text on this machine to train on by default. Name one')
  })
})
