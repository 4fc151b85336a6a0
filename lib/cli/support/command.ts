import type { OptionSpec } from '../../train/spec.js'
import type { Output } from '../../train/terminal.js'

/** Where a command reads and writes; tests hand in their own. */
export interface Io {
  out: Output
  err: Output
  env: Readonly<Record<string, string | undefined>>
  /** The folder that relative paths start from. */
  cwd: string
}

/** What the user gave a command, checked: flags by their keys. */
export interface Input {
  args: string[]
  flags: Record<string, string | number | boolean>
}

/** A command is one file that exports one of these. */
export interface Command {
  name: string
  /** One line for the list of commands. */
  summary: string
  /** Positional arguments as commander writes them: `[file]`, `<dir...>`. */
  args?: { name: string; doc: string }[]
  flags: readonly OptionSpec[]
  /** Lines below the help. */
  notes?: string
  /** Does the work and gives the exit code. */
  run(input: Input, io: Io): Promise<number>
}

/** `--json`, for the commands that have it. */
export const jsonFlag = {
  key: 'json',
  type: 'switch',
  group: 'output',
  default: false,
  doc: 'one JSON object per line',
} as const satisfies OptionSpec
