import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Command, Io } from './support/command.js'
import { exitCodeOf, sentence } from './support/failure.js'
import { parse } from './support/parse.js'

const OTHERS_FIRST_MS = 3000

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

/** Of an error that all processes of a run meet the first one tells; mpirun has ended the others by then. */
async function othersFirst(env: Io['env']): Promise<void> {
  if (Number(env.OMPI_COMM_WORLD_RANK) > 0) await delay(OTHERS_FIRST_MS)
}

/**
 * Runs the command that the arguments name and gives the exit code. An error becomes one sentence on `err` (with `--json`
 * an object on `out`); the stack is shown only where STEEPEST_DEBUG is set.
 */
export async function run(argv: readonly string[], commands: readonly Command[], io: Io): Promise<number> {
  try {
    const parsed = parse(commands, version, argv)
    if ('text' in parsed) {
      io.out.write(parsed.text)
      return 0
    }
    return await parsed.command.run(parsed.input, io)
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown))
    await othersFirst(io.env)
    if (argv.includes('--json')) {
      const code = 'code' in error ? String(error.code) : error.name
      io.out.write(`${JSON.stringify({ type: 'error', code, message: sentence(error) })}\n`)
    } else {
      io.err.write(`steepest: ${sentence(error).replace(/^steepest: /, '')}\n`)
    }
    if (io.env.STEEPEST_DEBUG) io.err.write(`${error.stack}\n`)
    return exitCodeOf(error)
  }
}
