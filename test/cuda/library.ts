import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../house/scan.js'

/**
 * The CUDA sources on fibers, brought up to date where they have been built before (`npm run fibers`, and `.ci/run`): the first build takes
 * minutes, which is not for `npm test`. Undefined where they have not; the reporter says so.
 */
export async function fibersLibrary(): Promise<string | undefined> {
  if (!existsSync(join(root, 'build-fibers', 'CMakeCache.txt'))) return undefined
  const { buildFibers } = (await import(join(root, 'scripts', 'fibers.mjs'))) as { buildFibers(): string }
  return buildFibers()
}

/** Sets what the fake runtime is told; undefined takes a word back. */
export function tell(words: Readonly<Record<string, string | undefined>>): void {
  for (const [key, value] of Object.entries(words)) {
    if (value === undefined) delete process.env[`STEEPEST_FAKE_${key}`]
    else process.env[`STEEPEST_FAKE_${key}`] = value
  }
}
