// A small GPT on made-up tokens, for tests that look at the whole process. Uses what `npm run build` compiled.
import { readFileSync } from 'node:fs'
import { GPT2 } from '../../../dist/models/gpt2.js'
import { adamw } from '../../../dist/optim/index.js'
import { HostArray } from '../../../dist/train/host.js'
import { planMemory } from '../../../dist/train/memory.js'
import { Trainer } from '../../../dist/train/trainer.js'

export function setUp({ batch, context, ...config }) {
  const model = new GPT2({ context, ...config })
  const trainer = new Trainer(model, { optimizer: adamw({ lr: 1e-3 }), clip: 1 })
  const ids = Int32Array.from({ length: batch * context }, (_, i) => (i * 31) % config.vocabSize)
  const rows = () => new HostArray(ids, [batch, context])
  const data = () => [{ inputIds: rows(), targets: rows() }]
  let step = 0
  return {
    trainer,
    data,
    step: () => trainer.step(data(), { lr: 1e-3, step: ++step }),
    plan: () => planMemory(trainer, data()).memory,
  }
}

/** Bytes from /proc: `VmRSS` now, `VmHWM` at its highest. */
export const resident = (key) =>
  1024 * Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1])
