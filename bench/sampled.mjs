// Training steps with sampled weight gradients beside exact ones. `node bench/sampled.mjs [rounds] [ratios]`
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { compare, root } from './harness.mjs'

const threads = String(availableParallelism())
const rounds = Number(process.argv[2] ?? 5)
const ratios = (process.argv[3] ?? '0.3,0.1').split(',')
const works = [
  ['GPT, 6 layers, width 384, 16 × 256 tokens', 'gpt', 6, 384, 6, 256, 256, 16],
  ['MLP 1024-2048-2048-10, 2048 examples', 'mlp', 2048, 1024, 2048, 2048, 10],
]

for (const [title, kind, ...sizes] of works) {
  const contestant = (name, ratio) => ({
    name,
    command: process.execPath,
    args: [join(root, 'bench/own/sampled.mjs'), kind, ratio, threads, 'float32', ...sizes.map(String)],
  })
  await compare(
    `${title}, float32, ${threads} threads`,
    [contestant('exact', '1'), ...ratios.map((r) => contestant(`sampled at ${r}`, r))],
    { rounds, warm: 2 },
  )
}
