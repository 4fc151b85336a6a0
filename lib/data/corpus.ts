import { readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { arch, platform } from 'node:os'
import { dirname, join } from 'node:path'
import { SteepestError } from '../errors.js'

/** Text that is on this machine already. */
export interface Corpus {
  /** What it is, for people. */
  readonly name: string
  readonly text: string
  /** Why it is not the text that is taken by default; absent where it is. */
  readonly note?: string
}

/** Files of which a text may be made. */
export interface Candidate {
  readonly name: string
  files(): string[]
}

const require = createRequire(import.meta.url)

/** A text shorter than this teaches a model nothing. */
const LEAST = 200_000
/** Text beyond this is left out where many packages are gathered. */
const MOST = 8_000_000

/** Characters a line of files that are no text for people, such as minified code. */
const LONG_LINES = 200

/** The folder of an installed package, found as `import` finds it. */
function packageFolder(name: string, from = require): string | undefined {
  for (const base of from.resolve.paths(name) ?? []) {
    const folder = join(base, name)
    if (statSync(join(folder, 'package.json'), { throwIfNoEntry: false })) return realpathSync(folder)
  }
  return undefined
}

function filesOf(folder: string | undefined, ending: RegExp, recursive = false): string[] {
  if (folder === undefined || !statSync(folder, { throwIfNoEntry: false })) return []
  const names = readdirSync(folder, { recursive, encoding: 'utf8' }).filter(
    (name) => ending.test(name) && !/(^|[\\/])node_modules[\\/]/.test(name),
  )
  return names.sort().map((name) => join(folder, name))
}

/** TypeScript 7 keeps the declarations of the platform in a package of the platform, older ones in their own. */
const typescript: Candidate = {
  name: "TypeScript's platform declarations",
  files() {
    const main = packageFolder('typescript')
    const own = `@typescript/typescript-${platform()}-${arch()}`
    const folder = packageFolder(own) ?? (main && packageFolder(own, createRequire(join(main, 'package.json')))) ?? main
    return filesOf(folder && join(folder, 'lib'), /^lib\..*\.d\.ts$/)
  },
}

const nodeTypes: Candidate = {
  name: "Node's type declarations",
  files: () => filesOf(packageFolder('@types/node'), /\.d\.ts$/, true),
}

/** The packages that steepest needs are there wherever it is. */
const ownPackages: Candidate = {
  name: 'the sources of steepest and of the packages that it is made with',
  files: () => {
    const root = join(dirname(realpathSync(new URL(import.meta.url))), '../..')
    const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      dependencies: Record<string, string>
    }
    const own = ['lib', 'dist'].flatMap((folder) => filesOf(join(root, folder), /\.(d\.ts|js|ts|md)$/, true))
    return [
      ...own,
      ...Object.keys(dependencies).flatMap((name) => filesOf(packageFolder(name), /\.(d\.ts|[mc]?js|ts|md)$/, true)),
    ]
  },
}

/** The files one after the other. */
function concatenate(paths: readonly string[]): string {
  let length = 0
  const texts: string[] = []
  for (const path of paths) {
    if (length >= MOST) break
    const text = readFileSync(path, 'utf8')
    if (text.length / text.split('\n').length > LONG_LINES) continue
    texts.push(text)
    length += text.length
  }
  return texts.join('\n')
}

/**
 * The text that a run without a file trains on: the declaration files of TypeScript's platform package, some 3 MB of code and
 * English. Where that package is absent, the next best text that is installed, with a `note`.
 *
 * @throws SteepestError DATA where there is none
 */
export function defaultCorpus(candidates: readonly Candidate[] = [typescript, nodeTypes, ownPackages]): Corpus {
  for (const candidate of candidates) {
    const files = candidate.files()
    const text = concatenate(files)
    if (text.length < LEAST) continue
    const name = `${candidate.name} (${files.length} files)`
    const missing = candidates[0].name
    return candidate === candidates[0]
      ? { name, text }
      : { name, text, note: `${missing} are not installed, so this run learns from ${candidate.name}` }
  }
  throw new SteepestError('DATA', {
    who: 'train',
    rule: 'there is no text on this machine to train on by default',
    fix: 'Name one: steepest train book.txt',
  })
}
