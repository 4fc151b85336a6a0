import { relative, resolve } from 'node:path'
import type { PreparedRun, StopReason, TrainEvent } from '../train/events.js'
import { launchedProcesses, joinProcesses, leaveProcesses, type Processes } from '../train/parallel.js'
import { drawingLoss } from '../train/loss-file.js'
import { type TrainOptions, trainOptions } from '../train/options.js'
import { openView } from '../train/terminal.js'
import { type Command, type Input, type Io, jsonFlag } from './support/command.js'
import { configFlag, readConfig } from './support/config-file.js'
import { onInterrupt } from './support/interrupt.js'

/** Plans a run; that of the library, or a false one in tests. `onProgress` is told what is being done and the share that is done, 0 to 1. */
export type Prepare = (
  options: TrainOptions,
  context?: { cwd?: string; onProgress?: (what: string, done: number) => void; processes?: Processes },
) => Promise<PreparedRun>

/** What the user said in flags and in a config file; flags win. */
export function mergedOptions(
  args: readonly string[],
  flags: Readonly<Record<string, string | number | boolean>>,
  cwd: string,
): TrainOptions {
  const { config, json: _, ...given } = flags
  const { options } = readConfig(trainOptions, config as string | undefined, cwd)
  return { ...options, ...given, ...(args[0] === undefined ? {} : { file: args[0] }) } as TrainOptions
}

/** On a terminal, what is being prepared and how far it is; the line is gone when the run begins. */
export function showPreparing({ err, env }: Io): { onProgress?: (what: string, done: number) => void; end(): void } {
  if (!err.isTTY || env.TERM === 'dumb') return { end() {} }
  let shown = ''
  return {
    onProgress(what, done) {
      const line = `${what} ${Math.floor(100 * done)}%`
      if (line === shown) return
      err.write(`\r\x1b[K${line}`)
      shown = line
    },
    end() {
      if (shown !== '') err.write('\r\x1b[K')
    },
  }
}

/** Plans a run and says meanwhile how far that is. */
export async function prepared(
  prepare: Prepare,
  options: TrainOptions,
  io: Io,
  processes?: Processes,
): Promise<PreparedRun> {
  const preparing = showPreparing(io)
  try {
    return await prepare(options, { cwd: io.cwd, onProgress: preparing.onProgress, processes })
  } finally {
    preparing.end()
  }
}

const EXIT: Record<StopReason, number> = { done: 0, stopAfter: 0, earlyStopping: 0, interrupted: 130, nonFinite: 1 }

/** Shows a run as it goes on: a live view on a terminal, else lines; Ctrl+C once finishes the step and saves. Gives the exit code. */
export async function showRun(
  planned: PreparedRun,
  { flags }: Input,
  logEvery: number | undefined,
  io: Io,
): Promise<number> {
  const { out, env, cwd } = io
  const view = openView(out, { json: flags.json === true, logEvery, env })
  let last: TrainEvent | undefined
  const interrupt = onInterrupt(
    () => {
      const message = 'finishing the step, then saving; Ctrl+C again leaves at once'
      view.show({ type: 'warning', step: last && 'step' in last ? last.step : 0, message })
    },
    (code) => {
      view.close()
      process.exit(code)
    },
  )
  try {
    const events = planned.run({ signal: interrupt.signal })
    const { out: folder, data } = planned.plan
    for await (const event of folder ? drawingLoss(events, resolve(cwd, folder), data.split(': ')[0]) : events) {
      // A path below the folder that the user is in is shown from there.
      const near = 'path' in event && event.path ? relative(cwd, event.path) : ''
      view.show(flags.json || near === '' || near.startsWith('..') ? event : ({ ...event, path: near } as TrainEvent))
      last = event
    }
  } catch (error) {
    // What an error event has told is not told twice.
    if (last?.type !== 'error' || env.STEEPEST_DEBUG) throw error
    return 1
  } finally {
    interrupt.end()
    view.close()
  }
  return last?.type === 'stop' ? EXIT[last.reason] : 1
}

/** A run that `mpirun` has started: the first process tells how it goes, the others only train. */
async function amongProcesses(
  prepare: Prepare,
  options: TrainOptions,
  input: Input,
  io: Io,
  quiet: Io,
): Promise<number> {
  const processes = joinProcesses(io.env)
  let saved: string | undefined
  // When a process is gone the others wait for its gradients, until mpirun ends them.
  process.once('SIGTERM', () => {
    if (processes.rank === 0) {
      const from = saved
        ? `; go on from the last whole state with: steepest train --resume ${saved}`
        : '; it had not saved yet'
      io.err.write(`steepest: mpirun ends the run, as it was interrupted or a process of it is gone${from}\n`)
    }
    process.exit(143)
  })
  let code = 0
  if (processes.rank === 0) {
    const planned = await prepared(prepare, options, quiet, processes)
    code = await showRun(
      noting(planned, (path) => (saved = path)),
      input,
      options.logEvery,
      io,
    )
  } else {
    const planned = await prepared(prepare, options, { ...io, err: { write() {} } }, processes)
    // Ctrl+C reaches all; the first process says for all of them when the run ends.
    process.on('SIGINT', () => undefined)
    for await (const event of planned.run()) if (event.type === 'stop') code = EXIT[event.reason]
  }
  if (code === 0 || code === 130) leaveProcesses()
  return code
}

/** The same run, of which `saved` learns every checkpoint. */
const noting = (planned: PreparedRun, saved: (path: string) => void): PreparedRun => ({
  ...planned,
  run: async function* (options) {
    for await (const event of planned.run(options)) {
      if (event.type === 'save') saved(event.path)
      yield event
    }
  },
})

/** `steepest train`. */
export function trainCommand(load: () => Promise<Prepare>): Command {
  return {
    name: 'train',
    summary: 'train a small GPT on a text',
    args: [{ name: '[file]', doc: 'text to train on; by default text that is on this machine' }],
    flags: [...trainOptions.filter((o) => o.key !== 'file'), configFlag, jsonFlag],
    notes:
      'What you do not say is chosen for this machine, and said. Ctrl+C once saves and stops, twice leaves at once.',
    async run(input, io) {
      const { args, flags } = input
      const options = mergedOptions(args, flags, io.cwd)
      const prepare = await load()
      const quiet = flags.json ? { ...io, err: { write() {} } } : io
      if (launchedProcesses(io.env) === 1) {
        return showRun(await prepared(prepare, options, quiet), input, options.logEvery, io)
      }
      return amongProcesses(prepare, options, input, io, quiet)
    },
  }
}
