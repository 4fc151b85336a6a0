// A model trained with exact or sampled weight gradients; see bench/harness.mjs for what it reads and writes.
// `node bench/own/sampled.mjs gpt|mlp RATIO THREADS DTYPE SIZES…`: ratio 1 is exact.
import { createInterface } from 'node:readline'
import { native } from '../../dist/addon.js'
import { sampled } from '../../dist/memory/index.js'
import { GPT2 } from '../../dist/models/gpt2.js'
import { MLP, Module } from '../../dist/nn/index.js'
import { crossEntropy } from '../../dist/ops/index.js'
import { adamw, noDecay } from '../../dist/optim/index.js'
import { HostArray } from '../../dist/train/host.js'
import { Trainer } from '../../dist/train/trainer.js'

const [kind, ratio, threads, dtype, ...sizes] = process.argv.slice(2)
const integers = (n, below) => Int32Array.from({ length: n }, () => Math.floor(Math.random() * below))

class Classifier extends Module {
  constructor(widths) {
    super()
    this.mlp = new MLP(widths, { dtype })
  }
  loss({ x, y }) {
    return { loss: crossEntropy(this.mlp.forward(x), y) }
  }
}

function gpt([layers, width, heads, context, vocabSize, batch]) {
  const rows = () => new HostArray(integers(batch * context, vocabSize), [batch, context])
  const model = new GPT2({ vocabSize, context, layers, heads, width, dtype })
  return { model, batch: () => ({ inputIds: rows(), targets: rows(), ids: new HostArray(integers(batch, 4 * batch)) }) }
}

function mlp([batch, ...widths]) {
  const inputs = Float32Array.from({ length: batch * widths[0] }, () => Math.random() - 0.5)
  return {
    model: new Classifier(widths),
    batch: () => ({
      x: new HostArray(inputs, [batch, widths[0]]),
      y: new HostArray(integers(batch, widths.at(-1))),
      ids: new HostArray(integers(batch, 4 * batch)),
    }),
  }
}

native().threads(Number(threads))
const { model, batch } = (kind === 'gpt' ? gpt : mlp)(sizes.map(Number))
const chosen = Number(ratio) < 1 ? sampled(model, { ratio: Number(ratio) }) : model
const trainer = new Trainer(chosen, { optimizer: adamw({ lr: 1e-3, groups: [noDecay] }), clip: 1 })
await trainer.materialize()
let done = 0
console.log(`ready ${native().info().level}`)
for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now()
  let last
  for (let i = 0; i < Number(line); i++) last = await trainer.step([batch()], { lr: 1e-3, step: ++done })
  await last()
  console.log((performance.now() - began) / 1000)
}
trainer.close()
