// A model of bench/memory.mjs, trained by steepest: prints a line of JSON with the peak of the process, the time of a step and the losses.
import { matmul, ones } from '../../dist/index.js'
import { native } from '../../dist/addon.js'
import { GPT2 } from '../../dist/models/gpt2.js'
import { adamw, noDecay } from '../../dist/optim/index.js'
import { train } from '../../dist/train/train.js'
import { tokensOf } from '../tokens.mjs'
import { resident } from '../resident.mjs'

const { layers, width, heads, vocab, batch, context, steps, threads, clip, memory, allow } = JSON.parse(process.argv[2])
native().threads(threads)

// Threads and libraries are there before the model.
await matmul(ones([64, 64]), ones([64, 64])).read()
const before = resident('VmRSS')
const model = new GPT2({ vocabSize: vocab, context, layers, heads, width })
function* data() {
  for (let step = 0; ; step++) {
    const [inputIds, targets] = tokensOf(step, batch, context).map((ids) => ({ data: ids, shape: [batch, context] }))
    yield { inputIds, targets }
  }
}
const run = train(model, data(), {
  optimizer: adamw({ lr: 3e-4, weightDecay: 0.1, groups: [noDecay] }),
  steps,
  clip,
  memoryBudget: memory,
  allow,
})
const losses = []
const seconds = []
let planned = 0
let fitted
for await (const event of run) {
  if (event.type === 'start') [planned, fitted] = [event.memory.total, event.fitted]
  if (event.type !== 'step') continue
  losses.push(event.loss)
  seconds.push(event.msPerStep / 1000)
}
const peak = resident('VmHWM') - before
console.log(JSON.stringify({ peak, planned, seconds, losses, fitted }))
