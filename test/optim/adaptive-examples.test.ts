import { describe, expect, test } from 'vitest'
import {
  add,
  conv2d,
  crossEntropy,
  embedding,
  linear,
  linearCrossEntropy,
  matmul,
  mean,
  nn,
  optim,
  random,
  readAll,
  relu,
  reshape,
  square,
  sub,
  sum,
  tanh,
  tensor,
  type Tensor,
  valueAndGrad,
} from '../../lib/index.js'
import { HostArray } from '../../lib/train/host.js'
import { Trainer } from '../../lib/train/trainer.js'
import { normals } from './reference.js'

type Batch = Record<string, HostArray>
type Data = Record<string, Tensor>
const f64 = (seed: number, shape: number[], by = 1) =>
  tensor(
    Float64Array.from(
      normals(
        seed,
        shape.reduce((n, d) => n * d, 1),
      ),
      (x) => x * by,
    ),
    { shape },
  )
const host = (seed: number, shape: number[]) =>
  new HostArray(
    Float64Array.from(
      normals(
        seed,
        shape.reduce((n, d) => n * d, 1),
      ),
    ),
    shape,
  )
const whole = (seed: number, shape: number[], below: number) =>
  new HostArray(
    Int32Array.from(
      normals(
        seed,
        shape.reduce((n, d) => n * d, 1),
      ),
      (x) => Math.floor(Math.abs(x * 7919)) % below,
    ),
    shape,
  )

/** Two linear layers with a bias, and dropout between them. */
class Line {
  constructor(dropped = 0) {
    this.drop = new nn.Dropout(dropped)
  }
  w = f64(1, [5, 4])
  bias = f64(2, [4])
  v = f64(3, [1, 4])
  drop: nn.Dropout
  loss({ x, y }: Data, ctx: nn.Context) {
    const h = this.drop.forward(tanh(add(matmul(x, this.w), this.bias)), ctx)
    return { loss: mean(square(sub(linear(h, this.v), y))) }
  }
}

/** A table that is also the last layer, whose loss is divided by the labels of the whole step. */
class Words {
  table = f64(4, [11, 6], 0.5)
  mix = f64(5, [6, 6], 0.5)
  loss({ ids: _, tokens, targets, ...rest }: Data, ctx: nn.Context) {
    const h = tanh(matmul(embedding(this.table, tokens), this.mix))
    const total = sum(linearCrossEntropy(h, this.table, targets, { reduction: 'none' }))
    expect(Object.keys(rest)).toEqual([])
    return { loss: ctx.normalizer ? total.div(ctx.normalizer) : mean(total) }
  }
}

/** A convolution in groups, then a layer on what it gives. */
class Image {
  w = f64(6, [4, 1, 3, 3], 0.4)
  out = f64(7, [3, 64], 0.3)
  loss({ image, label }: Data) {
    const h = relu(conv2d(image, this.w, { groups: 2, padding: 1, stride: 2 }))
    return { loss: crossEntropy(linear(reshape(h, [h.shape[0], -1]), this.out), label) }
  }
}

interface Case {
  make(): { loss(data: never, ctx: nn.Context): { loss: Tensor } }
  batch(rows: number): Batch
  /** Into how many micro-batches the examples are cut; by default 1 and 2. */
  parts?: number[]
  /** Labels of a row, where the loss is divided by those of the step. */
  labels?: number
}
const CASES: Record<string, Case> = {
  'linear layers': {
    make: () => new Line(),
    batch: (n) => ({ x: host(10, [n, 5]), y: host(11, [n, 1]) }),
  },
  // Every micro-batch draws numbers of its own.
  dropout: {
    make: () => new Line(0.3),
    batch: (n) => ({
      x: host(10, [n, 5]),
      y: host(11, [n, 1]),
      ids: new HostArray(Int32Array.from({ length: n }, (_, i) => 7 + i)),
    }),
    parts: [1],
  },
  embeddings: {
    make: () => new Words(),
    batch: (n) => ({ tokens: whole(12, [n, 3], 11), targets: whole(13, [n, 3], 11) }),
    labels: 3,
  },
  convolutions: {
    make: () => new Image(),
    batch: (n) => ({ image: host(14, [n, 2, 8, 8]), label: whole(15, [n], 3) }),
  },
}

const cut = (batch: Batch, from: number, to: number): Batch =>
  Object.fromEntries(
    Object.entries(batch).map(([k, { data, shape }]) => {
      const row = data.length / shape[0]
      return [k, new HostArray(data.slice(from * row, to * row), [to - from, ...shape.slice(1)])]
    }),
  )

interface Options extends optim.AdaptiveBatchOptions {
  base?: optim.Optimizer
}

/** What a step over these micro-batches asks for, and where it leads. */
async function stepped(model: ReturnType<Case['make']>, micro: Batch[], labels: number | undefined, options: Options) {
  const { base = optim.sgd({ lr: 0 }), ...own } = options
  const optimizer = optim.adaptiveBatch(base, own)
  const trainer = new Trainer(model as never, { optimizer, clip: null, seed: 4 })
  await trainer.materialize()
  const normalizer = labels && labels * micro.reduce((n, b) => n + Object.values(b)[0].shape[0], 0)
  const { metrics, loss } = await (await trainer.step(micro, { lr: base.lrAt(1), step: 1, normalizer }))()
  await trainer.publish()
  trainer.close()
  return { needed: metrics.neededBatches, loss }
}

/** Gradients of single examples, one after the other, as one step over each tells them. */
async function gradients(
  make: Case['make'],
  batch: Batch,
  rows: number,
  labels: number | undefined,
): Promise<number[][]> {
  const all: number[][] = []
  for (let i = 0; i < rows; i++) {
    const model = make()
    const before = await readAll(Object.values(nn.parameters(model)))
    const trainer = new Trainer(model as never, { optimizer: optim.sgd({ lr: 1 }), clip: null, seed: 4 })
    await trainer.materialize()
    await (await trainer.step([cut(batch, i, i + 1)], { lr: 1, step: 1, normalizer: labels }))()
    await trainer.publish()
    trainer.close()
    const after = await readAll(Object.values(nn.parameters(model)))
    all.push(before.flatMap((p, k) => Array.from(p, (x, j) => x - after[k][j])))
  }
  return all
}

/** Examples that the test asks for, by the formulas of the paper. */
function asked(g: number[][], test: string, { eta = 0.5, theta = 0.5, nu = 1 }: optim.AdaptiveBatchOptions): number {
  const n = g.length
  const dot = (a: number[], b: number[]) => a.reduce((s, x, i) => s + x * b[i], 0)
  const centre = g[0].map((_, j) => g.reduce((s, row) => s + row[j], 0) / n)
  const size = dot(centre, centre)
  const variance = g.reduce((s, row) => s + row.reduce((t, x, j) => t + (x - centre[j]) ** 2, 0), 0) / (n - 1)
  if (test === 'norm') return variance / (eta ** 2 * size)
  const along = g.map((row) => dot(row, centre))
  const inner = along.reduce((s, x) => s + (x - size) ** 2, 0) / (n - 1)
  const first = inner / (theta ** 2 * size ** 2)
  if (test === 'innerProduct') return first
  const off = g.map((row, i) => row.map((x, j) => x - (along[i] / size) * centre[j]))
  const across = off.reduce((s, row) => s + dot(row, row), 0) / (n - 1)
  return Math.max(first, across / (nu ** 2 * size))
}

const TESTS = ['norm', 'innerProduct', 'augmented'] as const
const strict = { eta: 0.3, theta: 0.4, nu: 0.2 }

describe.each(Object.entries(CASES))(
  'gradients of single examples: %s',
  (_, { make, batch, labels, parts: cuts = [1, 2] }) => {
    test('give what a loop over the examples gives, whatever micro-batches they come in', async () => {
      const rows = 4
      const all = batch(rows)
      const loop = await gradients(make, all, rows, labels)
      for (const kind of TESTS) {
        const wanted = asked(loop, kind, strict)
        for (const parts of cuts) {
          const own = rows / parts
          const micro = Array.from({ length: parts }, (_, i) => cut(all, i * own, (i + 1) * own))
          const { needed } = await stepped(make(), micro, labels, { ...strict, test: kind, estimator: 'examples' })
          expect((needed * own) / wanted, `${kind} ${parts}`).toBeCloseTo(1, 8)
        }
      }
    })
  },
)

describe('what is measured', () => {
  test('moves the weights as without', async () => {
    const { make, batch } = CASES['linear layers']
    const weights = async (optimizer: optim.Optimizer, options?: Options) => {
      const model = make()
      const micro = [cut(batch(6), 0, 3), cut(batch(6), 3, 6)]
      if (options) await stepped(model, micro, undefined, { ...options, base: optimizer })
      else {
        const trainer = new Trainer(model as never, { optimizer, clip: null, seed: 4 })
        await trainer.materialize()
        await (await trainer.step(micro, { lr: optimizer.lrAt(1), step: 1 }))()
        await trainer.publish()
        trainer.close()
      }
      return (await readAll(Object.values(nn.parameters(model)))).flatMap((p) => [...p])
    }
    const plain = optim.sam(optim.sgd({ lr: 0.1 }))
    const want = await weights(plain)
    for (const options of [{ estimator: 'examples', test: 'augmented' }, {}] as const)
      (await weights(plain, options)).forEach((x, i) => expect(x).toBeCloseTo(want[i], 12))
  })

  test('has the mean and the spread of its estimator', async () => {
    // The loss is linear, so gradients are the rows: normal numbers around a mean.
    const [n, k, d, sigma, rounds] = [32, 4, 8, 2, 120]
    class Rows {
      w = f64(1, [d])
      loss({ x }: Data) {
        return { loss: mean(matmul(x, this.w)) }
      }
    }
    for (const [estimator, pieces] of [
      ['examples', n],
      ['microBatches', k],
    ] as const) {
      const optimizer = optim.adaptiveBatch(optim.sgd({ lr: 0 }), { estimator, eta: 1 })
      const trainer = new Trainer(new Rows() as never, { optimizer, clip: null })
      await trainer.materialize()
      const found: number[] = []
      for (let r = 1; r <= rounds; r++) {
        const x = Float64Array.from(normals(r, n * d), (v) => 1 + sigma * v)
        const own = n / k
        const micro = Array.from({ length: k }, (_, i) => ({
          x: new HostArray(x.slice(i * own * d, (i + 1) * own * d), [own, d]),
        }))
        const { metrics } = await (await trainer.step(micro, { lr: 0, step: r }))()
        let size = 0
        for (let j = 0; j < d; j++) {
          let mid = 0
          for (let i = 0; i < n; i++) mid += x[i * d + j] / n
          size += mid * mid
        }
        // Examples that are asked for, times the squared mean: the variance of one.
        found.push(metrics.neededBatches * own * size)
      }
      trainer.close()
      const centre = found.reduce((a, b) => a + b, 0) / rounds
      const variance = found.reduce((s, v) => s + (v - centre) ** 2, 0) / (rounds - 1)
      const theory = (2 * sigma ** 4 * d) / (pieces - 1)
      expect(Math.abs(centre - sigma ** 2 * d)).toBeLessThan(5 * Math.sqrt(theory / rounds))
      // A variance of 120 nearly normal numbers has a relative error of √(2 / 119).
      expect(Math.abs(variance / theory - 1)).toBeLessThan(5 * Math.sqrt(2 / (rounds - 1)))
    }
  })

  test('is measured at the first of every few steps', async () => {
    const optimizer = optim.adaptiveBatch(optim.sgd({ lr: 0 }), { estimator: 'examples', every: 3, test: 'augmented' })
    const { make, batch } = CASES.convolutions
    const trainer = new Trainer(make() as never, { optimizer, clip: null })
    await trainer.materialize()
    const needed: number[] = []
    for (let step = 1; step <= 5; step++)
      needed.push((await (await trainer.step([batch(4)], { lr: 0, step }))()).metrics.neededBatches)
    trainer.close()
    expect(needed[0]).toBeGreaterThan(0)
    expect(needed).toEqual([needed[0], 0, 0, needed[0], 0])
  })

  test('works in a loop of one’s own', async () => {
    const x = random.normal(random.key(1), [7, 3], { dtype: 'float64' })
    const loss = (w: Tensor, rows: Tensor) => mean(square(matmul(rows, w)))
    const one = (w: Tensor, row: Tensor) => square(sum(row.mul(w)))
    const p = { w: f64(2, [3]) }
    const optimizer = optim.adaptiveBatch(optim.sgd({ lr: 0.1 }), { estimator: 'examples', ...strict })
    const objective = optim.objective((q: typeof p) => loss(q.w, x), undefined, {
      batch: x,
      loss: (q, row) => one(q.w, row),
    })
    const { metrics } = optimizer.step!(objective, p, optimizer.init(p))
    const rows = await Promise.all(
      Array.from({ length: 7 }, async (_, i) => {
        const [, g] = valueAndGrad((w: Tensor) => loss(w, x.slice([[i, i + 1]])))(p.w)
        return [...(await g.read())]
      }),
    )
    expect((await metrics!.neededBatches.item()) / (asked(rows, 'norm', strict) / 7)).toBeCloseTo(1, 10)
    const bare = optim.objective((q: typeof p) => loss(q.w, x))
    expect(() => optimizer.step!(bare, p, optimizer.init(p))).toThrow('it must know them')
  })

  test('is refused where examples meet each other, in one sentence', async () => {
    class Normed {
      w = f64(1, [5, 4])
      norm = new nn.BatchNorm(4, { dtype: 'float64' })
      loss({ x }: Data, ctx: nn.Context) {
        return { loss: mean(square(this.norm.forward(matmul(x, this.w), ctx))) }
      }
    }
    const micro = [{ x: host(10, [4, 5]) }]
    await expect(stepped(new Normed(), micro, undefined, { estimator: 'examples' })).rejects.toThrow(
      'the model takes statistics of whole batches',
    )
    const apart = [{ x: host(10, [4, 5]), label: whole(1, [3], 2) }]
    await expect(
      stepped(
        {
          w: f64(1, [5]),
          loss: ({ x }: Data) => ({ loss: mean(x.matmul(tensor(1, { dtype: 'float64' }).broadcastTo([5]))) }),
        } as never,
        apart,
        undefined,
        { estimator: 'examples' },
      ),
    ).rejects.toThrow('along its first axis')
    expect(() => optim.adaptiveBatch(optim.sgd(), { estimator: 'rows' as 'examples' })).toThrow('`estimator`')
    expect(() => optim.adaptiveBatch(optim.sgd(), { every: 0 })).toThrow('`every`')
  })
})
