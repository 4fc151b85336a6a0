import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../addon.js'
import { nearest, SteepestError } from '../errors.js'
import type { StudyResult } from './result.js'

/** Folder of the papers, their sources and their results, in a clone as in an installed package. */
export const papersFolder = (): string => join(packageRoot, 'papers')

/** How far a paper is. */
export type PaperState = 'holds' | 'does not hold' | 'control passes' | 'not yet run' | 'not yet written'

/** A paper of the catalogue. */
export interface PaperEntry {
  name: string
  /** Title, authors and year. */
  title: string
  state: PaperState
  /** The committed result, where there is one. */
  result?: StudyResult
}

const json = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'))

/** Every paper with its state, from the committed results. */
export function catalogue(folder = papersFolder()): PaperEntry[] {
  const known = json(join(folder, 'catalogue.json')) as Record<string, string>
  const written = new Set(readdirSync(folder).map((f) => f.replace(/\.ts$/, '')))
  return Object.entries(known).map(([name, title]) => {
    const path = join(folder, 'results', `${name}.json`)
    const result = existsSync(path) ? (json(path) as StudyResult) : undefined
    const state: PaperState = !written.has(name)
      ? 'not yet written'
      : ((result?.verdict as PaperState) ?? 'not yet run')
    return { name, title, state, result }
  })
}

/**
 * The entry of a paper that can be run.
 * @throws SteepestError OPTION for an unknown name, saying the near one, or a paper that is not written yet
 */
export function paperNamed(name: string, entries: readonly PaperEntry[]): PaperEntry {
  const found = entries.find((e) => e.name === name)
  const near = nearest(
    name,
    entries.map((e) => e.name),
  )
  if (!found) {
    throw new SteepestError('OPTION', {
      who: 'paper',
      rule: `there is no paper \`${name}\``,
      fix: near ? `Did you mean \`${near}\`?` : 'steepest paper lists all',
    })
  }
  if (found.state === 'not yet written') {
    throw new SteepestError('OPTION', {
      who: `paper ${name}`,
      rule: 'is not written yet',
      fix: 'steepest paper lists all',
    })
  }
  return found
}
