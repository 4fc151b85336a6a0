import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { SteepestError } from '../../lib/errors.js'
import { atomicFolder, atomicWriteFile, cleanLeftovers } from '../../lib/io/files.js'
import { freshFolder } from './child.js'
import { faulty } from './faults.js'

const chunks = ['first ', 'second ', 'third'].map((s) => Buffer.from(s))

describe('atomicWriteFile', () => {
  test('writes strings, bytes and streams of chunks', async () => {
    const dir = freshFolder('files')
    expect((await atomicWriteFile(join(dir, 'a'), 'héllo')).bytes).toBe(6)
    await atomicWriteFile(join(dir, 'b'), Uint8Array.of(1, 2))
    await atomicWriteFile(join(dir, 'c'), chunks)
    expect(readFileSync(join(dir, 'a'), 'utf8')).toBe('héllo')
    expect([...readFileSync(join(dir, 'b'))]).toEqual([1, 2])
    expect(readFileSync(join(dir, 'c'), 'utf8')).toBe('first second third')
    expect((await atomicWriteFile(join(dir, 'd'), '')).bytes).toBe(0)
    expect(readdirSync(dir).sort()).toEqual(['a', 'b', 'c', 'd'])
  })

  test('after an error at any call the old file is as it was and nothing is left beside it', async () => {
    const dir = freshFolder('files')
    const path = join(dir, 'file')
    const dry = faulty()
    await atomicWriteFile(path, chunks, dry.fs)
    for (let n = 0; n < dry.calls.length; n++) {
      writeFileSync(path, 'old')
      const { fs } = faulty(n, 'ENOSPC')
      const error = await atomicWriteFile(path, chunks, fs).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(SteepestError)
      expect((error as Error).message).toBe(
        `[${path}] cannot be written: the disk is full (ENOSPC). Free some space or choose another folder`,
      )
      const renamed = dry.calls.findIndex((c) => c.startsWith('rename')) < n
      expect(readFileSync(path, 'utf8')).toBe(renamed ? 'first second third' : 'old')
      expect(readdirSync(dir)).toEqual(['file'])
    }
  })

  test('goes on after short writes', async () => {
    const path = join(freshFolder('files'), 'file')
    for (let n = 0; n < 8; n++) {
      await atomicWriteFile(path, chunks, faulty(n, 'short').fs)
      expect(readFileSync(path, 'utf8')).toBe('first second third')
    }
  })

  test('an error of the source leaves the old file', async () => {
    const dir = freshFolder('files')
    writeFileSync(join(dir, 'file'), 'old')
    const source = async function* () {
      yield Buffer.from('new')
      throw new SteepestError('DATA', { who: 'source', rule: 'gave up' })
    }
    await expect(atomicWriteFile(join(dir, 'file'), source())).rejects.toThrow('[source] gave up')
    expect(readdirSync(dir)).toEqual(['file'])
    expect(readFileSync(join(dir, 'file'), 'utf8')).toBe('old')
  })

  test('real errors are one sentence each', async () => {
    const dir = freshFolder('files')
    writeFileSync(join(dir, 'plain'), '')
    mkdirSync(join(dir, 'folder'))
    await expect(atomicWriteFile(join(dir, 'none', 'x'), '')).rejects.toThrow(
      /none\/x\] cannot be written: there is no such file or folder/,
    )
    await expect(atomicWriteFile(join(dir, 'plain', 'x'), '')).rejects.toThrow(
      /a part of the path is a file, not a folder \(ENOTDIR\)/,
    )
    await expect(atomicWriteFile(join(dir, 'folder'), '')).rejects.toThrow(/it is a folder, not a file \(EISDIR\)/)
  })
})

describe('atomicFolder', () => {
  test('replaces a folder as a whole', async () => {
    const dir = freshFolder('files')
    await atomicFolder(join(dir, 'f'), async (f) => void (await f.file('a', 'old')))
    await atomicFolder(join(dir, 'f'), async (f) => void (await f.file('b', 'new')))
    expect(readdirSync(join(dir, 'f'))).toEqual(['b'])
    expect(readdirSync(dir)).toEqual(['f'])
  })

  test.each(['', '..', 'a/b', '.hidden', 'a\\b'])('refuses the file name %j', async (name) => {
    const dir = freshFolder('files')
    await expect(atomicFolder(join(dir, 'f'), async (f) => void (await f.file(name, '')))).rejects.toThrow(/plain name/)
    expect(readdirSync(dir)).toEqual([])
  })
})

describe('cleanLeftovers', () => {
  const dead = 2 ** 22 + 12345

  test('removes what dead processes left, and gives a folder its name back', async () => {
    const dir = freshFolder('files')
    mkdirSync(join(dir, `.tmp-${dead}-0-0-checkpoint-5`))
    writeFileSync(join(dir, `.tmp-${dead}-0-1-run.jsonl`), '')
    mkdirSync(join(dir, `.old-${dead}-0-2-checkpoint-4`))
    writeFileSync(join(dir, `.old-${dead}-0-2-checkpoint-4`, 'whole'), '')
    mkdirSync(join(dir, `.old-${dead}-0-3-checkpoint-3`))
    mkdirSync(join(dir, 'checkpoint-3'))
    writeFileSync(join(dir, '.tmp-notes'), '')
    await cleanLeftovers(dir)
    expect(readdirSync(dir).sort()).toEqual(['.tmp-notes', 'checkpoint-3', 'checkpoint-4'])
    expect(existsSync(join(dir, 'checkpoint-4', 'whole'))).toBe(true)
  })

  test('leaves what a living process writes, unless it is old, and what this one is writing', async () => {
    const dir = freshFolder('files')
    const living = `.tmp-${process.ppid}-0-0-a`
    const ancient = `.tmp-${process.ppid}-0-1-b`
    const ours = `.tmp-${process.pid}-0-999999-c`
    for (const name of [living, ancient, ours]) writeFileSync(join(dir, name), '')
    utimesSync(join(dir, ancient), 1, 1)
    utimesSync(join(dir, ours), 1, 1)
    await atomicFolder(join(dir, 'f'), async (f) => {
      await cleanLeftovers(dir)
      await f.file('x', '')
    })
    expect(readdirSync(dir).sort()).toEqual([living, 'f'].sort())
  })

  test('never fails', async () => {
    const dir = freshFolder('files')
    writeFileSync(join(dir, `.tmp-${dead}-0-1-x`), '')
    for (let n = 0; n < 4; n++) await cleanLeftovers(dir, faulty(n, 'EIO').fs)
    await cleanLeftovers(join(dir, 'nowhere'))
    expect(readdirSync(dir)).toEqual([])
  })
})
