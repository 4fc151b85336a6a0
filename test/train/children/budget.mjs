// Trains a model within a budget, and prints what was planned and measured of the process and of the arena. The budget is so far between the
// least memory (0) and as much as the run takes by itself (1).
import { matmul, ones } from '../../../dist/index.js'
import { Bert } from '../../../dist/models/bert.js'
import { GPT2 } from '../../../dist/models/gpt2.js'
import { Llama } from '../../../dist/models/llama.js'
import { T5 } from '../../../dist/models/t5.js'
import { adamw } from '../../../dist/optim/index.js'
import { Budget } from '../../../dist/train/budget.js'
import { HostArray } from '../../../dist/train/host.js'
import { planMemory } from '../../../dist/train/memory.js'
import { splitBatches } from '../../../dist/train/split.js'
import { Trainer } from '../../../dist/train/trainer.js'
import { resident } from './gpt.mjs'

const { model: kind, batch, context, share, allow = [], clip = 1, steps = 3, ...sizes } = JSON.parse(process.argv[2])
const common = {
  vocabSize: 1000,
  layers: 4,
  heads: 4,
  width: 256,
  hidden: 1024,
  eps: 1e-5,
  dropout: 0,
  dtype: 'float32',
  seed: 1,
}
const bert = {
  positions: context,
  types: 2,
  activation: 'gelu',
  padId: 0,
  task: 'maskedLm',
  classes: 2,
  initializerRange: 0.02,
}
const t5 = {
  decoderLayers: sizes.layers ?? 4,
  depth: 64,
  activation: 'relu',
  gated: false,
  buckets: 32,
  maxDistance: 128,
  tied: true,
  scaled: true,
  padId: 0,
  startId: 0,
  initializerFactor: 1,
}
const makers = {
  gpt2: () => new GPT2({ ...common, context, ...sizes }),
  llama: () => new Llama({ ...common, context, kvHeads: 2, ...sizes }),
  bert: () => new Bert({ ...common, ...bert, ...sizes }),
  t5: () => new T5({ ...common, ...t5, ...sizes }),
}

// Threads, libraries and the compiler's own first work are there before the model.
await matmul(ones([64, 64]), ones([64, 64])).read()
const before = resident('VmRSS')
const model = makers[kind]()
const ids = Int32Array.from({ length: batch * context }, (_, i) => (i * 31) % 997)
const rows = () => new HostArray(ids, [batch, context])
const data = { microBatches: [{ inputIds: rows(), labels: rows() }], tokens: ids.length }
const budget = new Budget({ model, optimizer: adamw({ lr: 1e-3 }), clip, split: 1 }, data)
const curve = budget.curve()
const [most, least] = [curve[0].total, curve.at(-1).total]
const bytes = Math.ceil(least + share * (most - least))
const choice = budget.choose(bytes, allow)
const arena = bytes - (choice.total - choice.arenaBytes)
const trainer = new Trainer(choice.setup.model, { ...choice.setup, arena })
const micro = splitBatches(data.microBatches, choice.setup.split)
const { memory } = planMemory(trainer, micro)
await trainer.materialize()
for (let step = 1; step <= steps; step++) await (await trainer.step(micro, { lr: 1e-3, step }))()
const arenaPlanned = Math.max(...trainer.plan(micro[0], micro.length).map((p) => p.arenaBytes))
console.log(
  JSON.stringify({
    budget: bytes,
    planned: memory.total,
    measured: resident('VmHWM') - before,
    arenaPlanned,
    arena: trainer.arena.bytes,
    methods: choice.methods,
  }),
)
trainer.close()
