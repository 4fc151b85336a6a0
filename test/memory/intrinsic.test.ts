import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { grad, memory, models, nn, optim, random, tensor, type Tensor, vmap } from '../../lib/index.js'
import { train } from '../../lib/train/train.js'
import { PROJECTIONS } from '../../lib/memory/intrinsic-projections.js'
import { far, item } from './steps.js'
import { batches, filesOf, folder, Net, numbers } from './training.js'

const ctx = () => new nn.Context({ training: true })
const at = (net: Net) => {
  const { x, y } = batches(1, 16, 1, net.dtype)[0]
  return { x: tensor(x.data, { shape: x.shape }), y: tensor(y.data, { shape: y.shape }) }
}
const KINDS = ['fastfood', 'dense', 'sparse'] as const

/** The matrix P of a part, [size, dim], by its columns. */
async function matrixOf(kind: (typeof KINDS)[number], dim: number, size: number, total: number, seed: number) {
  const [key, shared] = [random.foldIn(random.key(seed), 1), random.key(seed)]
  const columns = []
  for (let j = 0; j < dim; j++) {
    const unit = tensor(Float64Array.from({ length: dim }, (_, i) => Number(i === j)))
    columns.push(Float64Array.from(await PROJECTIONS[kind](unit, { size, total, key, shared }).read(), Number))
  }
  return columns
}

/** Mean of numbers, and how far from `expected` that is in standard errors. */
function errors(values: number[], expected: number): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  const variance = values.reduce((s, v) => s + (v - mean) ** 2, 0) / (values.length - 1)
  return Math.abs(mean - expected) / Math.sqrt(variance / values.length)
}

describe.each(KINDS)('%s', (kind) => {
  test('entries have mean 0 and variance 1/D, those of two columns nothing in common', async () => {
    const [dim, size, total] = [3, 50, 200]
    const [first, square, product]: number[][] = [[], [], []]
    for (let seed = 0; seed < 60; seed++) {
      const columns = await matrixOf(kind, dim, size, total, seed)
      const sum = (f: (i: number) => number) => columns[0].reduce((s, _, i) => s + f(i), 0) / size
      // One number a draw, since the entries of a matrix are not independent.
      first.push(sum((i) => columns[0][i]))
      square.push(sum((i) => columns[1][i] ** 2))
      product.push(sum((i) => columns[0][i] * columns[2][i]))
    }
    expect(errors(first, 0)).toBeLessThan(4.5)
    expect(errors(square, 1 / total)).toBeLessThan(4.5)
    expect(errors(product, 0)).toBeLessThan(4.5)
  })

  test('begins as the model; gradients are Pᵀ times those of the weights, to finite differences', async () => {
    const net = new Net()
    const small = memory.intrinsic(net, { dim: 5, projection: kind, train: /head/, seed: 3 })
    expect(Object.keys(nn.parameters(small))).toEqual(['coordinates', 'trained.head.weight'])
    expect(await item(small.loss(at(net) as never, ctx()).loss)).toBe(await item(net.loss(at(net)).loss))
    const loss = (d: Tensor) => nn.withTensors(small, { coordinates: d }).loss(at(net) as never, ctx()).loss
    const d = tensor(numbers(8, 5))
    const g = Float64Array.from(await grad(loss)(d).read(), Number)
    for (let j = 0; j < 5; j++) {
      const step = (h: number) => loss(tensor(numbers(8, 5).map((v, i) => (i === j ? v + h : v))))
      const numeric = ((await item(step(1e-5))) - (await item(step(-1e-5)))) / 2e-5
      expect(Math.abs(g[j] - numeric)).toBeLessThan(1e-8)
    }
  })

  test('is linear, batches, and is the same for one seed', async () => {
    const part = { size: 21, total: 40, key: random.key(4), shared: random.key(5) }
    const f = (d: Tensor) => PROJECTIONS[kind](d, part)
    const [a, b] = [tensor(numbers(1, 6)), tensor(numbers(2, 6))]
    const together = await f(a.mul(2).sub(b)).read()
    expect(far(together, await f(a).mul(2).sub(f(b)).read())).toBeLessThan(1e-14)
    const rows = tensor([...numbers(1, 6), ...numbers(2, 6)], { dtype: 'float64', shape: [2, 6] })
    expect(
      far(
        await vmap(f)(rows)
          .slice([[1, 2]])
          .read(),
        await f(b).read(),
      ),
    ).toBeLessThan(1e-14)
  })
})

test('a column of a Fastfood block has one length, exactly that of G', async () => {
  const columns = await matrixOf('fastfood', 4, 4, 4, 7)
  const lengths = columns.map((c) => Math.hypot(...c))
  for (const length of lengths) expect(length).toBeCloseTo(lengths[0], 12)
})

test('scales of layers are some of the dimensions, and learn', async () => {
  const net = new Net('float32')
  const small = memory.intrinsic(net, { dim: 12, layerwise: true })
  // first, second, third, head and the rest.
  expect(small.scales!.size).toBe(5)
  expect(small.coordinates.size).toBe(7)
  const data = Array.from({ length: 40 }, () => ({ microBatches: [batches(1, 16, 1, 'float32')[0]], tokens: 16 }))
  const before = await item(net.loss(at(net)).loss)
  await train(small as never, data as never, { optimizer: optim.adam({ lr: 0.1 }), steps: 40 })
  expect(await item(small.merged().loss(at(net)).loss)).toBeLessThan(0.8 * before)
  expect(far(await small.scales!.read(), [1, 1, 1, 1, 1])).toBeGreaterThan(0.01)
  // The weights that it began with are as they were.
  expect(far(await net.first.weight.read(), await new Net('float32').first.weight.read())).toBe(0)
})

test.each([
  ['fastfood', 1e6],
  ['dense', 5e6],
] as const)('what %s needs in a step', async (projection, bytes) => {
  const small = memory.intrinsic(new Net('float32'), { dim: 4096, projection })
  const data = [{ microBatches: [batches(1, 16, 1, 'float32')[0]], tokens: 16 }]
  let held = 0
  for await (const event of train(small as never, data as never, { optimizer: optim.sgd({ lr: 0.1 }), steps: 1 }))
    if (event.type === 'start') held = event.memory.activations
  // The matrix P of all weights has 330 · 4096 numbers, 5.4 MB; of the largest, 1.6 MB.
  if (projection === 'fastfood') expect(held).toBeLessThan(bytes)
  else expect(held).toBeGreaterThan(1.5e6)
  expect(held).toBeLessThan(bytes)
})

test('resumes to the same bits, whatever P the new process had', async () => {
  const [one, two] = [folder(), folder()]
  const run = async (out: string, more: object) => {
    const all = batches(6, 16, 1, 'float32')
    const n = { at: 0 }
    const source = {
      next: () => (n.at < 6 ? { microBatches: [all[n.at++]], tokens: 16 } : null),
      state: () => n.at,
      restore: (to: unknown) => void (n.at = to as number),
    }
    const small = memory.intrinsic(new Net('float32'), { dim: 9, layerwise: true })
    const optimizer = optim.adamw({ lr: 0.05 })
    await train(small as never, source as never, { optimizer, steps: 6, out, saveEvery: 3, ...more })
  }
  await run(one, {})
  await run(two, { stopAfter: 3 })
  await run(two, { resume: join(two, 'checkpoint-3') })
  expect(filesOf(join(two, 'checkpoint-6'))).toEqual(filesOf(join(one, 'checkpoint-6')))
})

test('states are those of the few numbers, and a GPT-2 comes out as one', async () => {
  const gpt = new models.GPT2({ vocabSize: 31, context: 8, layers: 2, heads: 2, width: 16, dtype: 'bfloat16' })
  const small = memory.intrinsic(gpt, { dim: 40, layerwise: true })
  expect(optim.adamw().stateBytes(small)).toEqual({ m: 160, v: 160 })
  // Two blocks, wte, wpe and the last norm.
  expect(small.scales!.size).toBe(5)
  const out = folder()
  await models.saveModel(
    out,
    nn.withTensors(small, { coordinates: tensor(Float32Array.from(numbers(1, 35))) }).merged(),
  )
  const again = await models.loadModel<models.GPT2>(out)
  expect(Object.keys(nn.parameters(again))).toEqual(Object.keys(nn.parameters(gpt)))
  const name = Object.keys(nn.parameters(gpt))[0]
  expect(far(await nn.parameters(again)[name].read(), await nn.parameters(gpt)[name].read())).toBeGreaterThan(0)
})

test('a map of the user’s own, and what cannot be done', async () => {
  const net = new Net()
  const same: memory.Project = (d, { size }) => d.sum().broadcastTo([size])
  const small = memory.intrinsic(net, { dim: 2, projection: same, match: ['frozen'] })
  const moved = nn.withTensors(small, { coordinates: tensor(Float64Array.of(0.5, 1)) }).merged()
  expect(
    far(
      await moved.frozen.read(),
      numbers(6, 2).map((v) => v + 1.5),
    ),
  ).toBeLessThan(1e-15)
  expect(() => memory.intrinsic(net, { dim: 0 })).toThrow(/`dim`/)
  expect(() => memory.intrinsic(net, { dim: 5, layerwise: true })).toThrow(/more than the number of layers/)
  expect(() => memory.intrinsic(net, { dim: 5, match: /nothing/ })).toThrow(/takes none of these/)
  expect(() => memory.intrinsic(net, { dim: 5, projection: 'fastfod' as never })).toThrow(/fastfood/)
  expect(() => memory.intrinsic(memory.sampled(net), { dim: 5 })).toThrow(/sampled/)
})
