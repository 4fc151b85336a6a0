import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { TrainEvent } from '../../lib/train/events.js'
import { root } from '../house/scan.js'
import { temporaryFolder } from './cli-fake.js'

const main = join(root, 'dist', 'cli', 'main.js')
const SMALL = [
  '--layers',
  '1',
  '--width',
  '32',
  '--heads',
  '2',
  '--context',
  '32',
  '--batch',
  '4',
  '--tokenizer',
  'bytes',
]

/** A folder with a text that is long enough for everything. */
function withText(): string {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'book.txt'), Array.from({ length: 3000 }, (_, i) => `line ${i} of the book\n`).join(''))
  return folder
}

interface Ended {
  code: number | null
  signal: string | null
  out: string
  err: string
}

/** The command as a process of its own; `see` gets the child and what it has written so far. */
function steepest(
  argv: readonly string[],
  cwd: string,
  see?: (child: ChildProcess, out: string) => void,
): Promise<Ended> {
  const child = spawn(process.execPath, [main, ...argv], {
    cwd,
    env: { ...process.env, NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  let [out, err] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text
    see?.(child, out)
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text
  })
  return new Promise((done) => child.on('close', (code, signal) => done({ code, signal, out, err })))
}

const eventsOf = (out: string): TrainEvent[] =>
  out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as TrainEvent)

describe('bad input is one clear sentence', () => {
  test.each([
    [
      'a missing text',
      ['no.txt'],
      1,
      /^steepest: .*no\.txt: .*(no such file|there is no such file|does not exist).*\n$/,
    ],
    [
      'heads that do not divide the width',
      ['book.txt', '--width', '100', '--heads', '3'],
      2,
      /^steepest: heads: .*divide.*3 heads for width 100.*--width 102.*\n$/,
    ],
    [
      'an unknown optimizer',
      ['book.txt', '--optimizer', 'adamv'],
      2,
      /^steepest: optimizer: unknown optimizer `adamv`. Did you mean `adamw?`\?\n$/,
    ],
    [
      'a context longer than the text',
      ['book.txt', ...SMALL, '--context', '900000'],
      1,
      /^steepest: .*book\.txt: .*longer than the context.*\n$/,
    ],
    ['a checkpoint that is not there', ['--resume', 'runs/none'], 1, /^steepest: .*runs\/none: .*\n$/],
    ['a tokenizer that is not there', ['book.txt', '--tokenizer', 'no.json'], 1, /^steepest: .*no\.json: .*\n$/],
  ] as const)('%s', async (_, argv, code, sentence) => {
    const folder = withText()
    const ended = await steepest(['train', ...argv], folder)
    expect(ended.err).toMatch(sentence)
    expect([ended.code, ended.out]).toEqual([code, ''])
    expect(existsSync(join(folder, 'runs'))).toBe(false)
  })

  test('an empty text', async () => {
    const folder = withText()
    writeFileSync(join(folder, 'empty.txt'), '')
    const ended = await steepest(['train', 'empty.txt'], folder)
    expect(ended.err).toMatch(/^steepest: .*empty\.txt: the text must not be empty.*\n$/)
    expect(ended.code).toBe(1)
  })

  test('a checkpoint of another model', async () => {
    const folder = withText()
    expect((await steepest(['train', 'book.txt', ...SMALL, '--steps', '4', '--stop-after', '2'], folder)).code).toBe(0)
    const ended = await steepest(['train', '--resume', 'runs/book', '--width', '64'], folder)
    expect(ended.out).toMatch(/^error: [^[].*the checkpoint is of another model.*\n$/m)
    expect([ended.code, ended.err]).toEqual([1, ''])
  })
})

describe('a run', () => {
  test('leaves a log, a picture and checkpoints, and stops where it is told', async () => {
    const folder = withText()
    const { code, out } = await steepest(
      ['train', 'book.txt', ...SMALL, '--steps', '12', '--stop-after', '8', '--json'],
      folder,
    )
    expect(code, out).toBe(0)
    const events = eventsOf(out)
    expect(events[0]).toMatchObject({ type: 'start', steps: 12, batch: 4 })
    expect(events.at(-1)).toMatchObject({
      type: 'stop',
      reason: 'stopAfter',
      step: 8,
      resume: 'steepest train --resume runs/book',
    })
    const run = join(folder, 'runs', 'book')
    expect(readdirSync(run).sort()).toEqual(['checkpoint-8', 'loss.svg', 'run.jsonl'])
    expect(readdirSync(join(run, 'checkpoint-8')).sort()).toEqual(
      [
        'config.json',
        'model.safetensors',
        'optimizer.safetensors',
        'state.json',
        'tokenizer.json',
        'tokenizer_config.json',
      ].sort(),
    )
    expect(readFileSync(join(run, 'run.jsonl'), 'utf8').trimEnd().split('\n')).toHaveLength(events.length)

    const resumed = await steepest(['train', '--resume', 'runs/book'], folder)
    expect(resumed.code, resumed.err).toBe(0)
    expect(resumed.out).toMatch(/done after 12 steps/)
    const text = await steepest(['generate', 'runs/book', '--tokens', '5', '--prompt', 'line 1'], folder)
    expect([text.code, text.err]).toEqual([0, ''])
    expect(text.out).toMatch(/^line 1[\s\S]*\n$/)
  })

  test('Ctrl+C once finishes the step, saves, and prints the command that goes on', async () => {
    const folder = withText()
    let sent = false
    const { code, out } = await steepest(
      ['train', 'book.txt', ...SMALL, '--steps', '1000000', '--json'],
      folder,
      (child, text) => {
        if (sent || !text.includes('"type":"step"')) return
        sent = true
        child.kill('SIGINT')
      },
    )
    expect(code, out.slice(-500)).toBe(130)
    const last = eventsOf(out).at(-1)
    expect(last).toMatchObject({ type: 'stop', reason: 'interrupted', resume: 'steepest train --resume runs/book' })
    const { step } = last as { step: number }
    expect(existsSync(join(folder, 'runs', 'book', `checkpoint-${step}`, 'state.json'))).toBe(true)
    const more = String(step + 3)
    const on = await steepest(['train', '--resume', 'runs/book', '--stop-after', more, '--json'], folder)
    expect(eventsOf(on.out).at(-1)).toMatchObject({ reason: 'stopAfter', step: step + 3 })
  })

  test('Ctrl+C twice leaves at once', async () => {
    const folder = withText()
    let sent = 0
    const { code } = await steepest(
      ['train', 'book.txt', ...SMALL, '--steps', '1000000', '--json'],
      folder,
      (child, text) => {
        if (sent > 0 || !text.includes('"type":"step"')) return
        sent++
        child.kill('SIGINT')
        child.kill('SIGTERM')
      },
    )
    expect([130, 143]).toContain(code)
  })

  test('an existing run is not written over', async () => {
    const folder = withText()
    const train = (...more: string[]) => steepest(['train', 'book.txt', ...SMALL, '--steps', '2', ...more], folder)
    expect((await train('--out', 'mine')).code).toBe(0)
    const again = await train('--out', 'mine')
    expect(again.err).toMatch(/^steepest: mine: .*--resume mine.*\n$/)
    expect((await train()).code).toBe(0)
    expect((await train()).code).toBe(0)
    expect(readdirSync(join(folder, 'runs')).sort()).toEqual(['book', 'book-2'])
  })

  test('estimate gives the memory and the time, and trains nothing', async () => {
    const folder = withText()
    const { code, out } = await steepest(['estimate', 'book.txt', ...SMALL], folder)
    expect(code).toBe(0)
    for (const word of ['weights', 'gradients', 'optimizer', 'activations', 'workspace', 'total', 'time'])
      expect(out).toContain(word)
    expect(existsSync(join(folder, 'runs'))).toBe(false)
  })

  test('the flags may stand in a file', async () => {
    const folder = withText()
    writeFileSync(
      join(folder, 'steepest.json'),
      JSON.stringify({ file: 'book.txt', layers: 1, width: 32, context: 32, batch: 4, steps: 3, tokenizer: 'bytes' }),
    )
    const { out } = await steepest(['train', '--steps', '2', '--json'], folder)
    expect(eventsOf(out)[0]).toMatchObject({ type: 'start', steps: 2, context: 32 })
  })
})
