import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { estimateCommand } from '../../lib/cli/estimate.js'
import type { Checker } from '../../lib/cli/fixtures/checker.js'
import { fixturesCommand } from '../../lib/cli/fixtures.js'
import { generateCommand } from '../../lib/cli/generate.js'
import { trainCommand } from '../../lib/cli/train.js'
import { SteepestError } from '../../lib/errors.js'
import type { PreparedRun, TrainEvent } from '../../lib/train/events.js'
import { fakeRun, plan, start, stepEvent } from '../train/terminal-fake.js'
import { cli, temporaryFolder } from './cli-fake.js'

const training = (run: PreparedRun['run']) => [trainCommand(async () => async () => ({ plan, run }))]

describe('train', () => {
  test('shows the run and ends well', async () => {
    const { code, out } = await cli(
      training(async function* () {
        yield* fakeRun()
      }),
      ['train', '--log-every', '200'],
    )
    expect(code).toBe(0)
    expect(out).toContain('step 200/400  loss 3.410')
    expect(out).toMatch(/done after 400 steps in 2:40, validation loss 3.284\ncheckpoint runs\/book\/checkpoint-400\n$/)
  })

  test('with --json writes the events and nothing else', async () => {
    const { out } = await cli(
      training(async function* () {
        yield* fakeRun()
      }),
      ['train', '--json'],
    )
    const events = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as TrainEvent)
    expect(events).toEqual([...fakeRun()])
  })

  test.each([
    ['done', 0],
    ['stopAfter', 0],
    ['earlyStopping', 0],
    ['nonFinite', 1],
    ['interrupted', 130],
  ] as const)('a run that ends as %s exits with %d', async (reason, code) => {
    const ran = await cli(
      training(async function* () {
        yield start
        yield {
          type: 'stop',
          reason,
          step: 3,
          seconds: 1,
          message: 'matmul of blocks.1.mlp',
          resume: 'steepest train --resume x',
        }
      }),
      ['train'],
    )
    expect(ran.code).toBe(code)
    expect(ran.out).toContain('matmul of blocks.1.mlp\ngo on with: steepest train --resume x\n')
  })

  test('Ctrl+C aborts the signal, says so, and the run saves', async () => {
    const before = process.listenerCount('SIGINT')
    const ran = await cli(
      training(async function* ({ signal } = {}) {
        yield start
        yield stepEvent(1)
        process.emit('SIGINT')
        expect(signal?.aborted).toBe(true)
        yield { type: 'stop', reason: 'interrupted', step: 1, seconds: 1, resume: 'steepest train --resume runs/book' }
      }),
      ['train'],
    )
    expect(ran.code).toBe(130)
    expect(ran.out).toContain('warning: finishing the step, then saving; Ctrl+C again leaves at once\n')
    expect(process.listenerCount('SIGINT')).toBe(before)
  })

  test('an error is told once, without a stack, in both forms', async () => {
    const failing = training(async function* () {
      yield start
      yield { type: 'error', code: 'DATA', message: 'book.txt: is shorter than the context' }
      throw new SteepestError('DATA', { who: 'book.txt', rule: 'is shorter than the context' })
    })
    const plain = await cli(failing, ['train'])
    expect([plain.code, plain.err]).toEqual([1, ''])
    expect(plain.out).toMatch(/error: book.txt: is shorter than the context\n$/)
    const before = [
      trainCommand(
        async () => async () => Promise.reject(new SteepestError('FILE', { who: 'no.txt', rule: 'no such file' })),
      ),
    ]
    expect(await cli(before, ['train', 'no.txt'])).toEqual({
      code: 1,
      out: '',
      err: 'steepest: no.txt: no such file\n',
    })
    const json = await cli(before, ['train', '--json'])
    expect(JSON.parse(json.out)).toEqual({ type: 'error', code: 'FILE', message: 'no.txt: no such file' })
    const debug = await cli(before, ['train'], { env: { STEEPEST_DEBUG: '1' } })
    expect(debug.err).toContain('    at ')
  })
})

describe('estimate', () => {
  const commands = [estimateCommand(async () => async () => ({ plan, run: async function* () {} }))]

  test('prints the memory by holder, the largest first, and the time', async () => {
    const { out } = await cli(commands, ['estimate'])
    expect(out).toMatchInlineSnapshot(`
      "model     GPT: 6 layers, 6 heads, width 192 · 2.91M parameters · float32
      data      book.txt: 1.2 MB, 301k tokens, 10% for validation · byte pairs, 2048 entries
      steps     400, of 2,048 tokens (batch 8 × 2, context 128)
      optimizer adamw, lr 6e-4 · warm-up 20, then cosine · seed 1
      machine   2 threads · 210 GFLOP/s measured
      folder    runs/book
      chosen    layers 6: 400 steps of it take three minutes here

      memory at the peak
        activations     120 MB  64.6%
        optimizer      23.2 MB  12.5%
        other            20 MB  10.8%
        weights        11.6 MB   6.2%
        workspace         8 MB   4.3%
        gradients         3 MB   1.6%
        total           186 MB 100.0%

      work        35 GFLOP a step
      time        about 2:40, 400 ms a step
      "
    `)
  })

  test('--json gives the plan', async () => {
    const { out } = await cli(commands, ['estimate', '--json'])
    expect(JSON.parse(out)).toEqual({ type: 'start', ...plan })
  })
})

describe('generate', () => {
  const commands = [
    generateCommand(
      async () =>
        async function* (path, { tokens, topK }) {
          const place = { prompt: 0, sample: 0 }
          yield { ...place, text: ` ${path} ` }
          yield { ...place, text: `${tokens},${topK}\x1b[2J`, end: 'length' }
        },
    ),
  ]

  test('writes the prompt and the pieces as they come', async () => {
    const { code, out } = await cli(commands, [
      'generate',
      'runs/a',
      '--prompt',
      'Once',
      '--tokens',
      '5',
      '--top-k',
      '3',
    ])
    expect([code, out]).toEqual([0, 'Once runs/a 5,3\x1b[2J\n'])
  })

  test('shields a terminal from what the model writes', async () => {
    let out = ''
    await cli(commands, ['generate'], { out: { isTTY: true, write: (t) => (out += t) } })
    expect(out).not.toContain('\x1b')
  })

  test('--json', async () => {
    const { out } = await cli(commands, ['generate', '--json', '--prompt', 'A'])
    const lines = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.map((l) => l.type)).toEqual(['piece', 'piece', 'stop'])
    expect(lines[2]).toEqual({ type: 'stop', text: 'A undefined undefined,undefined\x1b[2J', end: 'length' })
  })

  test('several texts come one after the other, each when it is whole', async () => {
    const { out } = await cli(commands, ['generate', 'x', '--prompt', 'A', '--samples', '2'])
    expect(out).toBe('── 1.1\nA x undefined,undefined\x1b[2J\n')
    const { out: lines } = await cli(commands, ['generate', 'x', '--samples', '2', '--json'])
    expect(JSON.parse(lines.split('\n')[0])).toEqual({ type: 'piece', prompt: 0, sample: 0, text: ' x ' })
  })
})

describe('fixtures', () => {
  const numbers: Checker = {
    kind: 'numbers',
    recognizes: ({ json, folder }) => !folder && Array.isArray(json),
    check: async ({ json }) =>
      (json as number[]).map((entry, i) => ({
        what: `entry ${i}`,
        error: entry < 0 ? Number.NaN : entry,
        bound: 1e-9,
        ok: entry === 7 ? true : undefined,
      })),
  }
  const model: Checker = {
    kind: 'model',
    recognizes: ({ folder }) => folder,
    check: async () => {
      throw new SteepestError('FORMAT', { who: 'config.json', rule: 'unknown architecture', got: 'x' })
    },
  }
  const commands = [fixturesCommand(async () => [numbers, model])]
  const check = async (files: Record<string, string>, ...more: string[]) => {
    const cwd = temporaryFolder()
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(join(cwd, path, '..'), { recursive: true })
      writeFileSync(join(cwd, path), text)
    }
    return cli(commands, ['fixtures', '.', ...more], { cwd })
  }

  test('holds', async () => {
    const { code, out } = await check({ 'a.json': '[0, 1e-10]', 'deep/er/b.json': '[7]', 'README.md': '# About\n' })
    expect(out.split('\n')).toEqual([
      'ok  README.md  documentation: nothing to compare',
      'ok  a.json  numbers: entry 0  error 0.0e+0 of 1e-9',
      'ok  a.json  numbers: entry 1  error 1.0e-10 of 1e-9',
      'ok  deep/er/b.json  numbers: entry 0  error 7.0e+0 of 1e-9',
      '2 fixtures, all hold',
      '',
    ])
    expect(code).toBe(0)
  })

  test.each([
    ['a value that is off', { 'a.json': '[1e-8]' }, 'FAILED  a.json  numbers: entry 0  error 1.0e-8 of 1e-9'],
    ['a value that is no number', { 'a.json': '[-1]' }, 'FAILED  a.json  numbers: entry 0  error NaN of 1e-9'],
    ['an unknown kind', { 'a.json': '{}' }, 'FAILED  a.json  unknown: no checker knows contents like these'],
    ['a file that is no JSON', { 'a.bin': 'x' }, 'FAILED  a.bin  unknown: it is not JSON'],
    ['a fixture with nothing in it', { 'a.json': '[]' }, 'FAILED  a.json  numbers: nothing in it could be compared'],
    [
      'a checker that throws',
      { 'm/config.json': '{}', 'm/training.json': '{}' },
      'FAILED  m  model: config.json: unknown architecture; got x',
    ],
    [
      'a stray file in the folder of a model',
      { 'm/config.json': '{}', 'm/training.json': '{}', 'm/model.safetensors': '', 'm/odd.json': '{}' },
      'FAILED  m/odd.json  unknown: no checker knows contents like these',
    ],
  ])('%s fails', async (_, files, line) => {
    const { code, out } = await check(files as Record<string, string>)
    expect(out).toContain(line)
    expect(code).toBe(1)
  })

  test('no file and no folder are errors', async () => {
    const none = await check({ 'README.md': '# Only this' })
    expect([none.code, none.err]).toEqual([1, 'steepest: .: there is no fixture here. Name a folder that holds some\n'])
    const missing = await cli(commands, ['fixtures', 'nowhere'])
    expect([missing.code, missing.err]).toEqual([1, 'steepest: nowhere: no such file or folder\n'])
  })

  test('--json writes a line per comparison and the counts', async () => {
    const { out } = await check({ 'a.json': '[0]', 'b.json': '[1]' }, '--json')
    expect(
      out
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual([
      { type: 'fixture', file: 'a.json', kind: 'numbers', what: 'entry 0', error: 0, bound: 1e-9, ok: true },
      { type: 'fixture', file: 'b.json', kind: 'numbers', what: 'entry 0', error: 1, bound: 1e-9, ok: false },
      { type: 'stop', files: 2, failures: 1 },
    ])
  })
})
