import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { METHODS } from '../../lib/train/budget-methods.js'

const here = import.meta.dirname
const long = process.env.STEEPEST_LONG !== undefined
const MB = 1 << 20

interface Row {
  model: string
  method: string
  batch: number
  context: number
  share?: number
  micros?: number
  clip?: null
  layers?: number
  heads?: number
  width?: number
  hidden?: number
  vocabSize?: number
}

interface Measured {
  parameters: number
  given: number
  planned: number
  measured: number
  arenaPlanned: number
  arena: number
  recomputed: number
  packed: number
}

const labelled = (text: string): string => METHODS.find((m) => m.label.includes(text))!.label
const methods = ['exact', ...METHODS.map((m) => m.label), 'qgalore', 'adalomo', 'lion']
const ten = { layers: 6, heads: 8, width: 320, hidden: 1280, vocabSize: 8192 }
const base = { layers: 12, heads: 12, width: 768, hidden: 3072 }

const short: Row[] = [
  { model: 'gpt2', method: labelled('in 8 bits'), batch: 8, context: 128, share: 0 },
  { model: 'llama', method: labelled('GaLore'), batch: 4, context: 64, micros: 3 },
  // The backward pass is run twice.
  { model: 'llama', method: 'exact', batch: 2, context: 64, share: 0 },
]
const kinds = ['gpt2', 'llama', 'bert', 't5']
const middle = { layers: 8, heads: 8, width: 512, hidden: 2048, vocabSize: 16384 }
/** Batch and context of the middle models. */
const ways = [
  [2, 512],
  [4, 256],
  [8, 128],
  [16, 64],
]

/** Every method on every kind of model of about 10 million numbers; then some on those of 34 to 45 and 86 to 135 million. */
const table: Row[] = [
  ...kinds.flatMap((model, i) =>
    methods.map((method, j): Row => {
      const [batch, context] = i % 2 === 0 ? [8, 256] : [16, 128]
      return { model, method, batch, context, share: (i + j) % 2 === 0 ? 0.3 : 1, ...ten }
    }),
  ),
  ...kinds.map((model): Row => ({ model, method: labelled('GaLore'), batch: 4, context: 128, micros: 3, ...ten })),
  ...kinds.flatMap((model, i) =>
    ['exact', labelled('kept in 8 bits'), labelled('30%'), labelled('Fira')].map((method, j): Row => {
      const [batch, context] = ways[(i + j) % ways.length]
      return { model, method, batch, context, share: [0, 0.3, 1][(i + j) % 3], ...middle }
    }),
  ),
  { model: 't5', method: 'exact', batch: 4, context: 128, share: 0.3, ...base, layers: 6, vocabSize: 8192 },
  { model: 't5', method: labelled('10%'), batch: 8, context: 128, share: 1, ...base, layers: 6, vocabSize: 8192 },
  { model: 'bert', method: labelled('FRUGAL'), batch: 4, context: 256, share: 0.5, ...base, vocabSize: 30522 },
  { model: 'bert', method: 'exact', batch: 16, context: 64, share: 0, ...base, vocabSize: 30522 },
  { model: 'llama', method: labelled('LoRA'), batch: 4, context: 256, share: 0, ...base, vocabSize: 32000 },
  { model: 'llama', method: labelled('BAdam'), batch: 2, context: 256, share: 1, ...base, vocabSize: 32000 },
  { model: 'gpt2', method: 'exact', batch: 4, context: 512, share: 0.3, ...base, vocabSize: 50257 },
  { model: 'gpt2', method: labelled('APOLLO'), batch: 1, context: 1024, share: 0.3, ...base, vocabSize: 50257 },
  { model: 'gpt2', method: labelled('kept in 8 bits'), batch: 4, context: 512, share: 0, ...base, vocabSize: 50257 },
  {
    model: 'gpt2',
    method: labelled('states in 8 bits'),
    batch: 4,
    context: 512,
    share: 0,
    clip: null,
    ...base,
    vocabSize: 50257,
  },
]

describe.runIf(process.platform === 'linux')('planned and measured', () => {
  const lines: string[] = []
  const write = () => {
    if (!process.env.STEEPEST_UPDATE || !long) return
    const head = [
      '# Planned against measured peak memory',
      '',
      'Every method of a memory budget, each run in a fresh process: the resident high-water above what the process held before the model, after one step of',
      'AdamW (or of the optimizer named). `share` is how much of what recomputation can take off is left: 1 is nothing recomputed. The arena, where values of a',
      'step live, is as planned to the byte in every row. Made by `STEEPEST_LONG=1 STEEPEST_UPDATE=1 npx vitest run test/train/memory-table.test.ts`.',
      '',
      '| model | parameters | method | batch × context | share | planned | measured | measured / planned | arena |',
      '|---|---|---|---|---|---|---|---|---|',
    ]
    const file = join(here, '../../bench/results/2026-11-24-memory-table.md')
    writeFileSync(file, `${[...head, ...lines].join('\n')}\n`)
  }

  test.each(long ? [...short, ...table] : short)(
    '$model by $method: $batch × $context, share $share',
    {
      timeout: 600_000,
    },
    async (row) => {
      const { stdout } = await promisify(execFile)(process.execPath, [
        join(here, 'children/method.mjs'),
        JSON.stringify(row),
      ])
      const run = JSON.parse(stdout.trim().split('\n').at(-1)!) as Measured
      const { model, method, batch, context, micros = 1, share = 1, clip } = row
      const mb = (n: number) => `${(n / 1e6).toFixed(0)} MB`
      const rows = micros > 1 ? `${micros} × ${batch} × ${context}` : `${batch} × ${context}`
      lines.push(
        `| ${model} | ${(run.parameters / 1e6).toFixed(1)} M | ${method}${clip === null ? ', clip null' : ''} | ${rows} | ${share} | ${mb(run.planned)} | ${mb(run.measured)} | ${(run.measured / run.planned).toFixed(2)} | ${mb(run.arena)} |`,
      )
      write()
      expect(run.arena).toBe(run.arenaPlanned)
      if (share < 1) expect(run.arena).toBeLessThanOrEqual(run.given)
      expect(run.measured).toBeLessThanOrEqual(run.planned * 1.05 + 32 * MB)
      expect(run.measured).toBeGreaterThanOrEqual(run.planned * 0.95 - 32 * MB)
      if (method.startsWith('activations') && share === 0) expect(run.packed).toBeGreaterThan(0)
    },
  )
})
