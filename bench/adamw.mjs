// An optimizer's step alone, 100 tensors of a million float32 parameters, against PyTorch. `node bench/adamw.mjs [rounds] [adamw|lion]`
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { compare, peerPython, root } from './harness.mjs'

const rounds = Number(process.argv[2] ?? 7)
const name = process.argv[3] ?? 'adamw'
const [tensors, size, threads] = [100, 1_000_000, availableParallelism()]
// Read: weight, gradient, states. Written: weight, states.
const bytes = { adamw: 28, lion: 20 }[name]
const sizes = [tensors, size, threads].map(String)
const own = (how) => ({
  name: how === 'rule' ? 'steepest' : 'steepest, written in tensors',
  command: process.execPath,
  args: [join(root, 'bench/own/adamw.mjs'), ...sizes, name, how],
})
const torch = (how) => ({
  name: `PyTorch ${how}`,
  command: peerPython(),
  args: [join(root, 'bench/peers/adamw_torch.py'), ...sizes, name, how],
})

await compare(
  `${name} step, ${tensors} tensors of ${size.toLocaleString('en')} float32 parameters, ${threads} threads`,
  [own('rule'), own('tensors'), ...(name === 'adamw' ? [torch('fused'), torch('foreach')] : [torch('compiled')])],
  {
    rounds,
    repetitions: 3,
    warm: 2,
    rate: (s) => `${(1000 * s).toFixed(1)} ms, ${((bytes * tensors * size) / s / 1e9).toFixed(1)} GB/s`,
  },
)
