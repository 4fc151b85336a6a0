import { expect, test } from 'vitest'
import { build } from '../../lib/graph/executable.js'
import {
  add,
  avgPool,
  checkpoint,
  conv1d,
  convTranspose1d,
  crossEntropy,
  embedding,
  expandDims,
  linear,
  linearCrossEntropy,
  matmul,
  mean,
  models,
  mul,
  nn,
  perExampleGrads,
  type PerExampleOptions,
  perExampleNorms,
  perExampleProducts,
  random,
  readAll,
  relu,
  reshape,
  slice,
  square,
  sub,
  sum,
  tanh,
  tensor,
  type Tensor,
} from '../../lib/index.js'
import { flatten } from '../../lib/transform/tree.js'
import { trace } from '../../lib/transform/trace.js'

const METHODS = ['auto', 'gram', 'gradients'] as const
const normal = (seed: number, shape: number[]) => random.normal(random.key(seed), shape, { dtype: 'float64' })
const ids = (seed: number, shape: number[], below: number) => random.integers(random.key(seed), shape, 0, below)

/** The gradients themselves, one row of all numbers for every example, by tensor. */
async function rowsOf<P, B>(f: (p: P, e: B) => Tensor, params: P, batch: B): Promise<Float64Array[][]> {
  const tensors = flatten(perExampleGrads(f)(params, batch)).tensors
  const values = await readAll(tensors)
  return values.map((v, i) => {
    const size = tensors[i].size / tensors[i].shape[0]
    return Array.from({ length: tensors[i].shape[0] }, (_, n) =>
      Float64Array.from(v.subarray(n * size, (n + 1) * size) as Float64Array),
    )
  })
}

const dot = (a: Float64Array, b: Float64Array) => a.reduce((s, v, i) => s + v * b[i], 0)

/** Norms and products by every method against the gradients themselves. */
async function holds<P, B>(f: (p: P, e: B) => Tensor, params: P, batch: B, other: B): Promise<void> {
  const [rows, others] = [await rowsOf(f, params, batch), await rowsOf(f, params, other)]
  const close = (got: ArrayLike<number>, want: number[], scale: number) => {
    expect(got.length).toBe(want.length)
    want.forEach((w, i) => expect(Math.abs(got[i] - w)).toBeLessThanOrEqual(1e-10 * scale))
  }
  const table = (a: Float64Array[], b: Float64Array[]) => a.flatMap((x) => b.map((y) => dot(x, y)))
  const sumUp = (tables: number[][]) => tables[0].map((_, i) => tables.reduce((s, t) => s + t[i], 0))
  const largest = (list: number[]) => Math.max(1e-3, ...list.map(Math.abs))
  for (const method of METHODS) {
    const norms = perExampleNorms(f, { method })(params, batch)
    const each = await readAll(flatten(norms.each).tensors)
    each.forEach((got, i) => {
      const want = rows[i].map((r) => Math.sqrt(dot(r, r)))
      close(got as Float64Array, want, largest(want))
    })
    const want = rows[0].map((_, n) => Math.sqrt(rows.reduce((s, r) => s + dot(r[n], r[n]), 0)))
    close((await norms.total.read()) as Float64Array, want, largest(want))
    for (const second of [undefined, other]) {
      const products = perExampleProducts(f, { method })(params, batch, second)
      const tables = rows.map((r, i) => table(r, second ? others[i] : r))
      const got = await readAll(flatten(products.each).tensors)
      got.forEach((g, i) => close(g as Float64Array, tables[i], largest(tables[i])))
      const total = sumUp(tables)
      close((await products.total.read()) as Float64Array, total, largest(total))
    }
  }
}

/** The parameters that are not taken by their gradients, as the plan shows it: no buffer has the size of N gradients. */
const planOf = <P, B>(f: (p: P, e: B) => Tensor, options: PerExampleOptions, params: P, batch: B) =>
  build(trace('plan', (p: P, b: B) => perExampleNorms(f, options)(p, b).total, [params, batch]).graph).plan

const gpt = (time: number, width: number, vocabSize: number, dtype: 'float32' | 'float64') =>
  new models.GPT2({ vocabSize, context: time, layers: 2, heads: 2, width, dtype, seed: 3 })

type Tokens = { inputIds: Tensor; targets: Tensor }
const gptLoss = (model: models.GPT2, { inputIds, targets }: Tokens) =>
  model.loss({ inputIds: expandDims(inputIds, 0), targets: expandDims(targets, 0) }, new nn.Context()).loss
const tokens = (seed: number, n: number, time: number, vocab: number): Tokens => ({
  inputIds: ids(seed, [n, time], vocab),
  targets: ids(seed + 1, [n, time], vocab),
})

test('a GPT-2: tied embeddings, norms, biases, attention, the fused loss', async () => {
  const model = gpt(5, 8, 40, 'float64')
  await holds(gptLoss, model, tokens(1, 3, 5, 40), tokens(5, 2, 5, 40))
})

test('examples of another length in the second batch', async () => {
  const model = gpt(12, 8, 40, 'float64')
  await holds(gptLoss, model, tokens(1, 2, 4, 40), tokens(5, 2, 12, 40))
})

class Net extends nn.Module {
  first = new nn.Conv2d(4, 6, 3, { stride: 2, padding: 1, groups: 2, dtype: 'float64' })
  norm = new nn.GroupNorm(3, 6, { dtype: 'float64' })
  second = new nn.Conv2d(6, 4, [3, 2], { dilation: 2, bias: false, dtype: 'float64' })
  out = new nn.Linear(4, 5, { dtype: 'float64' })
  forward(x: Tensor): Tensor {
    const h = relu(this.norm.forward(this.first.forward(x)))
    const y = tanh(this.second.forward(h))
    return this.out.forward(mean(reshape(y, [y.shape[0], 4, -1]), { axis: 2 }))
  }
}
type Image = { x: Tensor; label: Tensor }
const images = (seed: number, n: number): Image => ({ x: normal(seed, [n, 4, 13, 11]), label: ids(seed, [n], 5) })

test('a CNN: groups, stride, dilation, padding', async () => {
  const loss = (net: Net, { x, label }: Image) => crossEntropy(net.forward(expandDims(x, 0)), expandDims(label, 0))
  await holds(loss, new Net(), images(1, 3), images(2, 2))
})

test('convolutions over one axis, there and back with the same weight, and with groups that do not agree', async () => {
  const params = { w: normal(7, [4, 4, 3]), v: normal(6, [4, 2, 3]) }
  const loss = (p: typeof params, x: Tensor) => {
    const y = conv1d(expandDims(x, 0), p.w, { padding: 'same' })
    const z = convTranspose1d(conv1d(avgPool(tanh(y), { size: 2 }), p.w, { stride: 2 }), p.w, { stride: 2 })
    const grouped = conv1d(convTranspose1d(z, p.v, { groups: 2 }), p.v, { groups: 2, dilation: 2 })
    // The same numbers as a matrix: no convolution sees them so.
    return add(
      sum(square(grouped)),
      sum(square(matmul(reshape(p.v, [4, 6]), reshape(slice(x, [null, [0, 6]]), [6, 4])))),
    )
  }
  await holds(loss, params, normal(8, [2, 4, 13]), normal(9, [3, 4, 13]))
})

test('a weight from both sides, repeated along a batch, within a checkpoint, and one that is of no use', async () => {
  const params = { w: normal(1, [4, 4]), v: normal(2, [4, 4]), table: normal(3, [6, 4]), idle: normal(4, [2]), n: 3 }
  type P = typeof params
  const loss = (p: P, x: Tensor) => {
    const left = matmul(p.w, reshape(x, [3, 4, 2]))
    const right = matmul(reshape(x, [3, 2, 4]), p.w)
    const inner = checkpoint((v: Tensor, t: Tensor) => checkpoint((u: Tensor) => tanh(linear(t, u)))(v))
    const seen = embedding(p.table, tensor(Int32Array.of(0, 5, 0)))
    const back = matmul(seen, matmul(p.w, p.v))
    return add(add(sum(square(left)), sum(square(inner(p.v, right)))), mul(sum(square(back)), mean(x)))
  }
  await holds(loss, params, normal(5, [3, 24]), normal(6, [2, 24]))
})

test('a tensor that stands at two places of the parameters is one parameter', async () => {
  const shared = normal(1, [5, 3])
  const twice = { a: shared, b: shared, steps: tensor(Int32Array.of(7)) }
  const loss = (p: { a: Tensor; b: Tensor }, id: Tensor) =>
    linearCrossEntropy(expandDims(embedding(p.a, id), 0), p.b, expandDims(id, 0))
  const batch = ids(2, [4], 5)
  const norms = perExampleNorms(loss, { method: 'gram' })(twice, batch)
  const once = perExampleNorms((p: { a: Tensor }, id: Tensor) => loss({ a: p.a, b: p.a }, id))({ a: shared }, batch)
  const [total, wanted, a, b, steps] = await readAll([
    norms.total,
    once.total,
    norms.each.a,
    norms.each.b,
    norms.each.steps,
  ])
  expect([...total].map((v) => v.toFixed(10))).toEqual([...wanted].map((v) => v.toFixed(10)))
  expect([...a]).toEqual([...total])
  expect([...b]).toEqual([...total])
  expect([...steps]).toEqual([0, 0, 0, 0])
})

test('a convolution goes by factors: no buffer of its plan holds the gradients of all examples', () => {
  const n = 8
  const net = new nn.Conv2d(32, 64, 3, { stride: 2 })
  const loss = (c: nn.Conv2d, x: Tensor) => sum(square(c.forward(expandDims(x, 0))))
  const x = random.normal(random.key(1), [n, 32, 9, 9])
  const [auto, gram, gradients] = METHODS.map((method) => planOf(loss, { method }, net, x).arenaBytes)
  expect(gradients).toBeGreaterThan(4 * n * net.weight.size)
  expect(auto).toBe(gram)
  expect(auto).toBeLessThan(0.75 * gradients)
})

test('float32 and bfloat16 models give float32 norms', async () => {
  for (const [dtype, bound] of [
    ['float32', 1e-5],
    ['bfloat16', 0.03],
  ] as const) {
    const w = normal(1, [32, 16])
    const x = normal(2, [3, 4, 16])
    const loss = (p: Tensor, e: Tensor) => sum(square(tanh(linear(e, p))))
    const [want] = await readAll([perExampleNorms(loss)(w, x).total])
    const norms = perExampleNorms(loss)(w.cast(dtype), x.cast(dtype)).total
    expect(norms.dtype).toBe('float32')
    ;(await norms.read()).forEach((v, i) => expect(Math.abs(Number(v) / Number(want[i]) - 1)).toBeLessThan(bound))
  }
})

test('the plan holds no gradient of every example: its peak is far below that of the gradients', () => {
  const [n, time, width, vocab] = [32, 8, 128, 512]
  const model = gpt(time, width, vocab, 'float32')
  const batch = tokens(1, n, time, vocab)
  const [auto, gram, gradients] = METHODS.map((method) => planOf(gptLoss, { method }, model, batch).arenaBytes)
  // The gradients of one weight, 512 × 128, of all examples.
  expect(gradients).toBeGreaterThan(4 * n * vocab * width)
  expect(auto).toBeLessThan(0.25 * gradients)
  expect(gram).toBeLessThan(0.25 * gradients)
  // Where an example has more positions than its gradient has numbers, the gradient itself is what holds less.
  const long = gpt(256, 8, 16, 'float32')
  const rows = tokens(2, 4, 256, 16)
  const [chosen, forced, made] = METHODS.map((method) => planOf(gptLoss, { method }, long, rows).arenaBytes)
  expect(chosen).toBe(made)
  expect(forced).toBeGreaterThan(made)
})

test('what is wrong is said', () => {
  const loss = (p: Tensor, x: Tensor) => sum(mul(p, x))
  expect(() => perExampleNorms(loss, { method: 'grams' as 'gram' })).toThrow(/auto, gram or gradients/)
  expect(() => perExampleNorms(mul)(normal(1, [2]), normal(2, [3, 2]))).toThrow(/one float number/)
  expect(() => perExampleNorms((_: { n: number }, x: Tensor) => sum(x))({ n: 1 }, normal(1, [2]))).toThrow(
    /at least one float tensor/,
  )
  expect(() => perExampleProducts(loss)(normal(1, [2]), sub(normal(2, [3, 2]), 1), normal(3, [3, 4]))).toThrow(/mul/)
})
