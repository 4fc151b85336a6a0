import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { peerPython } from '../../bench/harness.mjs'
import { imageProcessor } from '../../lib/data/image-processor.js'
import { imageDecoder } from '../../lib/data/images.js'
import { philox } from '../../lib/data/philox.js'
import { resized } from '../../lib/data/resample.js'
import { byteTokenizer } from '../../lib/data/tokenizers.js'
import { GPT2, loadModel, ResNet, saveModel, ViT } from '../../lib/models/index.js'
import type { TrainEvent } from '../../lib/train/events.js'
import type { FinetuneOptions } from '../../lib/train/finetune/options.js'
import { prepareFinetune } from '../../lib/train/finetune/prepare.js'

const python = peerPython() as string | undefined
const pillow = python !== undefined && spawnSync(python, ['-c', 'import PIL']).status === 0
const cwd = mkdtempSync(join(tmpdir(), 'steepest-images-'))
afterAll(() => rmSync(cwd, { recursive: true, force: true }))

interface Encoder {
  png(): Encoder
  jpeg(): Encoder
  toFile(path: string): Promise<unknown>
}
const NAME = 'sharp'
type Make = (data: Uint8Array, options: object) => Encoder
const sharp = await import(NAME).then((m: { default: Make }) => m.default).catch(() => undefined)

/** An image of noise about a color. */
function noisy(color: readonly number[], width: number, height: number, seed: number): Uint8Array {
  const data = new Uint8Array(3 * width * height)
  for (let i = 0; i < data.length; i++)
    data[i] = Math.max(0, Math.min(255, color[i % 3] + (philox([i, seed, 0, 0], [1, 1])[0] % 61) - 30))
  return data
}
const PROCESSOR = {
  size: { height: 16, width: 16 },
  resample: 3,
  image_mean: [0.4, 0.5, 0.6],
  image_std: [0.2, 0.25, 0.3],
}
const COLORS = { cherry: [200, 60, 60], leaf: [60, 180, 70], sea: [50, 80, 200] } as const

beforeAll(async () => {
  const sizes = { channels: 3, classes: 2, problem: 'single', seed: 1, dtype: 'float32' } as const
  const vit = { image: 16, patch: 8, layers: 1, heads: 2, width: 16, hidden: 32, activation: 'gelu' } as const
  await saveModel(
    join(cwd, 'vit'),
    new ViT({ ...sizes, ...vit, qkvBias: true, eps: 1e-12, dropout: 0, initializerRange: 0.05 }),
  )
  const resnet = { stem: 8, widths: [8, 16], depths: [1, 1], kind: 'basic', activation: 'relu' } as const
  await saveModel(
    join(cwd, 'resnet'),
    new ResNet({ ...sizes, ...resnet, downsampleFirst: false, downsampleInBottleneck: false }),
  )
  for (const name of ['vit', 'resnet'])
    writeFileSync(join(cwd, name, 'preprocessor_config.json'), JSON.stringify(PROCESSOR))
  await saveModel(
    join(cwd, 'gpt'),
    new GPT2({ vocabSize: 257, context: 16, layers: 1, heads: 2, width: 16 }),
    byteTokenizer(),
  )
  if (!sharp) return
  let seed = 0
  for (const [name, color] of Object.entries(COLORS)) {
    mkdirSync(join(cwd, 'pictures', name), { recursive: true })
    for (let i = 0; i < 12; i++) {
      const [width, height] = [20 + 3 * i, 30 - i]
      const image = sharp(noisy(color, width, height, seed++), { raw: { width, height, channels: 3 } })
      await (i % 2 ? image.png() : image.jpeg()).toFile(join(cwd, 'pictures', name, `${i}.${i % 2 ? 'png' : 'jpg'}`))
    }
  }
})

async function run(options: FinetuneOptions): Promise<TrainEvent[]> {
  const planned = await prepareFinetune(options, { cwd })
  const events: TrainEvent[] = []
  for await (const event of planned.run()) events.push(event)
  return events
}

describe('an image', () => {
  const image = { data: noisy([120, 100, 90], 37, 23, 5), width: 37, height: 23, channels: 3 }

  test('keeps its numbers in its own size, and a plain one stays plain', () => {
    for (const filter of [0, 1, 2, 3, 4, 5]) {
      expect(resized(image, { width: 37, height: 23 }, filter).data).toEqual(image.data)
      const plain = { data: new Uint8Array(3 * 40).fill(77), width: 8, height: 5, channels: 3 }
      expect(new Set(resized(plain, { width: 3, height: 9 }, filter).data)).toEqual(new Set([77]))
    }
  })

  test('halved by boxes is the mean of four pixels', () => {
    const even = { data: noisy([120, 100, 90], 8, 6, 1), width: 8, height: 6, channels: 3 }
    const half = resized(even, { width: 4, height: 3 }, 4).data
    for (let y = 0; y < 3; y++)
      for (let x = 0; x < 4; x++)
        for (let c = 0; c < 3; c++) {
          const at = (dy: number, dx: number) => even.data[((2 * y + dy) * 8 + 2 * x + dx) * 3 + c]
          const mean = (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4
          expect(Math.abs(half[(y * 4 + x) * 3 + c] - mean)).toBeLessThanOrEqual(1)
        }
  })

  test('is cut in its middle and made normal as the file says', () => {
    const { width, height, process } = imageProcessor('p', {
      size: { shortest_edge: 23 },
      do_center_crop: true,
      crop_size: { height: 21, width: 11 },
      resample: 2,
      image_mean: [0.1, 0.2, 0.3],
      image_std: [0.5, 0.25, 2],
    })
    const out = process(image)
    expect([width, height, out.length]).toEqual([11, 21, 3 * 11 * 21])
    for (const [y, x] of [
      [0, 0],
      [20, 10],
      [7, 3],
    ])
      [0.1, 0.2, 0.3].forEach((mean, c) => {
        const pixel = image.data[((y + 1) * 37 + x + 13) * 3 + c] / 255
        expect(out[c * 231 + y * 11 + x]).toBeCloseTo((pixel - mean) / [0.5, 0.25, 2][c], 5)
      })
  })

  test.each<[object, RegExp]>([
    [{ size: { shortest_edge: 20 } }, /`size` must be/],
    [{ size: { height: 8, width: 8 }, resample: 9 }, /`resample` must be 0 to 5/],
    [{ size: 8, image_mean: [1, 2] }, /`image_mean` must be three numbers/],
  ])('of a bad preprocessor_config.json: %j', (json, message) => {
    expect(() => imageProcessor('p', json as Record<string, unknown>)).toThrow(message)
  })

  // Needs Pillow in the environment of the peers.
  test.runIf(pillow)('has the numbers that Pillow gives, with every filter', () => {
    const sizes = [
      [11, 40],
      [80, 9],
      [37, 50],
    ]
    const script = `
import json, sys
from PIL import Image
o = json.loads(sys.stdin.read())
im = Image.frombytes("RGB", (37, 23), bytes(o["data"]))
print(json.dumps([[list(im.resize((s[0], 23), f).resize(tuple(s), f).tobytes()) for s in o["sizes"]] for f in range(6)]))`
    const input = JSON.stringify({ data: [...image.data], sizes })
    const theirs = JSON.parse(execFileSync(python!, ['-c', script], { input, encoding: 'utf8' })) as number[][][]
    for (let filter = 0; filter < 6; filter++)
      for (const [i, [width, height]] of sizes.entries())
        expect([...resized(image, { width, height }, filter).data], `${filter} ${width}×${height}`).toEqual(
          theirs[filter][i],
        )
  })
})

test('without sharp one sentence says what to type', async () => {
  await expect(imageDecoder(() => Promise.reject(new Error('no')))).rejects.toThrow(/Type: npm install sharp/)
})

// sharp is an optional dependency.
describe.runIf(sharp)('a folder of images', () => {
  test.each(['vit', 'resnet'])('is learned by a %s, with the names of the classes', async (model) => {
    const events = await run({ model, data: 'pictures', lr: 1e-2, epochs: 12, validation: 0.2, out: `o-${model}` })
    const evals = events.flatMap((e) => (e.type === 'eval' ? [e] : []))
    expect(evals.at(-1)!.metrics!.accuracy).toBeGreaterThan(0.8)
    const { config } = await loadModel<ViT>(join(cwd, `o-${model}/model`))
    expect(config).toMatchObject({ classes: 3, labels: ['cherry', 'leaf', 'sea'] })
    const kept = JSON.parse(readFileSync(join(cwd, `o-${model}/model/preprocessor_config.json`), 'utf8')) as object
    expect(kept).toEqual(PROCESSOR)
  })

  test('goes on to the same bits', async () => {
    const options = { model: 'vit', data: 'pictures', steps: 6, evalEvery: 3, keep: 2 }
    await run({ ...options, out: 'one' })
    await run({ ...options, out: 'two', stopAfter: 3 })
    await run({ resume: 'two' })
    const weights = (dir: string) => readFileSync(join(cwd, dir, 'checkpoint-6/model.safetensors'))
    expect(weights('two').equals(weights('one'))).toBe(true)
  })

  test.each<[string, FinetuneOptions, RegExp, () => void]>([
    [
      'a file that is no image',
      { model: 'vit', data: 'bad' },
      /a\/x.png\] must be an image that is whole/,
      () => writeFileSync(join(cwd, 'bad/a/x.png'), 'x'),
    ],
    [
      'a class without images',
      { model: 'vit', data: 'bad' },
      /bad\/b\] a class must have images/,
      () => mkdirSync(join(cwd, 'bad/b')),
    ],
    ['one class', { model: 'vit', data: 'bad' }, /must have a subfolder for each class/, () => {}],
    ['a model of text', { model: 'gpt', data: 'pictures' }, /images are learned by ViT and ResNet/, () => {}],
    [
      'rows for a model of images',
      { model: 'vit', data: 'rows.jsonl' },
      /a model of images learns from a folder/,
      () => writeFileSync(join(cwd, 'rows.jsonl'), '{"text": "a", "label": 1}'),
    ],
  ])('%s is one sentence, and nothing is written', async (what, options, message, make) => {
    rmSync(join(cwd, 'bad'), { recursive: true, force: true })
    mkdirSync(join(cwd, 'bad/a'), { recursive: true })
    for (const name of what === 'a file that is no image' ? ['b', 'a'] : ['a']) {
      mkdirSync(join(cwd, 'bad', name), { recursive: true })
      writeFileSync(join(cwd, 'bad', name, '0.png'), readFileSync(join(cwd, 'pictures/sea/1.png')))
    }
    make()
    await expect(run({ ...options, out: 'none' })).rejects.toThrow(message)
    expect(existsSync(join(cwd, 'none'))).toBe(false)
  })
})
