import type { PreparedRun, StopReason, TrainEvent } from '../train/events.js'
import { type TrainOptions, trainOptions } from '../train/options.js'
import { openView } from '../train/terminal.js'
import { type Command, jsonFlag } from './support/command.js'
import { configFlag, readConfig } from './support/config-file.js'
import { onInterrupt } from './support/interrupt.js'

/** Plans a run; that of the library, or a false one in tests. */
export type Prepare = (options: TrainOptions) => Promise<PreparedRun>

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

const EXIT: Record<StopReason, number> = { done: 0, stopAfter: 0, earlyStopping: 0, interrupted: 130, nonFinite: 1 }

/** `steepest train`. */
export function trainCommand(load: () => Promise<Prepare>): Command {
  return {
    name: 'train',
    summary: 'train a small GPT on a text',
    args: [{ name: '[file]', doc: 'text to train on; by default text that is on this machine' }],
    flags: [...trainOptions.filter((o) => o.key !== 'file'), configFlag, jsonFlag],
    notes:
      'What you do not say is chosen for this machine, and said. Ctrl+C once saves and stops, twice leaves at once.',
    async run({ args, flags }, { out, env, cwd }) {
      const options = mergedOptions(args, flags, cwd)
      const prepare = await load()
      const prepared = await prepare(options)
      const view = openView(out, { json: flags.json === true, logEvery: options.logEvery, env })
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
        for await (const event of prepared.run({ signal: interrupt.signal })) {
          view.show(event)
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
    },
  }
}
