// Trains a model by one method, within a share of what recomputation can take off it (1: nothing is taken off), and prints what was planned and
// measured of the process and of the arena.
import { matmul, ones } from '../../../dist/index.js'
import { adalomo, qgalore } from '../../../dist/memory/index.js'
import { adamw, lion } from '../../../dist/optim/index.js'
import { METHODS } from '../../../dist/train/budget-methods.js'
import { Candidate } from '../../../dist/train/budget-setup.js'
import { planMemory } from '../../../dist/train/memory.js'
import { Trainer } from '../../../dist/train/trainer.js'
import { resident } from './gpt.mjs'
import { modelOf, stepOf } from './shapes.mjs'

const { model: kind, method, batch, context, micros = 1, share = 1, clip = 1, ...sizes } = JSON.parse(process.argv[2])
const optimizers = {
  adalomo: () => adalomo({ lr: 1e-3 }),
  qgalore: () => qgalore(adamw({ lr: 1e-3 }), { rank: 64 }),
  lion: () => lion({ lr: 1e-4 }),
}

await matmul(ones([64, 64]), ones([64, 64])).read()
const before = resident('VmRSS')
const model = modelOf(kind, context, sizes)
const parameters = Object.values(new Trainer(model, { optimizer: lion({}), device: 'null' }).parameters)
const data = stepOf(batch, context, micros)
const exact = { model, optimizer: (optimizers[method] ?? (() => adamw({ lr: 1e-3 })))(), clip, seed: 1, split: 1 }
const way = METHODS.find((m) => m.label === method)
const setup = way ? way.apply(exact) : exact
/** Bytes of an arena between the least and the most. */
function between() {
  const all = new Candidate(setup, [], data).ends()
  const [most, least] = [all[0], all.at(-1)]
  return Math.ceil(least.arenaBytes + share * (most.arenaBytes - least.arenaBytes))
}
const given = share < 1 ? between() : Infinity
const trainer = new Trainer(setup.model, { ...setup, arena: share < 1 ? given : undefined })
const { memory } = planMemory(trainer, data.microBatches)
await trainer.materialize()
await (await trainer.step(data.microBatches, { lr: 1e-3, step: 1 }))()
const plans = trainer.plan(data.microBatches[0], micros)
console.log(
  JSON.stringify({
    parameters: parameters.reduce((n, t) => n + t.size, 0),
    given,
    planned: memory.total,
    measured: resident('VmHWM') - before,
    arenaPlanned: Math.max(...plans.map((p) => p.arenaBytes)),
    arena: trainer.arena.bytes,
    recomputed: Math.max(...plans.map((p) => p.recomputed)),
    packed: Math.max(...plans.map((p) => p.packed)),
  }),
)
trainer.close()
