// The convolutions and the small convolutional net of bench/conv.mjs in steepest; see bench/harness.mjs for what it reads and writes.
import { createInterface } from 'node:readline'
import { native } from '../../dist/addon.js'
import { conv2d, nn, random, readAll, relu, reshape, vjp } from '../../dist/index.js'
import { sgd } from '../../dist/optim/index.js'
import { compile } from '../../dist/transform/index.js'
import { crossEntropy } from '../../dist/ops/loss.js'
import { HostArray } from '../../dist/train/host.js'
import { Trainer } from '../../dist/train/trainer.js'

const [what, threads, dtype] = [process.argv[2], Number(process.argv[3]), process.argv[4]]
native().threads(threads)

/** Three pairs of convolutions with batch norm, a pooling after each. */
class Net extends nn.Module {
  constructor() {
    super()
    const widths = [3, 64, 64, 128, 128, 256, 256]
    this.convs = widths.slice(1).map((w, i) => new nn.Conv2d(widths[i], w, 3, { padding: 1, bias: false, dtype }))
    this.norms = widths.slice(1).map((w) => new nn.BatchNorm(w, { dtype }))
    this.pool = new nn.MaxPool2d(2)
    this.mean = new nn.AdaptiveAvgPool()
    this.head = new nn.Linear(256, 10, { dtype })
  }
  forward(x, ctx) {
    for (let i = 0; i < 6; i++) {
      x = relu(this.norms[i].forward(this.convs[i].forward(x), ctx))
      if (i === 1 || i === 3) x = this.pool.forward(x)
    }
    return this.head.forward(reshape(this.mean.forward(x), [x.shape[0], 256]))
  }
  loss({ images, targets }, ctx) {
    return { loss: crossEntropy(this.forward(images.cast(dtype), ctx).cast('float32'), targets) }
  }
}

async function netStep() {
  const batch = Number(process.argv[5])
  const trainer = new Trainer(new Net(), { optimizer: sgd({ lr: 0.05, momentum: 0.9 }) })
  await trainer.materialize()
  let done = 0
  const pixels = Float32Array.from({ length: batch * 3 * 32 * 32 }, () => Math.random() - 0.5)
  return () => {
    const targets = Int32Array.from({ length: batch }, () => Math.floor(Math.random() * 10))
    const inputs = { images: new HostArray(pixels, [batch, 3, 32, 32]), targets: new HostArray(targets, [batch]) }
    return trainer.step([inputs], { lr: 0.05, step: ++done })
  }
}

/** Forward and both gradients of one convolution. */
async function layerStep() {
  const [n, c, size, o, kernel, stride, padding, groups] = process.argv.slice(5).map(Number)
  const x = random.normal(random.key(1), [n, c, size, size], { dtype })
  const w = random.normal(random.key(2), [o, c / groups, kernel, kernel], { dtype })
  const bias = random.normal(random.key(3), [o], { dtype })
  const f = (a, b, d) => conv2d(a, b, { stride, padding, groups, bias: d })
  const slope = random.normal(random.key(4), f(x, w, bias).shape, { dtype })
  await readAll([x, w, bias, slope])
  const run = compile((a, b, d, s) => vjp(f, a, b, d)[1](s))
  const forward = compile(f)
  return () => {
    const results = [forward(x, w, bias), ...run(x, w, bias, slope)]
    // The smallest of the results of each program tells that it has run.
    return () =>
      readAll([
        results[0].slice([
          [0, 1],
          [0, 1],
        ]),
        results[3],
      ])
  }
}

/** Seconds of the clock, or of a core. */
function seconds() {
  if (process.env.BENCH_CLOCK !== 'cpu') return performance.now() / 1000
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

const step = await (what === 'net' ? netStep() : layerStep())
console.log(`ready steepest, ${native().info().level}`)
for await (const line of createInterface({ input: process.stdin })) {
  const began = seconds()
  let last
  for (let i = 0; i < Number(line); i++) {
    last = await step()
    if (what !== 'net') await last()
  }
  if (what === 'net') await last()
  console.log(seconds() - began)
}
process.exit(0)
