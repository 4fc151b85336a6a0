// Peak memory of a full AdamW step against PyTorch, each in a fresh process: the resident high-water above what it held before the model, the
// time of a step, and the loss after all steps on the same data. `node bench/memory.mjs [steps] [names, with commas between]`; with `--published`
// the tables of papers beside what is planned here, with `--curves` the losses of every method.
import { execFile } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { peerPython, root } from './harness.mjs'

for (const other of ['published', 'curves']) {
  if (process.argv[2] !== `--${other}`) continue
  await import(`./${other}.mjs`)
  process.exit()
}
const steps = Number(process.argv[2] ?? 20)
const wanted = process.argv[3]?.split(',')
const model = { layers: 12, width: 768, heads: 12, vocab: 50257, batch: 4, context: 512, steps }
const options = { ...model, threads: availableParallelism(), clip: 1 }

const own = (more) => ({ command: process.execPath, script: join(root, 'bench/own/memory.mjs'), more })
const torch = (more) => ({ command: peerPython(), script: join(root, 'bench/peers/memory_torch.py'), more })
const runs = {
  transformers: { title: 'PyTorch, GPT-2 of transformers', ...torch({ transformers: true }) },
  'transformers-checkpoint': {
    title: 'the same, blocks checkpointed',
    ...torch({ transformers: true, checkpoint: true }),
  },
  torch: { title: 'PyTorch, fused activation and attention', ...torch({}) },
  'torch-checkpoint': { title: 'the same, blocks checkpointed', ...torch({ checkpoint: true }) },
  plain: { title: 'steepest, no budget', ...own({}) },
  '2.7GB': { title: 'steepest, memoryBudget 2.7GB', ...own({ memory: '2.7GB' }) },
  '2.2GB': { title: 'steepest, memoryBudget 2.2GB', ...own({ memory: '2.2GB' }) },
  '1.8GB': { title: 'steepest, 1.8GB, clip null', ...own({ memory: '1.8GB', clip: null }) },
  '8bit': {
    title: 'steepest, 1.2GB, clip null, states8bit',
    ...own({ memory: '1.2GB', clip: null, allow: ['states8bit'] }),
  },
  '1.36GB': {
    title: 'steepest, 1.36GB, all methods allowed',
    ...own({ memory: '1.36GB', allow: ['states8bit', 'activations', 'sampled', 'lowrank', 'blocks'] }),
  },
}

const GB = (bytes) => `${(bytes / 1e9).toFixed(2)} GB`
const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1]

console.log(
  `GPT-2 124M, batch ${model.batch} × ${model.context}, float32, AdamW, clip 1, ${options.threads} threads, ${steps} steps`,
)
let first
/** A step of steepest without a budget: what the planned slow-down is beside. */
let plain
for (const [name, { title, command, script, more }] of Object.entries(runs)) {
  if (wanted && !wanted.includes(name)) continue
  if (!command) {
    console.log(`  ${title.padEnd(44)} missing: its environment is not there: npm run bench sets it up`)
    continue
  }
  const { stdout } = await promisify(execFile)(command, [script, JSON.stringify({ ...options, ...more })])
  const { peak, planned, seconds, losses, fitted } = JSON.parse(stdout.trim().split('\n').at(-1))
  first ??= { peak, seconds: median(seconds) }
  if (name === 'plain') plain = median(seconds)
  const cells = [
    GB(peak).padStart(8),
    `${(peak / first.peak).toFixed(2)}×`,
    planned ? `planned ${GB(planned)}` : ''.padEnd(15),
    `${median(seconds).toFixed(2)} s a step (${Math.min(...seconds).toFixed(2)} to ${Math.max(...seconds).toFixed(2)})`,
    `loss ${losses[0].toFixed(3)} → ${losses.at(-1).toFixed(3)}`,
  ]
  console.log(
    `  ${title.padEnd(44)} ${cells.join('  ')}${fitted ? `\n      ${fitted}${plain ? `; measured ${(100 * (median(seconds) / plain - 1)).toFixed(1)}%` : ''}` : ''}`,
  )
}
