import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { extname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { prepareTraining } from '../../lib/train/gpt/prepare.js'
import type { TrainEvent } from '../../lib/train/events.js'
import type { FinetuneOptions } from '../../lib/train/finetune/options.js'
import { prepareFinetune } from '../../lib/train/finetune/prepare.js'
import { root } from '../house/scan.js'

const cwd = mkdtempSync(join(tmpdir(), 'steepest-real-'))
afterAll(() => rmSync(cwd, { recursive: true, force: true }))

/** Lines of real text: the project's own prose, TypeScript and C++. */
function linesOf(dir: string, kind: string): string[] {
  const files = readdirSync(join(root, dir), { recursive: true, encoding: 'utf8' }).filter((f) => extname(f) === kind)
  const lines = files.sort().flatMap((f) => readFileSync(join(root, dir, f), 'utf8').split('\n'))
  return lines.map((l) => l.trim()).filter((l) => l.length > 30 && l.length < 90)
}

async function collect(run: AsyncIterable<TrainEvent>): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of run) events.push(event)
  return events
}

const METHODS: readonly (readonly [name: string, options: FinetuneOptions])[] = [
  ['all weights', { lr: 1e-3 }],
  ['LoRA', { lr: 1e-2, lora: 8 }],
  ['FRUGAL', { lr: 1e-3, lowrank: 'frugal' }],
  ['WTA-CRS', { lr: 1e-3, sampled: 0.5 }],
]

describe.runIf(process.env.STEEPEST_LONG)('a GPT-2 that was trained on real text', () => {
  beforeAll(async () => {
    const kinds = {
      prose: linesOf('docs', '.md'),
      typescript: linesOf('lib/ops', '.ts'),
      cpp: linesOf('native/cpu', '.cc'),
    }
    const book = Object.values(kinds).flatMap((lines) => lines.slice(0, 1500))
    writeFileSync(join(cwd, 'book.txt'), book.join('\n'))
    const sizes = { layers: 2, heads: 2, width: 64, context: 64, vocab: 512, batch: 16, steps: 300 }
    const { run } = await prepareTraining({ file: 'book.txt', ...sizes, out: 'pre', seed: 1 }, { cwd })
    await collect(run())
    const some = (lines: string[]) => lines.filter((_, i) => i % Math.ceil(lines.length / 160) === 0)
    const rows = (f: (line: string, kind: string) => object) =>
      Object.entries(kinds)
        .flatMap(([kind, lines]) => some(lines).map((line) => JSON.stringify(f(line, kind))))
        .join('\n')
    writeFileSync(
      join(cwd, 'classes.jsonl'),
      rows((text, label) => ({ text, label })),
    )
    writeFileSync(
      join(cwd, 'pairs.jsonl'),
      rows((line, kind) => ({ prompt: `${line}\nThis is`, completion: kind })),
    )
  }, 300_000)

  const tuned = async (options: FinetuneOptions) => {
    const model = join(
      cwd,
      'pre',
      readdirSync(join(cwd, 'pre'))
        .filter((n) => n.startsWith('checkpoint-'))
        .sort()
        .at(-1)!,
    )
    const { run } = await prepareFinetune({ model, validation: 0.2, seed: 1, ...options }, { cwd })
    return (await collect(run())).flatMap((e) => (e.type === 'eval' ? [e] : [])).at(-1)!
  }

  test.each(METHODS)(
    'by %s tells three kinds of lines: accuracy 25 points above that of the untuned, and above 0.75',
    async (name, options) => {
      const before = await tuned({ data: 'classes.jsonl', steps: 1, lr: 1e-9, out: `c0 ${name}` })
      const after = await tuned({ data: 'classes.jsonl', epochs: 6, ...options, out: `c1 ${name}` })
      expect(after.metrics!.accuracy).toBeGreaterThan(Math.max(0.75, before.metrics!.accuracy + 0.25))
    },
    200_000,
  )

  test.each(METHODS)(
    'by %s answers prompts: less than half of the loss of the untuned',
    async (name, options) => {
      const before = await tuned({ data: 'pairs.jsonl', steps: 1, lr: 1e-9, out: `p0 ${name}` })
      const after = await tuned({ data: 'pairs.jsonl', epochs: 6, ...options, out: `p1 ${name}` })
      expect(after.loss).toBeLessThan(0.5 * before.loss)
    },
    200_000,
  )
})
