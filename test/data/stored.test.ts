import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { packing } from '../../lib/data/batchers.js'
import { TextPieces, textPieces } from '../../lib/data/bytelevel.js'
import {
  evaluationSteps,
  openText,
  splitTokens,
  StoredTokens,
  TextLoader,
  tokensChecksum,
} from '../../lib/data/index.js'
import { heldBack, readParts, type Parted, storeRows } from '../../lib/data/parts.js'
import { RowLoader } from '../../lib/data/row-loader.js'
import { RowStore } from '../../lib/data/row-store.js'
import { byteTokenizer } from '../../lib/data/tokenizers.js'
import { TOKEN_ROW, TokenRows, type TokenRow } from '../../lib/data/token-rows.js'
import { nodeFileSystem } from '../../lib/io/files.js'
import { GPT2, saveModel } from '../../lib/models/index.js'
import { collected } from '../collected.js'
import { root } from '../house/scan.js'
import { faulty } from '../io/faults.js'

const dir = mkdtempSync(join(tmpdir(), 'steepest-stored-'))
const folder = mkdtempSync(join(tmpdir(), 'steepest-spill-'))
afterAll(() => [dir, folder].forEach((d) => rmSync(d, { recursive: true, force: true })))
const file = (name: string, content: string): string => {
  writeFileSync(join(dir, name), content)
  return join(dir, name)
}
const dist = (name: string) => pathToFileURL(join(root, 'dist', name)).href
const onLinux = process.platform === 'linux'
/** Files without a name that this process has open in the folder of this test. */
const nameless = () =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder)
    } catch {
      return false
    }
  }).length

const data = file(
  'pairs.jsonl',
  Array.from({ length: 300 }, (_, i) =>
    JSON.stringify({ prompt: 'q'.repeat(1 + ((i * 7) % 23)), completion: `answer ${i}` }),
  ).join('\n'),
)
const sizeOf = ({ ids }: TokenRow) => ids.length
async function stores(memory: number, from = data, fs = nodeFileSystem) {
  const maker = new TokenRows({ tokenizer: byteTokenizer(), context: 32 })
  const parts = await readParts({ data: from, validation: 0.1, seed: 3 }, () => {})
  return storeRows(parts, TOKEN_ROW, sizeOf, ({ example, path }: Parted) => maker.of(example, path), {
    memory,
    folder,
    fs,
  })
}

describe('rows that do not fit into memory', () => {
  test('are those that would be there, in the same order, with the same position', async () => {
    const [inMemory, inFile] = [await stores(1e9), await stores(5_000)]
    expect([inMemory.train.spilled, inFile.train.spilled, inFile.validation.spilled]).toEqual([false, true, true])
    const [a, b] = [inMemory, inFile].map((s) => new RowLoader(s.train, packing(2, 64), { seed: 5, accumulate: 2 }))
    for (let step = 0; step < 60; step++) expect(await b.next()).toEqual(await a.next())
    expect(a.epochs).toBeGreaterThan(2)
    expect(b.state()).toEqual(a.state())
    const resumed = new RowLoader(inFile.train, packing(2, 64), { seed: 5, accumulate: 2 })
    resumed.restore(a.state())
    expect(await resumed.next()).toEqual(await a.next())
    const once = (s: typeof inMemory) => collected(RowLoader.once(s.validation, packing(2, 64)))
    expect(await once(inFile)).toEqual(await once(inMemory))
    expect(inFile.train.first).toEqual(inMemory.train.first)
    await inMemory.close()
    await inFile.close()
  })

  test.runIf(onLinux)('lie in files without a name, which are gone when they are closed', async () => {
    const before = nameless()
    const { close } = await stores(5_000)
    expect(readdirSync(folder)).toEqual([])
    expect(nameless()).toBe(before + 2)
    await close()
    expect(nameless()).toBe(before)
  })

  test('on a full disk are told in one sentence, and nothing is left open', async () => {
    // The third call opens the second file, the fifth writes.
    for (const at of [2, 4])
      await expect(stores(5_000, data, faulty(at, 'ENOSPC', true).fs)).rejects.toThrow(
        /steepest-spill-.*\] cannot be written for data that do not fit into memory: the disk is full \(ENOSPC\)\. Free some space there, or name another folder for temporary files with TMPDIR$/,
      )
    expect(readdirSync(folder)).toEqual([])
    if (onLinux) expect(nameless()).toBe(0)
  })

  test.runIf(onLinux)('leave nothing behind when the process is killed', () => {
    const code = `
      import { Spill } from '${dist('io/spill.js')}'
      const spill = await Spill.open({ folder: '${folder}' })
      await spill.append(new Uint8Array(9e6)); await spill.flush()
      process.kill(process.pid, 'SIGKILL')`
    expect(() => execFileSync(process.execPath, ['--input-type=module', '-e', code], { stdio: 'ignore' })).toThrow()
    expect(readdirSync(folder)).toEqual([])
  })

  test('of every kind of field come back as they were', async () => {
    const store = new RowStore<{ n: number; list: readonly number[]; ids: Int32Array; marks: Uint8Array }>(
      { n: 'number', list: 'numbers', ids: 'int32', marks: 'uint8' },
      (r) => r.ids.length,
      { memory: 0, folder },
    )
    const rows = [0, 1, 3].map((n) => ({
      n: n - 0.5,
      list: Array.from({ length: n }, (_, i) => i / 3),
      ids: Int32Array.from({ length: n }, (_, i) => -i),
      marks: new Uint8Array(n).fill(n),
    }))
    for (const row of rows) await store.push(row)
    await store.end()
    expect(await store.read([2, 0, 1])).toEqual([rows[2], rows[0], rows[1]])
    expect([store.longest, store.size(2), store.length]).toEqual([3, 3, 3])
    await store.close()
  })

  test('a bad row is named by its file and line, before one is made, and data that grow meanwhile are told', async () => {
    const bad = file('bad.jsonl', '{"text":"a"}\n{"text":"b"}\n{"text":7}\n')
    await expect(stores(1, bad)).rejects.toThrow(/bad.jsonl, line 3\] `text` must be a text/)
    const growing = file('growing.jsonl', '{"text":"a b"}\n{"text":"c d"}\n')
    const parts = await readParts({ data: growing, validation: 0.5, seed: 1 }, () => {})
    file('growing.jsonl', '{"text":"a b"}\n{"text":"c d"}\n{"text":"e"}\n')
    await expect(collected(parts.all())).rejects.toThrow(/must not change while they are read/)
  })

  // Some hundreds of megabytes: `npm run test:long`.
  test.runIf(process.env.STEEPEST_LONG).each([
    ['jsonl', 'finetune'],
    ['csv', 'finetune'],
    ['txt', 'finetune'],
    ['txt', 'train'],
  ])(
    'train from a large .%s by %s in little memory',
    async (kind, command) => {
      const from = join(dir, `large.${kind}`)
      const words = ['alpha', 'beta', 'gamma', 'delta', 'river', 'stone', 'light', 'cloud']
      const out = createWriteStream(from)
      if (kind === 'csv') out.write('prompt,completion\n')
      for (let row = 0; row < 600_000; row++) {
        const text = Array.from({ length: 60 }, (_, i) => words[(row * 7 + i * i) % 8]).join(' ')
        const answer = words[row % 8]
        const line =
          kind === 'jsonl'
            ? JSON.stringify({ prompt: text, completion: answer })
            : kind === 'csv'
              ? `${text},${answer}`
              : text
        if (!out.write(`${line}\n`)) await once(out, 'drain')
      }
      out.end()
      await once(out, 'finish')
      const sizes = { vocabSize: 257, context: 512, layers: 1, heads: 2, width: 16 }
      await saveModel(join(dir, 'gpt'), new GPT2(sizes), byteTokenizer())
      const code = `
      import { ${command === 'train' ? 'prepareTraining' : 'prepareFinetune'} as prepare } from '${dist(command === 'train' ? 'train/gpt/prepare.js' : 'train/finetune/prepare.js')}'
      const planned = await prepare(${JSON.stringify({
        ...(command === 'train'
          ? { file: from, tokenizer: 'bytes', layers: 1, width: 16, heads: 2, context: 64 }
          : { model: join(dir, 'gpt'), data: from, validation: 0.001 }),
        batch: 2,
        steps: 3,
        evalEvery: 3,
        threads: 1,
        out: join(dir, `run-${kind}-${command}`),
      })})
      for await (const event of planned.run()) if (event.type === 'stop') console.log(event.reason)
      console.log(process.resourceUsage().maxRSS * 1024)`
      const args = ['--max-old-space-size=150', '--input-type=module', '-e', code]
      const [reason, most] = execFileSync(process.execPath, args, { encoding: 'utf8' }).trim().split('\n')
      expect(reason).toBe('done')
      // The rows of tokens take 1 GB and more.
      expect(Number(most)).toBeLessThan(600e6)
      rmSync(from)
    },
    600_000,
  )

  test('a share is held back, spread over all', () => {
    const held = heldBack(1000, 0.1, 4)
    const rows = Array.from({ length: 1000 }, (_, i) => i).filter(held)
    expect(rows).toHaveLength(100)
    expect(rows.filter((r) => r < 500).length).toBeGreaterThan(25)
    expect(rows.filter((r) => r >= 500).length).toBeGreaterThan(25)
    expect([heldBack(1, 0.1, 1)(0), heldBack(2, 0.1, 1)(0) || heldBack(2, 0.1, 1)(1)]).toEqual([false, true])
  })
})

describe('a text that does not fit into memory', () => {
  const text = Array.from({ length: 4000 }, (_, i) => `Line ${i} says ${'word '.repeat(i % 9)}done.`).join('\n')
  const path = file('long.txt', text)

  test('trains on the same windows', async () => {
    const whole = await openText({ file: path, vocab: 300 })
    const stored = await openText({ file: path, vocab: 300, storage: { most: 1000, folder } })
    expect(stored.tokens).toBeInstanceOf(StoredTokens)
    expect(stored.tokens.length).toBe(whole.tokens.length)
    const [a, b] = await Promise.all(
      [whole, stored].map(async ({ tokens }) => {
        const { train, validation } = splitTokens(tokens, { context: 16 })
        const options = { context: 16, batch: 3, accumulate: 2, seed: 8 }
        const loader = new TextLoader(train, { ...options, checksum: await tokensChecksum(train) })
        return { loader, evaluated: await collected(evaluationSteps(validation, { context: 16, batch: 4 })()) }
      }),
    )
    for (let step = 0; step < 300; step++) expect(await b.loader.next()).toEqual(a.loader.next())
    expect(b.loader.state()).toEqual(a.loader.state())
    expect(b.evaluated).toEqual(a.evaluated)
    expect(() => new TextLoader([stored.tokens], { context: 16, batch: 1 })).toThrow(/need their checksum/)
    await (stored.tokens as StoredTokens).close()
  })

  test.each([1, 37, 5000, 1e6])('is cut at the same places in parts of %i characters', (size) => {
    const pieces = new TextPieces(1000)
    const found: string[] = []
    for (let at = 0; at < text.length; at += size) found.push(...pieces.push(text.slice(at, at + size)))
    found.push(...pieces.end())
    expect(found).toEqual([...textPieces(text, 1000)])
    expect(found.length).toBeGreaterThan(50)
  })

  test('without line ends it is cut at a space, and without spaces anywhere but within a character', () => {
    const spaces = 'ab '.repeat(4e5)
    const pieces = [...textPieces(spaces, 1 << 16)]
    expect(pieces.length).toBe(3)
    expect(pieces.slice(1).every((piece) => piece.startsWith(' '))).toBe(true)
    expect(pieces.join('') === spaces).toBe(true)
    const solid = `a${'😀'.repeat(6e5)}`
    const parts = [...textPieces(solid, 100)]
    expect([parts.length, parts[0].length % 2, parts.join('') === solid]).toEqual([2, 1, true])
  })
})
