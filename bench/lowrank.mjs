// Training steps of the methods that keep optimizer states small, beside AdamW's: the time of a step, the largest step (where a space is
// chosen), and the bytes of the states. `node bench/lowrank.mjs [rounds] [methods, with commas between]`
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { compare, root } from './harness.mjs'

const threads = availableParallelism()
const rounds = Number(process.argv[2] ?? 20)
const methods = (process.argv[3] ?? 'galore,qgalore,fira,frugal,frugal blocks,apollo,apollo mini,badam,adalomo').split(
  ',',
)
// layers, width, heads, context, vocabulary, batch, rank, steps between two choices
const [layers, width, heads, context, vocab, batch, rank, gap] = [4, 384, 6, 256, 8192, 8, 64, 10]
const tokens = context * batch

const results = await compare(
  `GPT, ${layers} layers, width ${width}, ${batch} × ${context} tokens, float32, rank ${rank}, a choice every ${gap} steps, ${threads} threads`,
  ['adamw', ...methods].map((name) => ({
    name,
    command: process.execPath,
    args: [
      join(root, 'bench/own/lowrank.mjs'),
      name,
      ...[threads, layers, width, heads, context, vocab, batch, rank, gap].map(String),
    ],
  })),
  { rounds, warm: 2 },
)
console.log(`  the projections' own share, 2r/(3T): ${((200 * rank) / (3 * tokens)).toFixed(1)} %`)
for (const { name, version, seconds } of results)
  console.log(
    `  ${name.padEnd(28)} largest step ${(1000 * Math.max(...seconds)).toFixed(1)} ms, ${version.split(', ')[1]}`,
  )
