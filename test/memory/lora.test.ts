import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  grad,
  matmul,
  memory,
  models,
  mul,
  nn,
  optim,
  sub,
  sum,
  tensor,
  type Tensor,
  valueAndGrad,
} from '../../lib/index.js'
import { train } from '../../lib/train/train.js'
import { batches, filesOf, folder, Net, numbers } from './training.js'
import { far, item } from './steps.js'

const ctx = () => new nn.Context({ training: true })
const at = (net: Net) => {
  const { x, y } = batches(1, 16, 1, net.dtype)[0]
  return { x: tensor(x.data, { shape: x.shape }), y: tensor(y.data, { shape: y.shape }) }
}

/** The same with numbers in the place of the zeros that B begins with. */
function stirred<M extends Net>(adapted: memory.Lora<M>): memory.Lora<M> {
  const named = nn.parameters(adapted)
  const some = Object.entries(named).flatMap(([name, t], i) =>
    name.endsWith('.b') ? [[name, tensor(numbers(90 + i, t.size), { dtype: t.dtype, shape: t.shape })] as const] : [],
  )
  return nn.withTensors(adapted, Object.fromEntries(some))
}

describe('LoRA', () => {
  test('begins as the model, and is what it is merged to', async () => {
    const net = new Net()
    const adapted = memory.lora(net, { rank: 3 })
    const before = await item(net.loss(at(net)).loss)
    expect(await item(adapted.loss(at(net) as never, ctx()).loss)).toBeCloseTo(before, 14)
    const other = stirred(adapted)
    const loss = await item(other.loss(at(net) as never, ctx()).loss)
    expect(Math.abs(loss - before)).toBeGreaterThan(1e-3)
    expect(await item(other.merged().loss(at(net)).loss)).toBeCloseTo(loss, 12)
  })

  test('has the gradients of W + scale · B·A', async () => {
    const net = new Net()
    const adapted = stirred(memory.lora(net, { rank: 2, alpha: 3 }))
    const grads = grad((p: Record<string, Tensor>) => nn.withTensors(adapted, p).loss(at(net) as never, ctx()).loss)(
      nn.parameters(adapted),
    )
    const whole = nn.withTensors(adapted.merged(), {})
    const dense = grad((p: Record<string, Tensor>) => nn.withTensors(whole, p).loss(at(net)).loss)(nn.parameters(whole))
    for (const [name, { a, b }] of Object.entries(adapted.additions)) {
      const g = dense[name]
      const [ga, gb] = [mul(matmul(b.transpose(), g), 1.5), mul(matmul(g, a.transpose()), 1.5)]
      for (const [own, expected] of [
        [grads[`additions.${name}.a`], ga],
        [grads[`additions.${name}.b`], gb],
      ])
        expect(await item(sum(sub(own, expected).square()))).toBeLessThan(1e-24)
    }
  })

  test.each([false, true])('scales by the rank or its root (%s)', async (stabilized) => {
    const net = new Net()
    const { scale } = memory.lora(net, { rank: 4, alpha: 6, stabilized })
    expect(scale).toBe(stabilized ? 3 : 1.5)
  })

  test('trains additions only, and what it is told to', async () => {
    const net = new Net('float32')
    const adapted = memory.lora(net, { rank: 2, train: /head|bias/ })
    expect(Object.keys(nn.parameters(adapted))).toEqual([
      ...['first.weight', 'second.weight', 'third.weight'].flatMap((n) => [`additions.${n}.a`, `additions.${n}.b`]),
      'trained.first.bias',
      'trained.head.weight',
    ])
    const [start] = batches(1, 16, 1, 'float32')
    const data = Array.from({ length: 40 }, () => ({ microBatches: [start], tokens: 16 }))
    const before = await item(net.loss(at(net)).loss)
    await train(adapted as never, data as never, { optimizer: optim.adamw({ lr: 0.02 }), steps: 40 })
    const merged = adapted.merged()
    expect(await item(merged.loss(at(net)).loss)).toBeLessThan(0.7 * before)
    const fresh = nn.parameters(new Net('float32'))
    for (const [name, t] of Object.entries(nn.parameters(net))) {
      const now = nn.parameters(merged)[name]
      const was = await fresh[name].read()
      const moved = far(await now.read(), was)
      if (name === 'frozen') expect(moved).toBe(0)
      else expect(moved).toBeGreaterThan(1e-4)
      // Of the model itself, only what it was told to train.
      if (!/head|bias/.test(name)) expect(far(await t.read(), was)).toBe(0)
    }
  })

  test('resumes to the same bits, with dropout', async () => {
    const [one, two] = [folder(), folder()]
    const run = async (seed: number, out: string, more: object) => {
      const all = batches(6, 16, 1, 'float32')
      const n = { at: 0 }
      const source = {
        next: () => (n.at < 6 ? { microBatches: [all[n.at++]], tokens: 16 } : null),
        state: () => n.at,
        restore: (to: unknown) => void (n.at = to as number),
      }
      const adapted = memory.lora(new Net('float32', seed), { rank: 2, dropout: 0.2, seed })
      await train(adapted as never, source as never, {
        optimizer: optim.adamw({ lr: 0.02 }),
        steps: 6,
        out,
        saveEvery: 3,
        ...more,
      })
    }
    await run(0, one, {})
    await run(0, two, { stopAfter: 3 })
    await run(4, two, { resume: join(two, 'checkpoint-3') })
    expect(filesOf(join(two, 'checkpoint-6'))).toEqual(filesOf(join(one, 'checkpoint-6')))
  })

  test('has states for rank · (rows + columns) numbers', () => {
    const net = new Net('float32')
    const bytes = optim.adamw().stateBytes(memory.lora(net, { rank: 2 }))
    const n = 2 * (6 + 10 + (10 + 8) + (8 + 12))
    expect(bytes).toEqual({ m: 4 * n, v: 4 * n })
  })

  test('goes into the layers of a GPT-2, and out again as a GPT-2', async () => {
    const gpt = new models.GPT2({ vocabSize: 31, context: 8, layers: 2, heads: 2, width: 16, dtype: 'float64' })
    const adapted = memory.lora(gpt, { rank: 2 })
    expect(Object.keys(adapted.additions)).toHaveLength(8)
    const ids = tensor(
      Int32Array.from({ length: 16 }, (_, i) => (i * 7) % 31),
      { shape: [2, 8] },
    )
    const batch = { inputIds: ids, labels: ids }
    const [loss, grads] = valueAndGrad(
      (p: Record<string, Tensor>) => nn.withTensors(adapted, p).loss(batch as never, ctx()).loss,
    )(nn.parameters(adapted))
    expect(await item(loss)).toBeCloseTo(await item(gpt.loss(batch, ctx()).loss), 12)
    for (const [name, g] of Object.entries(grads))
      if (name.endsWith('.b')) expect(await item(sum(g.square())), name).toBeGreaterThan(0)
    const out = folder()
    await models.saveModel(out, adapted.merged())
    const again = await models.loadModel<models.GPT2>(out)
    expect(Object.keys(nn.parameters(again))).toEqual(Object.keys(nn.parameters(gpt)))
  })

  test('goes below sampling', async () => {
    const net = new Net('float32')
    const model = memory.sampled(memory.lora(net, { rank: 2 }), { ratio: 0.7, layers: /additions/ })
    const data = batches(30, 16, 1, 'float32', true).map((b) => ({ microBatches: [b], tokens: 16 }))
    const before = await item(net.loss(at(net)).loss)
    await train(model as never, data as never, { optimizer: optim.adamw({ lr: 0.02 }), steps: 30 })
    expect(await item(model.merged().loss(at(net)).loss)).toBeLessThan(0.9 * before)
    expect(() => memory.lora(memory.sampled(net))).toThrow(/sampled\(memory.lora/)
  })

  test('says what it cannot do', () => {
    const net = new Net()
    expect(() => memory.lora(net, { match: /nothing/ })).toThrow(/takes none of these/)
    expect(() => memory.lora(net, { rank: 0 })).toThrow(/`rank`/)
    expect(() => memory.lora(net, { dropout: 1 })).toThrow(/`dropout` must be in/)
    class Gathers {
      table = tensor(numbers(1, 12), { shape: [4, 3] })
      loss({ x }: { x: Tensor }) {
        return { loss: sum(mul(this.table, x)) }
      }
    }
    const odd = memory.lora(new Gathers() as never)
    expect(() => odd.loss({ x: tensor([1]) } as never, ctx())).toThrow(/no product of rows with table/)
  })
})
