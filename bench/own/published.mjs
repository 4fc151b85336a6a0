// What a way of bench/published.mjs needs: prints a line of JSON with numbers and bytes of states, with the plan where there is a batch, and with what a
// step took where it is to be measured.
import { native } from '../../dist/addon.js'
import { matmul, ones } from '../../dist/index.js'
import * as memory from '../../dist/memory/index.js'
import { Llama } from '../../dist/models/llama.js'
import { T5 } from '../../dist/models/t5.js'
import { namedTensors } from '../../dist/nn/module.js'
import { adamw } from '../../dist/optim/index.js'
import { HostArray } from '../../dist/train/host.js'
import { planMemory } from '../../dist/train/memory.js'
import { Trainer } from '../../dist/train/trainer.js'
import { resident } from '../resident.mjs'

const { kind, config, batch, context, target, method, measure, threads } = JSON.parse(process.argv[2])
const { rank, ratio, lora, density, least } = method
native().threads(threads)
await matmul(ones([64, 64]), ones([64, 64])).read()
const before = resident('VmRSS')

const models = {
  llama: () => new Llama({ context, ...config }),
  t5: () =>
    new T5({
      activation: 'relu',
      gated: false,
      buckets: 32,
      maxDistance: 128,
      eps: 1e-6,
      tied: true,
      scaled: true,
      padId: 0,
      startId: 0,
      initializerFactor: 1,
      dtype: 'float32',
      seed: 1,
      ...config,
    }),
}
const inner = adamw({ lr: 1e-3, states: method.states })
const wraps = {
  adamw: () => inner,
  galore: () => memory.galore(inner, { rank }),
  qgalore: () => memory.qgalore(inner, { rank }),
  fira: () => memory.fira(inner, { rank }),
  frugal: () => memory.frugal(inner, { density }),
}
const optimizer = wraps[method.optimizer ?? 'adamw']()
let model = models[kind]()
const numbers = Object.values(namedTensors(model).parameters).reduce((n, t) => n + t.size, 0)
const states = Object.values(optimizer.stateBytes(model)).reduce((n, bytes) => n + bytes, 0)

/** What a step is planned to hold, and what it held. */
async function stepOf() {
  if (lora) model = memory.lora(model, { rank: 32 })
  if (ratio) model = memory.sampled(model, { ratio })
  const rows = (width) =>
    new HostArray(
      Int32Array.from({ length: batch * width }, (_, i) => (i * 31) % 997),
      [batch, width],
    )
  const data = { inputIds: rows(context), labels: rows(target) }
  const arena = least ? 0 : undefined
  const trainer = new Trainer(model, { optimizer, clip: null, seed: 1, arena, device: measure ? undefined : 'null' })
  const planned = planMemory(trainer, [data]).memory.total
  const [{ arenaBytes }] = trainer.plan(data, 1)
  const told = { planned, arena: arenaBytes }
  if (measure) {
    await trainer.materialize()
    await (await trainer.step([data], { lr: 1e-4, step: 1 }))()
    Object.assign(told, { measured: resident('VmHWM') - before, reserved: trainer.arena.bytes })
  }
  trainer.close()
  return told
}
console.log(JSON.stringify({ numbers, states, ...(batch === undefined ? {} : await stepOf()) }))
