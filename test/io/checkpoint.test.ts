import { mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { SteepestError } from '../../lib/errors.js'
import { type CheckpointParts, latestCheckpoint, loadCheckpoint, saveCheckpoint } from '../../lib/io/checkpoint.js'
import { nodeFileSystem } from '../../lib/io/files.js'
import { freshFolder } from './child.js'
import { partsOf } from './parts.js'

const steps = (run: string) =>
  readdirSync(run)
    .map((n) => Number(n.replace('checkpoint-', '')))
    .sort((a, b) => a - b)

describe('saving and loading', () => {
  test('gives everything back', async () => {
    const run = join(freshFolder('cp'), 'deep', 'run')
    const { dir } = await saveCheckpoint(run, 12, partsOf(12))
    expect(readdirSync(dir).sort()).toEqual([
      'config.json',
      'model.safetensors',
      'optimizer.safetensors',
      'state.json',
      'tokenizer.json',
    ])
    const loaded = await loadCheckpoint(dir)
    expect(loaded.step).toBe(12)
    expect(loaded.config).toEqual(partsOf(12).config)
    expect(loaded.state).toEqual(partsOf(12).state)
    expect(loaded.validationLoss).toBe(10 / 13)
    expect(loaded.tokenizer).toEqual(['tokenizer.json'])
    expect(loaded.model.map((t) => t.name)).toEqual(['a.weight', 'b.weight'])
    const target = new Float32Array(300)
    await loaded.model[1].readInto(new Uint8Array(target.buffer))
    expect(target).toEqual(Float32Array.from({ length: 300 }, (_, i) => Math.sin(i + 12)))
    expect(loaded.optimizer[0]).toMatchObject({ name: 'a.weight.m', dtype: 'F32', shape: [300] })
    const wide = new Float64Array(300)
    await loaded.optimizer[0].readInto(new Uint8Array(wide.buffer), 'float64')
    expect(wide[7]).toBe(Math.fround(Math.sin(7 + 24)))
    await loaded.close()
  })

  test('the same parts give the same bytes, at another place and time', async () => {
    const dirs = [freshFolder('cp'), freshFolder('cp')]
    for (const dir of dirs) {
      await saveCheckpoint(dir, 1, partsOf(1))
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    for (const name of readdirSync(join(dirs[0], 'checkpoint-1'))) {
      const [a, b] = dirs.map((d) => readFileSync(join(d, 'checkpoint-1', name)))
      expect(a.equals(b)).toBe(true)
    }
  })

  test.each<[string, Partial<CheckpointParts>, RegExp]>([
    ['NaN', { state: { a: { b: [1, NaN] } } }, /plain JSON with finite numbers; got NaN at `a.b.1`/],
    ['bigint', { state: { n: 5n as unknown as number } }, /got 5 at `n`/],
    ['typed array', { state: { n: Uint32Array.of(1) as unknown as number[] } }, /got Uint32Array at `n`/],
    ['map', { state: { n: new Map() as unknown as number[] } }, /got Map at `n`/],
    ['reserved name', { tokenizer: { 'state.json': '' } }, /must not have the name of another file; got state.json/],
    ['path', { tokenizer: { '../x': '' } }, /plain name; got "..\/x"/],
  ])('refuses %s', async (_, parts, message) => {
    const run = freshFolder('cp')
    await saveCheckpoint(run, 1, partsOf(1))
    await expect(saveCheckpoint(run, 2, { ...partsOf(2), ...parts })).rejects.toThrow(message)
    expect(readdirSync(run)).toEqual(['checkpoint-1'])
  })

  test('refuses wrong steps and keeping none', async () => {
    const run = freshFolder('cp')
    await expect(saveCheckpoint(run, -1, partsOf(1))).rejects.toThrow(/non-negative integer; got -1/)
    await expect(saveCheckpoint(run, 1.5, partsOf(1))).rejects.toThrow(/non-negative integer; got 1.5/)
    await expect(saveCheckpoint(run, 1, partsOf(1), { keep: 0 })).rejects.toThrow(
      /at least one checkpoint is kept; got 0/,
    )
    expect(readdirSync(run)).toEqual([])
  })

  test('a loss that is not a number is no loss', async () => {
    const run = freshFolder('cp')
    await saveCheckpoint(run, 1, { ...partsOf(1), validationLoss: NaN })
    const loaded = await loadCheckpoint(join(run, 'checkpoint-1'))
    expect(loaded.validationLoss).toBeUndefined()
    await loaded.close()
  })
})

describe('corrupt checkpoints', () => {
  const names = ['config.json', 'model.safetensors', 'optimizer.safetensors', 'state.json', 'tokenizer.json']
  const damage: [string, RegExp, (path: string) => void][] = [
    ['missing', /the file is missing|this folder has none/, (path) => rmSync(path)],
    ['cut short', /the file is corrupt/, (path) => truncateSync(path, readFileSync(path).length - 3)],
    ['emptied', /the file is corrupt/, (path) => writeFileSync(path, '')],
    [
      'flipped',
      /the file is corrupt: (its checksum does not fit|it is not JSON|it does not say)|reads version/,
      (path) => {
        const bytes = readFileSync(path)
        bytes[bytes.length >> 1] ^= 4
        writeFileSync(path, bytes)
      },
    ],
  ]
  for (const name of names) {
    test.each(damage)(`${name} %s: named, and the one before is found`, async (_, message, harm) => {
      const run = freshFolder('cp')
      for (const step of [1, 5, 10]) await saveCheckpoint(run, step, partsOf(step))
      harm(join(run, 'checkpoint-10', name))
      const error = await loadCheckpoint(join(run, 'checkpoint-10')).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(SteepestError)
      expect((error as SteepestError).code).toBe('CHECKPOINT')
      expect((error as Error).message).toContain(name)
      expect((error as Error).message).toMatch(message)
      const latest = await latestCheckpoint(run)
      expect(latest.step).toBe(5)
      expect(latest.dir).toBe(join(run, 'checkpoint-5'))
      expect(latest.skipped).toEqual([{ dir: join(run, 'checkpoint-10'), reason: (error as Error).message }])
    })
  }

  test('every flipped bit of state.json is noticed', async () => {
    const run = freshFolder('cp')
    await saveCheckpoint(run, 1, partsOf(1))
    const path = join(run, 'checkpoint-1', 'state.json')
    const whole = readFileSync(path)
    const same: number[] = []
    for (let bit = 0; bit < whole.length * 8; bit += 3) {
      const copy = Buffer.from(whole)
      copy[bit >> 3] ^= 1 << (bit & 7)
      writeFileSync(path, copy)
      const { step } = await latestCheckpoint(run)
      if (step !== undefined) same.push(bit)
    }
    // White space may turn into other white space.
    for (const bit of same) expect([0x20, 0x0a]).toContain(whole[bit >> 3])
    expect(same.length).toBeLessThan(whole.length / 4)
  })

  test('no run, an empty run, other names', async () => {
    const run = freshFolder('cp')
    expect(await latestCheckpoint(join(run, 'none'))).toEqual({ skipped: [] })
    mkdirSync(join(run, 'checkpoint-01'))
    mkdirSync(join(run, 'checkpoint-x'))
    expect(await latestCheckpoint(run)).toEqual({ skipped: [] })
    await expect(loadCheckpoint(join(run, 'checkpoint-7'))).rejects.toThrow(/there is no such checkpoint/)
  })
})

describe('rotation', () => {
  const losses = [5, 3, 4, 3, 6, 7]
  async function saveAll(options: object) {
    const run = freshFolder('cp')
    for (const [i, validationLoss] of losses.entries()) {
      const saved = await saveCheckpoint(run, i, { ...partsOf(i), validationLoss }, options)
      expect(saved.problem).toBeUndefined()
    }
    return run
  }

  test('keeps the last k and the best; the earlier of two equal ones', async () => {
    expect(steps(await saveAll({ keep: 2 }))).toEqual([1, 4, 5])
    expect(steps(await saveAll({ keep: 2, keepBest: false }))).toEqual([4, 5])
    expect(steps(await saveAll({ keep: 1 }))).toEqual([1, 5])
    expect(steps(await saveAll({}))).toEqual([0, 1, 2, 3, 4, 5])
  })

  test('a corrupt checkpoint does not count among the last k', async () => {
    const run = await saveAll({})
    writeFileSync(join(run, 'checkpoint-5', 'model.safetensors'), '')
    writeFileSync(join(run, 'checkpoint-2', 'model.safetensors'), '')
    const saved = await saveCheckpoint(run, 6, { ...partsOf(6), validationLoss: 9 }, { keep: 2 })
    expect(steps(run)).toEqual([1, 4, 5, 6])
    expect(saved.removed).toEqual([0, 2, 3].map((n) => join(run, `checkpoint-${n}`)))
  })

  test('what cannot be removed is told, and the new checkpoint is whole', async () => {
    const run = freshFolder('cp')
    await saveCheckpoint(run, 1, partsOf(1))
    const broken = Object.assign(new Error('broken'), { code: 'EIO' })
    const rename = (from: string, to: string) =>
      from.endsWith('checkpoint-1') ? Promise.reject(broken) : nodeFileSystem.rename(from, to)
    const stubborn = { ...nodeFileSystem, rename }
    const saved = await saveCheckpoint(run, 2, partsOf(2), { keep: 1, keepBest: false, fs: stubborn })
    expect(saved.problem?.message).toMatch(
      /checkpoint-1\] cannot be removed: the disk reports an input\/output error \(EIO\)/,
    )
    expect(steps(run)).toEqual([1, 2])
  })
})
