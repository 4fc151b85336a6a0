import { readFileSync } from 'node:fs'
import type { Command, Io } from './support/command.js'
import { exitCodeOf, sentence } from './support/failure.js'
import { parse } from './support/parse.js'

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string
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
