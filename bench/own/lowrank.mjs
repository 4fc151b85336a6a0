// A GPT trained with one of the methods that keep optimizer states small; see bench/harness.mjs for what it reads and writes.
// `node bench/own/lowrank.mjs METHOD THREADS LAYERS WIDTH HEADS CONTEXT VOCABULARY BATCH RANK GAP`
import { createInterface } from 'node:readline'
import { native } from '../../dist/addon.js'
import * as memory from '../../dist/memory/index.js'
import { GPT2 } from '../../dist/models/gpt2.js'
import { adamw } from '../../dist/optim/index.js'
import { HostArray } from '../../dist/train/host.js'
import { Trainer } from '../../dist/train/trainer.js'

const [method, threads, ...sizes] = process.argv.slice(2)
const [layers, width, heads, context, vocabSize, batch, rank, updateGap] = sizes.map(Number)
const inner = adamw({ lr: 1e-3 })
const methods = {
  adamw: () => inner,
  galore: () => memory.galore(inner, { rank, updateGap }),
  qgalore: () => memory.qgalore(inner, { rank, updateGap }),
  fira: () => memory.fira(inner, { rank, updateGap }),
  frugal: () => memory.frugal(inner, { updateGap }),
  'frugal blocks': () => memory.frugal(inner, { choice: 'blocks', updateGap }),
  apollo: () => memory.apollo(inner, { rank, updateGap }),
  'apollo mini': () => memory.apolloMini(inner, { updateGap }),
  badam: () => memory.badam(inner, { switchEvery: updateGap }),
  adalomo: () => memory.adalomo(),
}
const rows = () =>
  new HostArray(
    Int32Array.from({ length: batch * context }, () => Math.floor(Math.random() * vocabSize)),
    [batch, context],
  )

native().threads(Number(threads))
const optimizer = methods[method]()
const model = new GPT2({ vocabSize, context, layers, heads, width })
const bytes = Object.values(optimizer.stateBytes(model)).reduce((a, b) => a + b, 0)
const trainer = new Trainer(model, { optimizer, clip: null })
await trainer.materialize()
let done = 0
console.log(`ready ${native().info().level}, states ${(bytes / 1e6).toFixed(1)} MB`)
for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now()
  for (let i = 0; i < Number(line); i++)
    await (await trainer.step([{ inputIds: rows(), targets: rows() }], { lr: 1e-3, step: ++done }))()
  console.log((performance.now() - began) / 1000)
}
trainer.close()
