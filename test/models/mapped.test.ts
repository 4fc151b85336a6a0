import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { native } from '../../lib/addon.js'
import { nodeFileSystem } from '../../lib/io/files.js'
import { openSafetensors } from '../../lib/io/safetensors.js'
import { GPT2, loadModel, saveModel } from '../../lib/models/index.js'
import { loadTensor } from '../../lib/models/tensors.js'
import { parameters } from '../../lib/nn/module.js'
import { optim, train } from '../../lib/index.js'

const dir = mkdtempSync(join(tmpdir(), 'steepest-mapped-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const weights = join(dir, 'model.safetensors')
// Large enough to be worth a part of a file.
const model = new GPT2({ vocabSize: 300, context: 64, layers: 1, heads: 2, width: 128, seed: 1 })
const EMBEDDING = 'transformer.wte.weight'
const valuesOf = async (of: GPT2, name = EMBEDDING) => [...(await parameters(of)[name].read())]
beforeAll(() => saveModel(dir, model))

describe('weights that lie in the file as they do in memory', () => {
  test.runIf(process.platform === 'linux')('are that part of it, and only they', async () => {
    const file = await openSafetensors(dir)
    const at = file.placeOf(EMBEDDING, 'float32')!
    const bytes = 4 * 300 * 128
    expect(new (native().Buffer)(bytes, at.file, at.offset).mapped).toBe(true)
    expect(new (native().Buffer)(512, at.file, at.offset).mapped).toBe(false)
    expect(new (native().Buffer)(bytes).mapped).toBe(false)
    expect(file.placeOf(EMBEDDING, 'bfloat16')).toBeUndefined()
    await file.close()
  })

  test('have the numbers that were saved, and training leaves the file as it is', async () => {
    const before = readFileSync(weights)
    const loaded = await loadModel<GPT2>(dir)
    expect(await valuesOf(loaded)).toEqual(await valuesOf(model))
    const ids = { data: Int32Array.from({ length: 32 }, (_, i) => (i * 7) % 300), shape: [2, 16] }
    await train(loaded, [{ inputIds: ids, targets: ids }], { optimizer: optim.adamw({ lr: 0.1 }), steps: 1 })
    expect(await valuesOf(loaded)).not.toEqual(await valuesOf(model))
    expect(readFileSync(weights).equals(before)).toBe(true)
    expect(await valuesOf(await loadModel(dir))).toEqual(await valuesOf(model))
  })

  test('stay when another file takes the place of theirs, which saving does', async () => {
    const loaded = await loadModel<GPT2>(dir)
    const other = new GPT2({ vocabSize: 300, context: 64, layers: 1, heads: 2, width: 128, seed: 2 })
    await saveModel(dir, other)
    expect(await valuesOf(loaded)).toEqual(await valuesOf(model))
    await saveModel(dir, loaded)
    expect(await valuesOf(await loadModel(dir))).toEqual(await valuesOf(model))
  })

  test('are read piece by piece where they lie at a place that no number may, or the file system has no numbers of files', async () => {
    const bytes = readFileSync(weights)
    const length = Number(bytes.readBigUInt64LE())
    const [header, data] = [bytes.subarray(8, 8 + length), bytes.subarray(8 + length)]
    const first = Buffer.alloc(8)
    first.writeBigUInt64LE(BigInt(length + 3))
    writeFileSync(`${weights}.odd`, Buffer.concat([first, header, Buffer.from('   '), data]))
    renameSync(`${weights}.odd`, weights)
    const file = await openSafetensors(dir)
    expect(file.placeOf(EMBEDDING, 'float32')).toBeUndefined()
    await file.close()
    expect(await valuesOf(await loadModel(dir))).toEqual(await valuesOf(model))
    await saveModel(dir, model)
    const plain = await openSafetensors(dir, {
      ...nodeFileSystem,
      async open(path, mode) {
        const { read, size, close } = await nodeFileSystem.open(path, mode).then((f) => ({
          read: f.read.bind(f),
          size: f.size.bind(f),
          close: f.close.bind(f),
        }))
        return { read, size, close } as never
      },
    })
    expect(plain.placeOf(EMBEDDING, 'float32')).toBeUndefined()
    const t = await loadTensor({ shape: [300, 128], dtype: 'float32' }, (take, as) =>
      plain.readPieces(EMBEDDING, take, as),
    )
    expect([...(await t.read())]).toEqual(await valuesOf(model))
    await plain.close()
  })
})
