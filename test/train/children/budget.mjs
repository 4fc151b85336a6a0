// Trains a model within a budget, and prints what was planned and measured of the process and of the arena. The budget is so far between the
// least memory (0) and as much as the run takes by itself (1).
import { matmul, ones } from '../../../dist/index.js'
import { adamw } from '../../../dist/optim/index.js'
import { Budget } from '../../../dist/train/budget.js'
import { planMemory } from '../../../dist/train/memory.js'
import { splitBatches } from '../../../dist/train/split.js'
import { Trainer } from '../../../dist/train/trainer.js'
import { resident } from './gpt.mjs'
import { modelOf, stepOf } from './shapes.mjs'

const { model: kind, batch, context, share, allow = [], clip = 1, steps = 3, ...sizes } = JSON.parse(process.argv[2])
// Threads, libraries and the compiler's own first work are there before the model.
await matmul(ones([64, 64]), ones([64, 64])).read()
const before = resident('VmRSS')
const model = modelOf(kind, context, sizes)
const data = stepOf(batch, context)
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
