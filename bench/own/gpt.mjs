// The GPT of bench/gpt.mjs, trained by steepest; see bench/harness.mjs for what it reads and writes.
import { createInterface } from 'node:readline'
import { native } from '../../dist/addon.js'
import { GPT2 } from '../../dist/models/gpt2.js'
import { adamw, noDecay } from '../../dist/optim/index.js'
import { HostArray } from '../../dist/train/host.js'
import { Trainer } from '../../dist/train/trainer.js'

const [layers, width, heads, context, vocabSize, batch, threads] = process.argv.slice(2, 9).map(Number)
const dtype = process.argv[9]
native().threads(threads)
const model = new GPT2({ vocabSize, context, layers, heads, width, dtype })
const trainer = new Trainer(model, { optimizer: adamw({ lr: 1e-3, weightDecay: 0.1, groups: [noDecay] }), clip: 1 })
await trainer.materialize()
let done = 0
const step = () => {
  const ids = Int32Array.from({ length: batch * (context + 1) }, () => Math.floor(Math.random() * vocabSize))
  const rows = (from) => {
    const out = new Int32Array(batch * context)
    for (let b = 0; b < batch; b++)
      out.set(ids.subarray(b * (context + 1) + from, b * (context + 1) + from + context), b * context)
    return new HostArray(out, [batch, context])
  }
  return trainer.step([{ inputIds: rows(0), targets: rows(1) }], { lr: 1e-3, step: ++done })
}
console.log(`ready steepest, ${native().info().level}`)
for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now()
  let last
  for (let i = 0; i < Number(line); i++) last = await step()
  await last()
  console.log((performance.now() - began) / 1000)
}
trainer.close()
