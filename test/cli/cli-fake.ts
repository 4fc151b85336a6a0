import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { run } from '../../lib/cli/run.js'
import type { Command, Io } from '../../lib/cli/support/command.js'

/** A folder that lives as long as the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'steepest-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** What a command wrote and gave. */
export interface Ran {
  code: number
  out: string
  err: string
}

/** Runs a command line against commands, with streams that keep what is written. */
export async function cli(commands: readonly Command[], argv: readonly string[], io: Partial<Io> = {}): Promise<Ran> {
  const ran: Ran = { code: -1, out: '', err: '' }
  ran.code = await run(argv, commands, {
    out: { write: (text: string) => (ran.out += text) },
    err: { write: (text: string) => (ran.err += text) },
    env: { LANG: 'C.UTF-8', NO_COLOR: '1' },
    cwd: temporaryFolder(),
    ...io,
  })
  return ran
}
