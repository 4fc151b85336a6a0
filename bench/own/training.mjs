// A work of bench/works.mjs, trained by steepest; see bench/harness.mjs for what it reads and writes.
// `training.mjs WORK DTYPE THREADS FILE`, or `--init WORK FOLDER`: writes the weights that all programs begin with.
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { native } from '../../dist/addon.js'
import * as steepest from '../../dist/index.js'
import { HostArray } from '../../dist/train/host.js'
import { Trainer } from '../../dist/train/trainer.js'
import { lateness } from '../lateness.mjs'
import { BATCHES, batchOf, CNN_WIDTHS, WORKS } from '../works.mjs'
import { resident } from '../resident.mjs'

const { crossEntropy, io, models, nn, optim, relu, reshape } = steepest

class Net extends nn.Module {
  constructor(dtype) {
    super()
    const pairs = CNN_WIDTHS.slice(1).map((w, i) => [CNN_WIDTHS[i], w])
    this.convs = pairs.map(([from, to]) => new nn.Conv2d(from, to, 3, { padding: 1, bias: false, dtype }))
    this.norms = pairs.map(([, to]) => new nn.BatchNorm(to, { dtype }))
    this.head = new nn.Linear(CNN_WIDTHS.at(-1), 10, { dtype })
    this.pool = new nn.MaxPool2d(2)
    this.mean = new nn.AdaptiveAvgPool()
  }
  forward(x, ctx) {
    this.convs.forEach((conv, i) => {
      x = relu(this.norms[i].forward(conv.forward(x), ctx))
      if (i === 1 || i === 3) x = this.pool.forward(x)
    })
    return this.head.forward(reshape(this.mean.forward(x), [x.shape[0], CNN_WIDTHS.at(-1)]))
  }
}

class Perceptron extends nn.Module {
  constructor(widths, dtype) {
    super()
    this.layers = widths.slice(1).map((w, i) => new nn.Linear(widths[i], w, { dtype }))
  }
  forward(x) {
    return this.layers.reduce((h, layer, i) => layer.forward(i === 0 ? h : relu(h)), x)
  }
}

/** A net of images or rows with a loss over ten classes. */
class Classes extends nn.Module {
  constructor(net, dtype) {
    super()
    Object.assign(this, { net })
    this.dtype = dtype
  }
  loss({ x, labels }, ctx) {
    return { loss: crossEntropy(this.net.forward(x.cast(this.dtype), ctx).cast('float32'), labels) }
  }
}

const BERT = {
  positions: 512,
  types: 2,
  activation: 'gelu',
  eps: 1e-12,
  dropout: 0,
  padId: 0,
  task: 'sequence',
  classes: 2,
  problem: 'single',
  initializerRange: 0.02,
  seed: 0,
}

function modelOf({ kind, vocab, context, layers, heads, width, hidden, widths }, dtype) {
  const sizes = { vocabSize: vocab, layers, heads, width, dtype }
  if (kind === 'gpt') return new models.GPT2({ ...sizes, context })
  if (kind === 'llama') return new models.Llama({ ...sizes, context, hidden })
  if (kind === 'bert') return new models.Bert({ ...sizes, ...BERT, hidden: 4 * width })
  return new Classes(kind === 'cnn' ? new Net(dtype) : new Perceptron(widths, dtype), dtype)
}

const tensorsOf = (model) => nn.namedTensors(model).parameters

async function write(work, folder) {
  const model = modelOf(work, 'float32')
  if (work.context) return models.saveModel(folder, model)
  const sources = Object.entries(tensorsOf(model)).map(([name, t]) => ({
    name,
    dtype: 'float32',
    shape: t.shape,
    read: async () => new Uint8Array((await t.read()).buffer),
  }))
  await io.writeSafetensors(join(folder, 'model.safetensors'), sources)
}

async function load(work, folder, dtype) {
  if (work.context) return models.loadModel(folder, { dtype })
  const file = await io.openSafetensors(join(folder, 'model.safetensors'))
  const model = modelOf(work, dtype)
  const loaded = {}
  for (const [name, t] of Object.entries(tensorsOf(model))) {
    const numbers = new Float32Array(t.shape.reduce((a, b) => a * b, 1))
    await file.readInto(name, new Uint8Array(numbers.buffer), 'float32')
    loaded[name] = steepest.tensor(numbers).reshape(t.shape).cast(dtype)
  }
  await file.close()
  return nn.withTensors(model, loaded)
}

if (process.argv[2] === '--init') {
  await write(WORKS[process.argv[3]], process.argv[4])
  process.exit(0)
}

const work = WORKS[process.argv[2]]
const [dtype, threads, folder] = [process.argv[3], Number(process.argv[4]), process.argv[5]]
native().threads(threads)
// Threads and libraries are there before the model.
await steepest.matmul(steepest.ones([64, 64]), steepest.ones([64, 64])).read()
const before = resident('VmRSS')
const model = await load(work, folder, dtype)
const parameters = Object.values(tensorsOf(model)).reduce((sum, t) => sum + t.size, 0)
const { lr, clip = null, weightDecay = 0 } = work
const optimizer = optim.adamw({ lr, weightDecay, groups: [optim.noDecay] })
const trainer = new Trainer(model, { optimizer, clip })
await trainer.materialize()
const batches = Array.from({ length: BATCHES }, (_, n) =>
  Object.fromEntries(Object.entries(batchOf(work, n)).map(([k, { data, shape }]) => [k, new HostArray(data, shape)])),
)
let done = 0
const step = () => trainer.step([batches[done % BATCHES]], { lr, step: ++done })
const start = performance.now() / 1000
const losses = [(await (await step())()).loss]
console.log(
  `ready ${JSON.stringify({ version: `steepest, ${native().info().level}`, start, first: performance.now() / 1000, parameters, losses })}`,
)

for await (const line of createInterface({ input: process.stdin })) {
  const late = lateness()
  const began = performance.now()
  const waits = []
  for (let i = 0; i < Number(line); i++) {
    waits.push(await step())
    if (waits.length > 2) losses.push((await waits.shift()()).loss)
  }
  for (const wait of waits) losses.push((await wait()).loss)
  const seconds = (performance.now() - began) / 1000
  console.log(
    JSON.stringify({ seconds, losses: losses.slice(-Number(line)), peak: resident('VmHWM') - before, late: late() }),
  )
}
trainer.close()
