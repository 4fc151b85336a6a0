import { describe, expect, test } from 'vitest'
import { grad, matmul, memory, models, nn, optim, take, tensor, type Tensor } from '../../lib/index.js'
import { kmeans, groupRows } from '../../lib/memory/codebook.js'
import { decoded, packed } from '../../lib/memory/coded.js'
import { codebookGradient, mappingGradient, reconstruction } from '../../lib/memory/jlcm-learn.js'
import { train } from '../../lib/train/train.js'
import { far, item } from './steps.js'
import { batches, Net, numbers } from './training.js'

const given = (net: Net, n = 3) =>
  batches(n, 32, 1, net.dtype).map(({ x, y }) => ({
    x: tensor(x.data, { shape: x.shape }),
    y: tensor(y.data, { shape: y.shape }),
  }))

describe('codebooks', () => {
  test('k-means is a fixed point: centres are means, each number has the nearest', () => {
    const values = numbers(3, 200)
    const { centers, codes } = kmeans(values, 8)
    const nearest = Uint8Array.from(values, (v) =>
      centers.reduce((best, c, k) => (Math.abs(c - v) < Math.abs(centers[best] - v) ? k : best), 0),
    )
    expect(codes).toEqual(nearest)
    centers.forEach((c, k) => {
      const own = values.filter((_, i) => codes[i] === k)
      expect(own.length).toBeGreaterThan(0)
      expect(own.reduce((a, b) => a + b, 0) / own.length).toBeCloseTo(c, 12)
    })
  })

  test('k-means fills empty clusters, as far as there are numbers', () => {
    const { centers, codes } = kmeans([0, 0, 0, 0, 0, 0, 0, 1, 5], 4)
    const back = [...codes].map((c) => centers[c])
    expect(back).toEqual([0, 0, 0, 0, 0, 0, 0, 1, 5])
  })

  test('groups are of like size and ordered by spread', () => {
    const rows = Float64Array.from({ length: 40 }, (_, i) => numbers(1, 40)[i] * (1 + Math.floor(i / 4)))
    expect([...groupRows(rows, 10, 3)].sort()).toEqual([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    const spread = (i: number) => {
      const own = [...rows.subarray(4 * i, 4 * i + 4)]
      const mean = own.reduce((a, b) => a + b) / 4
      return own.reduce((s, v) => s + (v - mean) ** 2, 0)
    }
    const of = groupRows(rows, 10, 3)
    for (let i = 0; i < 10; i++)
      for (let j = 0; j < 10; j++) if (of[i] < of[j]) expect(spread(i)).toBeLessThanOrEqual(spread(j))
  })

  test.each([1, 2, 3, 4])('codes of %i bits come back from their planes', async (bits) => {
    const codes = Uint8Array.from({ length: 35 }, (_, i) => (i * 7 + (i >> 2)) % 2 ** bits)
    const planes = packed(codes, bits)
    expect(planes.shape).toEqual([bits, 5])
    const groups = tensor(Uint8Array.of(0, 1, 1, 0, 1), { dtype: 'uint8' })
    const codebooks = tensor(numbers(5, 2 * 2 ** bits), { shape: [2, 2 ** bits] })
    const books = numbers(5, 2 * 2 ** bits)
    const expected = Array.from(codes, (c, i) => books[[0, 1, 1, 0, 1][Math.floor(i / 7)] * 2 ** bits + c])
    const rows = decoded({ planes, groups, codebooks }, { shape: [5, 7], dtype: 'float64', flipped: false })
    expect(far(await rows.read(), expected)).toBe(0)
    const columns = decoded({ planes, groups, codebooks }, { shape: [7, 5], dtype: 'float64', flipped: true })
    expect(far(await columns.transpose().read(), expected)).toBe(0)
  })
})

describe('learning', () => {
  const x = tensor(numbers(2, 60), { shape: [12, 5] })
  const group = { weights: tensor(numbers(1, 15), { shape: [3, 5] }), moments: matmul(x.transpose(), x).div(12) }
  const codes = tensor(
    Int32Array.from({ length: 15 }, (_, i) => (i * 5) % 4),
    { shape: [3, 5] },
  )
  const codebook = tensor(Float64Array.of(-0.9, -0.2, 0.3, 1.1))

  test('the loss is that of the outputs, the codebook’s gradient that of finite differences', async () => {
    const outputs = (c: Tensor) => matmul(x, take(c, codes).sub(group.weights).transpose()).square().sum().div(12)
    const { loss, grad: g } = reconstruction(group, { codebook, codes })
    expect(await item(loss)).toBeCloseTo(await item(outputs(codebook)), 12)
    const own = await codebookGradient(g, { codebook, codes }).read()
    expect(far(own, await grad(outputs)(codebook).read())).toBeLessThan(1e-12)
    for (let k = 0; k < 4; k++) {
      const moved = (h: number) => {
        const list = [-0.9, -0.2, 0.3, 1.1]
        list[k] += h
        return item(outputs(tensor(Float64Array.from(list))))
      }
      expect(Number(own[k])).toBeCloseTo(((await moved(1e-5)) - (await moved(-1e-5))) / 2e-5, 7)
    }
  })

  test('scores: straight through grows with the distance of a code, proximal falls, both with its sign', async () => {
    const { grad: g } = reconstruction(group, { codebook, codes })
    const through = await mappingGradient(g, { codebook, codes }, 'straightThrough').read()
    const near = await mappingGradient(g, { codebook, codes }, 'proximal').read()
    const by = await g.read()
    const at = await codes.read()
    const list = [-0.9, -0.2, 0.3, 1.1]
    const gap = 2 / 3
    for (let i = 0; i < 15; i++)
      for (let k = 0; k < 4; k++) {
        const d = list[k] - list[Number(at[i])]
        expect(Number(through[4 * i + k])).toBeCloseTo(Number(by[i]) * d, 12)
        const expected = Number(by[i]) * Math.sign(d) * Math.exp(-Math.abs(d) / gap)
        expect(Number(near[4 * i + k])).toBeCloseTo(expected, 12)
      }
  })
})

describe('jlcm', () => {
  test('is as far from the model as it says, nearer than k-means, and runs', async () => {
    const net = new Net()
    const small = await memory.jlcm(net, { bits: 2, groups: 2, calibration: given(net), steps: 80 })
    expect(Object.keys(small.weights)).toEqual(['first.weight', 'second.weight', 'third.weight'])
    const plain = await memory.jlcm(net, { bits: 2, groups: 2, calibration: given(net), steps: 0 })
    const xs = given(net).map((b) => b.x)
    const errorOf = async (model: Net) => {
      let [away, power] = [0, 0]
      for (const x of xs) {
        const [a, b] = [matmul(x, model.first.weight), matmul(x, net.first.weight)]
        away += await item(a.sub(b).square().sum())
        power += await item(b.square().sum())
      }
      return away / power
    }
    const { start, error } = small.report['first.weight']
    expect(await errorOf(small.decoded())).toBeCloseTo(error, 10)
    expect(await errorOf(plain.decoded())).toBeCloseTo(start, 10)
    for (const name of Object.keys(small.weights)) {
      expect(small.report[name].start).toBeCloseTo(plain.report[name].error, 12)
      expect(small.report[name].error).toBeLessThan(0.8 * small.report[name].start)
    }
    const batch = given(net, 1)[0]
    const ctx = new nn.Context()
    expect(await item(small.loss(batch as never, ctx).loss)).toBe(await item(small.decoded().loss(batch).loss))
    // 2 bits a number in whole bytes, a byte a row, a codebook of 4 a group.
    const sizes = [
      [60, 10],
      [80, 8],
      [96, 12],
    ]
    expect(small.bytes).toBe(sizes.reduce((n, [all, rows]) => n + 2 * Math.ceil(all / 8) + rows + 2 * 4 * 8, 0))
  })

  test('more groups and more bits are nearer, and the same call gives the same codes', async () => {
    const net = new Net()
    const at = async (bits: number, groups: number) => {
      const small = await memory.jlcm(net, { bits, groups, calibration: given(net), steps: 0, match: /second/ })
      return small.report['second.weight'].error
    }
    expect(await at(3, 1)).toBeLessThan(await at(2, 1))
    expect(await at(2, 8)).toBeLessThan(await at(2, 1))
    expect(await at(2, 2)).toBe(await at(2, 2))
  })

  test('codebooks train, codes stay, and nothing is left of the matrices', async () => {
    const net = new Net('float32')
    const small = await memory.jlcm(net, { bits: 2, groups: 2, calibration: given(net), steps: 5 })
    expect(Object.keys(nn.parameters(small))).toEqual(
      ['first', 'second', 'third'].map((n) => `weights.${n}.weight.codebooks`),
    )
    expect(small.base.first.weight.size).toBe(0)
    const before = await small.weights['first.weight'].planes.read()
    const loss = async () => item(small.loss(given(net, 1)[0] as never, new nn.Context()).loss)
    const start = await loss()
    const data = Array.from({ length: 30 }, () => ({ microBatches: [batches(1, 32, 1, 'float32')[0]], tokens: 32 }))
    await train(small as never, data as never, { optimizer: optim.adam({ lr: 0.01 }), steps: 30 })
    expect(await loss()).toBeLessThan(start)
    expect(await small.weights['first.weight'].planes.read()).toEqual(before)
  })

  test('takes the matrices of a GPT-2 and, where told, its table', async () => {
    const gpt = new models.GPT2({ vocabSize: 31, context: 8, layers: 1, heads: 2, width: 16 })
    const ids = tensor(
      Int32Array.from({ length: 16 }, (_, i) => (i * 7) % 31),
      { shape: [2, 8] },
    )
    const batch = { inputIds: ids, labels: ids }
    const small = await memory.jlcm(gpt, { bits: 4, groups: 4, calibration: [batch], steps: 20, match: /weight|wpe/ })
    expect(Object.keys(small.weights)).toHaveLength(6)
    const loss = async (m: { loss(b: never, c: nn.Context): { loss: Tensor } }) =>
      item(m.loss(batch as never, new nn.Context()).loss)
    expect(Math.abs((await loss(small)) - (await loss(gpt)))).toBeLessThan(0.1)
    for (const { error } of Object.values(small.report)) expect(error).toBeLessThan(0.02)
  })

  test('says what is wrong', async () => {
    const net = new Net()
    await expect(memory.jlcm(net, { calibration: [] })).rejects.toThrow(/`calibration`/)
    await expect(memory.jlcm(net, { calibration: given(net), bits: 5 })).rejects.toThrow(/`bits`/)
    await expect(memory.jlcm(net, { calibration: given(net), match: /nothing/ })).rejects.toThrow(/takes none/)
    await expect(memory.jlcm(net, { calibration: given(net), mapping: 'far' as never })).rejects.toThrow(/`mapping`/)
  })
})
