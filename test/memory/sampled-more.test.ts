import { describe, expect, test } from 'vitest'
import { memory, nn, optim } from '../../lib/index.js'
import { schedule } from '../../lib/graph/graph.js'
import { Context } from '../../lib/nn/module.js'
import {
  add,
  layerNorm,
  matmul,
  mean,
  mul,
  relu,
  softmax,
  square,
  sub,
  type Tensor,
  tanh,
  tensor,
} from '../../lib/ops/index.js'
import { random } from '../../lib/ops/random.js'
import { HostArray } from '../../lib/train/host.js'
import { type Trainable, Trainer } from '../../lib/train/trainer.js'
import { noise } from '../ops/differences.js'
import { expectMean, gradients } from './sampled-mean.js'

const numbers = (shape: number[], seed: number) =>
  tensor(
    noise(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    { shape, dtype: 'float64' },
  )
const batch = { x: numbers([2, 20, 6], 1), y: numbers([2, 20, 6], 2) }
type Batch = typeof batch
const training = () => new Context({ training: true, key: random.key(3) })
const opsOf = (t: Tensor) => schedule([t]).map((node) => node.op.name)

/** Attention that is written with products. */
class Attention extends nn.Module {
  q = new nn.Linear(6, 6, { key: random.key(1), dtype: 'float64' })
  k = new nn.Linear(6, 6, { key: random.key(2), dtype: 'float64' })
  v = new nn.Linear(6, 6, { key: random.key(3), dtype: 'float64' })
  loss({ x, y }: Batch): { loss: Tensor } {
    const [q, k, v] = [this.q, this.k, this.v].map((layer) => layer.forward(mul(x, 2)))
    const scores = softmax(matmul(q, k.swapAxes(1, 2)))
    return { loss: mean(square(sub(matmul(scores, v), y))) }
  }
}

describe('products of activations, on request', () => {
  const net = new Attention()
  const model = memory.sampled(net, { ratio: 0.6, attention: true })

  test('are exact in value and have the exact gradients as their mean', async () => {
    const [exact, sampled] = [await gradients(net, batch), await gradients(model, batch)]
    expect(sampled.loss).toBe(exact.loss)
    // The bias of a linear layer hears of the gradient that comes back through both products.
    expect(sampled.grads['q.bias']).not.toEqual(exact.grads['q.bias'])
    await expectMean(model, net, ['q.weight', 'k.weight', 'v.weight', 'q.bias', 'v.bias'], batch)
  })

  test('are left alone where nobody asks', () => {
    const plain = memory.sampled(net, { ratio: 0.6 })
    expect(opsOf(plain.loss(batch as never, training()).loss)).not.toContain('sampledPair')
    expect(opsOf(model.loss(batch as never, training()).loss).filter((name) => name === 'sampledPair')).toHaveLength(2)
    const alone = memory.sampled(net, { ratio: 0.6, attention: true, layers: () => false })
    expect(opsOf(alone.loss(batch as never, training()).loss)).not.toContain('sampledProduct')
  })

  test('keep rows and columns instead of operands that nothing else needs', () => {
    class Scores extends nn.Module {
      q = Array.from({ length: 6 }, () => new nn.Linear(256, 256))
      k = Array.from({ length: 6 }, () => new nn.Linear(256, 256))
      loss({ x }: { x: Tensor }): { loss: Tensor } {
        const scores = this.q.map((q, i) => matmul(q.forward(x), this.k[i].forward(x).swapAxes(1, 2)))
        return { loss: scores.map((s) => mean(square(s))).reduce((a, b) => add(a, b)) }
      }
    }
    const peak = (m: Trainable) => {
      const trainer = new Trainer(m, { optimizer: optim.sgd({ lr: 0.1 }), clip: null, device: 'null' })
      const [plan] = trainer.plan({ x: new HostArray(new Float32Array(8 * 64 * 256), [8, 64, 256]) })
      trainer.close()
      return plan.arenaBytes
    }
    // Twelve operands of 8 × 64 × 256 floats, three quarters of which are not kept.
    const saved = 12 * 0.75 * 8 * 64 * 256 * 4
    const some = { ratio: 0.25, attention: true, cache: 0, layers: () => false }
    expect(peak(new Scores()) - peak(memory.sampled(new Scores(), some))).toBeGreaterThan(0.7 * saved)
  })
})

/** A residual branch between two layers. */
class Branched extends nn.Module {
  before = new nn.Linear(6, 8, { key: random.key(4), dtype: 'float64' })
  up = new nn.Linear(8, 16, { key: random.key(5), dtype: 'float64' })
  down = new nn.Linear(16, 8, { key: random.key(6), dtype: 'float64' })
  after = new nn.Linear(8, 6, { key: random.key(7), dtype: 'float64' })
  scale = numbers([8], 8)
  constructor(readonly options: memory.SampledBranchOptions | null) {
    super()
  }
  loss({ x, y }: Batch, ctx: Context): { loss: Tensor } {
    const h = this.before.forward(x)
    const branch = (rows: Tensor) => this.down.forward(relu(this.up.forward(layerNorm(mul(rows, this.scale)))))
    const fed = this.options ? memory.sampledBranch(branch, this.options)(h, ctx) : branch(h)
    return { loss: mean(square(sub(this.after.forward(add(h, fed)), y))) }
  }
}

describe('memory.sampledBranch', () => {
  const names = ['before.weight', 'before.bias', 'up.weight', 'up.bias', 'down.weight', 'scale', 'after.weight']

  test.each(['systematic', 'replacement'] as const)(
    'with %s draws: the value is exact, and every gradient has the exact one as its mean',
    async (draw) => {
      const [net, model] = [new Branched(null), new Branched({ ratio: 0.3, draw })]
      const [exact, sampled] = [await gradients(net, batch), await gradients(model, batch)]
      expect(sampled.loss).toBe(exact.loss)
      expect(sampled.grads['before.weight']).not.toEqual(exact.grads['before.weight'])
      await expectMean(model, net, names, batch)
    },
  )

  test('is the branch itself where all rows are kept, and at evaluation', async () => {
    const exact = await gradients(new Branched(null), batch)
    expect((await gradients(new Branched({ ratio: 1 }), batch)).grads).toEqual(exact.grads)
    const evaluated = new Branched({ ratio: 0.3 }).loss(batch, new Context()).loss
    expect(opsOf(evaluated)).not.toContain('sampledBranch')
  })

  test('refuses a branch that looks at other rows', () => {
    const across = memory.sampledBranch((x) => mean(x, { axis: 0, keepDims: true }), { ratio: 0.3 })
    expect(() => across(numbers([40, 6], 1), training())).toThrow('each row for itself')
    expect(() => memory.sampledBranch(relu, { ratio: 2 })).toThrow('`ratio` must be in (0, 1]')
  })

  test('keeps the inputs of its rows alone', () => {
    const wide = (ratio: number) => {
      class Deep extends nn.Module {
        up = Array.from({ length: 4 }, () => new nn.Linear(64, 512))
        down = Array.from({ length: 4 }, () => new nn.Linear(512, 64))
        loss({ x }: { x: Tensor }, ctx: Context): { loss: Tensor } {
          const y = this.up.reduce(
            (h, up, i) =>
              add(h, memory.sampledBranch((r) => this.down[i].forward(tanh(up.forward(r))), { ratio })(h, ctx)),
            x,
          )
          return { loss: mean(square(y)) }
        }
      }
      const trainer = new Trainer(new Deep(), { optimizer: optim.sgd({ lr: 0.1 }), clip: null, device: 'null' })
      const [plan] = trainer.plan({ x: new HostArray(new Float32Array(2048 * 64), [2048, 64]) })
      trainer.close()
      return plan.arenaBytes
    }
    // Four hidden activations of 2048 × 512 floats, of which one is there at a time, and a quarter of one again.
    expect(wide(0.25)).toBeLessThan(0.5 * wide(1))
  })
})
