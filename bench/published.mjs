// The memory that papers say their methods need, beside what the plans here come to: `npm run bench -- memory --published [file to write]`.
// Bytes of a plan are exact for the arena and all state; a step of each way is run in a process of its own with a smaller batch, where planned and
// measured are both told.
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from './harness.mjs'

const threads = availableParallelism()
const run = async (spec) => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    join(root, 'bench/own/published.mjs'),
    JSON.stringify({ threads, ...spec }),
  ])
  return JSON.parse(stdout.trim().split('\n').at(-1))
}
const lines = []
const say = (line = '') => {
  lines.push(line)
  console.log(line)
}
const GB = (bytes) => (bytes / 1e9).toFixed(2)
const times = (x) => `${x.toFixed(1)}×`

const t5base = {
  kind: 't5',
  config: {
    vocabSize: 32128,
    layers: 12,
    decoderLayers: 12,
    heads: 12,
    depth: 64,
    width: 768,
    hidden: 3072,
    dropout: 0.1,
  },
  context: 128,
  target: 8,
}
/** WTA-CRS (Liu et al. 2023), table 2: GB of a step of T5-base, and times less than full fine-tuning. */
const wtacrs = [
  ['exact', {}, '17.66'],
  ['WTA-CRS, ratio 0.3', { ratio: 0.3 }, '8.44 (2.1×)'],
  ['WTA-CRS, ratio 0.1', { ratio: 0.1 }, '7.30 (2.4×)'],
  ['LoRA, rank 32', { lora: true }, '13.84 (1.3×)'],
  ['LoRA, WTA-CRS 0.3', { lora: true, ratio: 0.3 }, '6.50 (2.7×)'],
  ['LoRA, WTA-CRS 0.1', { lora: true, ratio: 0.1 }, '5.44 (3.2×)'],
  ['exact, as much computed again as helps', { least: true }, ''],
]
const [batch, small] = [64, 4]

say(
  `## A step of T5-base: ${batch} × ${t5base.context} source and ${t5base.target} target tokens, float32, dropout 0.1, AdamW, gradients used up as they come`,
)
say()
say(
  '| way | paper, GB | planned, GB | less than exact | less than the paper’s exact | its arena | with a batch of 4: planned | measured |',
)
say('|---|---|---|---|---|---|---|---|')
let exact
for (const [name, method, paper] of wtacrs) {
  const { planned, arena } = await run({ ...t5base, batch, method })
  exact ??= planned
  const one = await run({ ...t5base, batch: small, method, measure: true })
  if (one.reserved !== one.arena)
    throw new Error(`${name}: the arena has ${one.reserved} bytes, planned were ${one.arena}`)
  say(
    `| ${name} | ${paper} | ${GB(planned)} | ${times(exact / planned)} | ${times(17.66e9 / planned)} | ${GB(arena)} | ${GB(one.planned)} | ${GB(one.measured)} |`,
  )
}

/** The Llama shapes of GaLore's tables, with ranks. */
const sizes = [
  ['60M', { layers: 8, heads: 8, width: 512, hidden: 1376 }, 128],
  ['130M', { layers: 12, heads: 12, width: 768, hidden: 2048 }, 256],
  ['350M', { layers: 24, heads: 16, width: 1024, hidden: 2736 }, 256],
  ['1B', { layers: 24, heads: 32, width: 2048, hidden: 5461 }, 512],
  ['7B', { layers: 32, heads: 32, width: 4096, hidden: 11008 }, 1024],
]
const llama = ([, config]) => ({ kind: 'llama', context: 256, config: { vocabSize: 32000, ...config } })
const table = async (title, columns) => {
  say()
  say(`## ${title}`)
  say()
  say(`| Llama | numbers | ${columns.map(([name]) => name).join(' | ')} |`)
  say(`|---|---|${columns.map(() => '---|').join('')}`)
  for (const [i, size] of sizes.entries()) {
    const cells = []
    let first
    let numbers
    for (const [, method, paper] of columns) {
      const told = await run({ ...llama(size), method: { rank: size[2], ...method } })
      numbers = told.numbers
      first ??= told.states
      const less = told.states === first ? '' : ` (${(100 * (told.states / first - 1)).toFixed(0)} %)`
      cells.push(`${GB(told.states)}${less}${paper?.[i] ? `; paper ${paper[i]}` : ''}`)
    }
    say(`| ${size[0]} | ${(numbers / 1e6).toFixed(1)} M | ${cells.join(' | ')} |`)
  }
}
await table(
  'Optimizer states in 8 bits, GB (GaLore, Zhao et al. 2024: 65.5 % less than 8-bit Adam for 7B; Q-GaLore, Zhang et al. 2024)',
  [
    ['AdamW', { states: '8bit' }],
    ['GaLore, basis in float32', { states: '8bit', optimizer: 'galore' }, ['', '', '', '', '−65.5 %']],
    ['Q-GaLore, basis in 4 bits', { states: '8bit', optimizer: 'qgalore' }],
  ],
)
await table('Optimizer states in float32, GB (FRUGAL, Zmushko et al. 2025)', [
  ['AdamW', {}, ['0.43', '1.00', '2.74', '9.98']],
  ['GaLore', { optimizer: 'galore' }, ['0.30']],
  ['FRUGAL, density 0.25', { optimizer: 'frugal', density: 0.25 }, ['0.29', '0.52', '1.05', '3.23']],
  ['FRUGAL, density 0', { optimizer: 'frugal', density: 0 }, ['0.24', '0.37', '0.49', '0.98']],
])
await table('Fira beside GaLore, states in float32, GB (Chen et al. 2024: as GaLore, and a number a matrix)', [
  ['AdamW', {}],
  ['GaLore', { optimizer: 'galore' }],
  ['Fira', { optimizer: 'fira' }],
])
const file = process.argv[3]
if (file) writeFileSync(file, `${lines.join('\n')}\n`)
