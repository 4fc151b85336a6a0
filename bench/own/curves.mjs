// One way of bench/curves.mjs: trains a GPT of ten million numbers, and prints a line of JSON with the loss of every step, the time of a step and the peak.
import { native } from '../../dist/addon.js'
import { matmul, ones } from '../../dist/index.js'
import * as memory from '../../dist/memory/index.js'
import { GPT2 } from '../../dist/models/gpt2.js'
import { adamw, noDecay } from '../../dist/optim/index.js'
import { HostArray } from '../../dist/train/host.js'
import { Trainer } from '../../dist/train/trainer.js'
import { resident } from '../resident.mjs'
import { tokensOf } from '../tokens.mjs'

const { way, steps, threads, layers, width, heads, vocab, batch, context, rank } = JSON.parse(process.argv[2])
const adam = (more) => adamw({ lr: 1e-3, weightDecay: 0.1, groups: [noDecay], ...more })
// Rates as the methods' papers have them beside AdamW's: a step in a small space is scaled down by a quarter.
const small = () => adam({ lr: 4e-3 })
const ways = {
  'exact AdamW': () => ({ optimizer: adam() }),
  'states in 8 bits': () => ({ optimizer: adam({ states: '8bit' }) }),
  'activations in bfloat16': () => ({ optimizer: adam(), activations: 'bfloat16' }),
  'activations in 8 bits': () => ({ optimizer: adam(), activations: '8bit' }),
  'sampled, ratio 0.3': () => ({ optimizer: adam(), ratio: 0.3 }),
  'sampled, ratio 0.1': () => ({ optimizer: adam(), ratio: 0.1 }),
  GaLore: () => ({ optimizer: memory.galore(small(), { rank }) }),
  'Q-GaLore': () => ({ optimizer: memory.qgalore(small(), { rank }) }),
  Fira: () => ({ optimizer: memory.fira(small(), { rank }) }),
  'FRUGAL, density 0.25': () => ({ optimizer: memory.frugal(adam()) }),
  'APOLLO-mini': () => ({ optimizer: memory.apolloMini(small()) }),
  BAdam: () => ({ optimizer: memory.badam(adam(), { switchEvery: 50 }) }),
  AdaLOMO: () => ({ optimizer: memory.adalomo({ lr: 1e-3 }) }),
}
if (way === undefined) {
  console.log(JSON.stringify(Object.keys(ways)))
} else {
  native().threads(threads)
  await matmul(ones([64, 64]), ones([64, 64])).read()
  const before = resident('VmRSS')
  const { optimizer, activations, ratio } = ways[way]()
  const model = new GPT2({ vocabSize: vocab, context, layers, heads, width, seed: 1 })
  const trained = ratio === undefined ? model : memory.sampled(model, { ratio })
  const trainer = new Trainer(trained, { optimizer, activations, clip: 1, seed: 1 })
  await trainer.materialize()
  const losses = []
  const began = performance.now()
  for (let step = 1; step <= steps; step++) {
    const [inputIds, targets] = tokensOf(step, batch, context).map((ids) => new HostArray(ids, [batch, context]))
    const lr = optimizer.lrAt(step) * Math.min(1, step / 20)
    losses.push((await (await trainer.step([{ inputIds, targets }], { lr, step }))()).loss)
  }
  const seconds = (performance.now() - began) / 1000 / steps
  const numbers = Object.values(trainer.parameters).reduce((n, t) => n + t.size, 0)
  console.log(JSON.stringify({ losses, seconds, numbers, peak: resident('VmHWM') - before }))
  trainer.close()
}
