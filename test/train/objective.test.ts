import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { add, matmul, mean, nn, optim, square, sub, tanh, type Tensor, tensor } from '../../lib/index.js'
import { openSafetensors } from '../../lib/io/safetensors.js'
import type { Context } from '../../lib/nn/module.js'
import { HostArray } from '../../lib/train/host.js'
import { type FitOptions, train } from '../../lib/train/train.js'

const numbers = (seed: number, n: number) =>
  Float64Array.from({ length: n }, (_, i) => Math.sin(seed * 77.7 + 12.9898 * (i + 1)))

/** A net with a layer of running statistics; its loss is a mean. */
class Net {
  w1 = tensor(numbers(1, 12), { shape: [3, 4] })
  norm = new nn.BatchNorm(4, { dtype: 'float64' })
  w2 = tensor(numbers(2, 4), { shape: [4, 1] })
  frozen = tensor(numbers(3, 1), { shape: [1] })
  constructor(readonly normalized = true) {}
  loss({ x, y }: { x: Tensor; y: Tensor }, ctx: Context): { loss: Tensor } {
    const h = matmul(x, this.w1)
    const z = tanh(this.normalized ? this.norm.forward(h, ctx) : h)
    return { loss: mean(square(sub(add(matmul(z, this.w2), this.frozen), y))) }
  }
}

const batches = (steps: number, rows: number, cut = 1) =>
  Array.from({ length: steps * cut }, (_, i) => {
    const [step, part] = [Math.floor(i / cut), i % cut]
    const own = rows / cut
    const take = (seed: number, width: number) =>
      numbers(seed + step, rows * width).slice(part * own * width, (part + 1) * own * width)
    return { x: new HostArray(take(10, 3), [own, 3]), y: new HostArray(take(20, 1), [own, 1]) }
  })

const folders: string[] = []
const folder = () => {
  folders.push(mkdtempSync(join(tmpdir(), 'steepest-objective-')))
  return folders.at(-1)!
}
afterAll(() => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true })
})

const group = [{ match: /frozen/, frozen: true }]
const sharp = () => optim.sam(optim.sgd({ lr: 0.05, momentum: 0.9, groups: group }), { rho: 0.1 })
const free = () => optim.scheduleFreeAdamw({ lr: 0.02, groups: group })

async function trained(net: Net, options: Partial<FitOptions> & Pick<FitOptions, 'optimizer'>, cut = 1, steps = 6) {
  const at = { n: 0 }
  const all = batches(steps, 8, cut)
  const source = {
    next: () => {
      const from = at.n++ * cut
      return from >= all.length ? null : { microBatches: all.slice(from, from + cut), tokens: 8 }
    },
    state: () => at.n,
    restore: (n: unknown) => {
      at.n = n as number
    },
  }
  const run = train(net as never, source as never, { steps, ...options })
  const result = await run
  const named = { ...nn.parameters(net), mean: net.norm.runningMean, variance: net.norm.runningVar }
  const read = await Promise.all(Object.entries(named).map(async ([k, t]) => [k, [...(await t.read())]] as const))
  return { result, weights: Object.fromEntries(read) as Record<string, number[]> }
}

const worst = (a: Record<string, number[]>, b: Record<string, number[]>) =>
  Math.max(...Object.keys(a).map((k) => Math.max(...a[k].map((x, i) => Math.abs(x - b[k][i])))))

describe('an optimizer that evaluates the objective', () => {
  test('is the same step in a loop of one’s own', async () => {
    const inLoop = await trained(new Net(false), { optimizer: sharp(), clip: null })
    const own = new Net(false)
    const optimizer = sharp()
    let params: Record<string, Tensor> = nn.parameters(own)
    let state = optimizer.init(params)
    for (const { x, y } of batches(6, 8)) {
      const at = { x: tensor(x.data, { shape: x.shape }), y: tensor(y.data, { shape: y.shape }) }
      const loss = (p: Record<string, Tensor>) => nn.withTensors(own, p).loss(at, new nn.Context()).loss
      ;({ params, state } = optimizer.step!(optim.objective(loss), params, state))
    }
    for (const [k, t] of Object.entries(params)) {
      const got = await t.read()
      inLoop.weights[k].forEach((x, i) => expect(Math.abs(x - got[i])).toBeLessThan(1e-12))
    }
  })

  test('moves otherwise than its base, and leaves frozen parameters alone', async () => {
    const plain = optim.sgd({ lr: 0.05, momentum: 0.9, groups: group })
    const [a, b] = [await trained(new Net(), { optimizer: sharp() }), await trained(new Net(), { optimizer: plain })]
    expect(worst(a.weights, b.weights)).toBeGreaterThan(1e-4)
    expect(a.weights.frozen).toEqual([...numbers(3, 1)])
  })

  test.each([null, 0.05])('takes k micro-batches as the one big batch (clip %s)', async (clip) => {
    const whole = await trained(new Net(false), { optimizer: sharp(), clip })
    for (const cut of [2, 4]) {
      const cutUp = await trained(new Net(false), { optimizer: sharp(), clip, accumulate: cut }, cut)
      expect(worst(whole.weights, cutUp.weights)).toBeLessThan(1e-12)
      expect(cutUp.result.loss).toBeCloseTo(whole.result.loss, 12)
    }
  })

  test.each([1, 2])('moves running statistics once per micro-batch (%i)', async (cut) => {
    const net = new Net()
    const first = batches(1, 8, cut)
    await trained(net, { optimizer: optim.sam(optim.sgd({ lr: 0 }), { rho: 0.5 }) }, cut, 1)
    let [center, spread] = [
      [0, 0, 0, 0],
      [1, 1, 1, 1],
    ]
    const w = numbers(1, 12)
    for (const { x } of first) {
      const n = 8 / cut
      const h = Array.from({ length: n }, (_, i) =>
        [0, 1, 2, 3].map((j) => [0, 1, 2].reduce((s, k) => s + x.data[i * 3 + k] * w[k * 4 + j], 0)),
      )
      const mu = [0, 1, 2, 3].map((j) => h.reduce((s, r) => s + r[j], 0) / n)
      const unbiased = [0, 1, 2, 3].map((j) => h.reduce((s, r) => s + (r[j] - mu[j]) ** 2, 0) / (n - 1))
      center = center.map((c, j) => 0.9 * c + 0.1 * mu[j])
      spread = spread.map((c, j) => 0.9 * c + 0.1 * unbiased[j])
    }
    for (const [t, expected] of [
      [net.norm.runningMean, center],
      [net.norm.runningVar, spread],
    ] as const) {
      const got = await t.read()
      expected.forEach((e, j) => expect(got[j]).toBeCloseTo(e, 12))
    }
  })

  test('resumes to the same bits', async () => {
    const [one, two] = [folder(), folder()]
    await trained(new Net(), { optimizer: sharp(), out: one, saveEvery: 3 })
    await trained(new Net(), { optimizer: sharp(), out: two, saveEvery: 3, stopAfter: 3 })
    await trained(new Net(), { optimizer: sharp(), out: two, saveEvery: 3, resume: join(two, 'checkpoint-3') })
    for (const name of readdirSync(join(one, 'checkpoint-6')))
      expect(readFileSync(join(two, 'checkpoint-6', name)).equals(readFileSync(join(one, 'checkpoint-6', name)))).toBe(
        true,
      )
  })

  test('stops at a loss that is not finite, and changes nothing', async () => {
    const net = new Net(false)
    net.w2 = tensor([Infinity, 1, 1, 1], { shape: [4, 1], dtype: 'float64' })
    const { result, weights } = await trained(net, { optimizer: sharp() })
    expect(result.reason).toBe('nonFinite')
    expect(weights.w1).toEqual([...numbers(1, 12)])
  })

  test('says what is missing when it is given gradients only', () => {
    const net = new Net(false)
    const optimizer = sharp()
    expect(() => optimizer.update(nn.parameters(net), {}, optimizer.init(net))).toThrow(
      /optim.sam.*needs the objective/,
    )
  })

  test('refuses micro-batches of several shapes', async () => {
    const [a] = batches(1, 8)
    const [b] = batches(1, 4)
    const run = train(new Net(false) as never, [{ microBatches: [a, b], tokens: 12 }] as never, {
      optimizer: sharp(),
      steps: 1,
    })
    await expect(Promise.resolve(run)).rejects.toThrow(/micro-batches of one shape/)
  })
})

describe('weights to use that are not those that are trained', () => {
  test('are evaluated, saved and left in the model', async () => {
    const dir = folder()
    const net = new Net(false)
    const optimizer = free()
    const evalData = () => [{ microBatches: batches(1, 8), tokens: 8 }] as never
    const { result, weights } = await trained(net, { optimizer, out: dir, evalData, evalEvery: 6 })
    const file = await openSafetensors(join(dir, 'checkpoint-6', 'model.safetensors'))
    const slots = await openSafetensors(join(dir, 'checkpoint-6', 'optimizer.safetensors'))
    const read = async (from: typeof file, name: string) => {
      const out = new Float64Array(12)
      await from.readInto(name, new Uint8Array(out.buffer))
      return out
    }
    const x = await read(file, 'w1')
    const [y, z] = [await read(slots, 'weights.w1'), await read(slots, 'slots.z.w1')]
    await Promise.all([file.close(), slots.close()])
    expect([...x]).toEqual(weights.w1)
    expect([...x]).not.toEqual([...y])
    // y lies between x and z: y = beta1 x + (1 - beta1) z.
    x.forEach((value, i) => expect(0.9 * value + 0.1 * z[i]).toBeCloseTo(y[i], 12))
    const own = nn.withTensors(net, {})
    const [b] = batches(1, 8)
    const at = { x: tensor(b.x.data, { shape: b.x.shape }), y: tensor(b.y.data, { shape: b.y.shape }) }
    const [loss] = await own.loss(at, new nn.Context()).loss.read()
    expect(result.evalLoss).toBeCloseTo(loss, 12)
  })

  test('do not get into the way of resuming', async () => {
    const [one, two] = [folder(), folder()]
    await trained(new Net(), { optimizer: free(), out: one, saveEvery: 2 })
    await trained(new Net(), { optimizer: free(), out: two, saveEvery: 2, stopAfter: 4 })
    await trained(new Net(), { optimizer: free(), out: two, saveEvery: 2, resume: join(two, 'checkpoint-4') })
    for (const name of readdirSync(join(one, 'checkpoint-6')))
      expect(readFileSync(join(two, 'checkpoint-6', name)).equals(readFileSync(join(one, 'checkpoint-6', name)))).toBe(
        true,
      )
  })
})
