import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { SteepestError } from '../../errors.js'
import { checkRecord, type OptionSpec, type OptionsOf } from '../../train/spec.js'

/** The name of a config file that is read without being named. */
export const CONFIG_FILE = 'steepest.json'

/** `--config`, for the commands whose flags may stand in a file. */
export const configFlag = {
  key: 'config',
  type: 'text',
  group: 'output',
  value: 'FILE',
  doc: 'file with the same options as keys; flags win',
  chosen: `${CONFIG_FILE} where there is one`,
} as const satisfies OptionSpec

/**
 * The options of a config file, checked; empty when none is named and the folder has no `steepest.json`.
 * @throws SteepestError FILE, FORMAT or OPTION with the file's name
 */
export function readConfig<L extends readonly OptionSpec[]>(
  specs: L,
  named: string | undefined,
  cwd: string,
): { options: OptionsOf<L>; path?: string } {
  const path = named === undefined ? join(cwd, CONFIG_FILE) : resolve(cwd, named)
  const who = named ?? CONFIG_FILE
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && named === undefined) return { options: {} as OptionsOf<L> }
    const rule = code === 'ENOENT' ? 'no such config file' : `the config file cannot be read (${code})`
    throw new SteepestError('FILE', { who, rule }, { cause: error })
  }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new SteepestError('FORMAT', { who, rule: `must be JSON: ${(error as Error).message}` }, { cause: error })
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new SteepestError('FORMAT', { who, rule: 'must hold a JSON object with options as keys' })
  }
  const { $schema: _, ...record } = json as Record<string, unknown>
  return { options: checkRecord(who, specs, record), path }
}
