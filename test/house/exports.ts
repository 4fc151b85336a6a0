import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { root } from './scan.js'

/** A name that a module exports. */
export interface Export {
  name: string
  kind: 'function' | 'class' | 'const' | 'type' | 'namespace'
  /** The file that declares it, below lib. */
  file: string
  /** The text of the docstring in front of it; absent where there is none. */
  doc?: string
}

const DECLARED =
  /^export (?:declare )?(?:abstract )?(?:async )?(?:(function|class|interface|type|enum)\*? +(\w+)|(const|let) +(\w+|\{[^}]*\}))/gm
const KINDS = {
  function: 'function',
  class: 'class',
  const: 'const',
  let: 'const',
  enum: 'const',
  interface: 'type',
  type: 'type',
} as const

/** The docstring that ends right before a place; lines for the linter may stand between. */
function docBefore(source: string, at: number): string | undefined {
  const before = source.slice(0, at).replace(/(^\/\/ biome-ignore.*\n|^@\w.*\n)+$/m, '')
  const match = /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*$/.exec(before)
  return match?.[1].replace(/\s*\n\s*\*\s*/g, ' ').trim()
}

/** The declarations of a file that carry `export` themselves. Overloads are one export, documented at the first. */
function declaredIn(file: string, source: string): Export[] {
  const found = new Map<string, Export>()
  for (const match of source.matchAll(DECLARED)) {
    const kind = KINDS[(match[1] ?? match[3]) as keyof typeof KINDS]
    const names = (match[2] ?? match[4]).replace(/[{}]/g, '').split(',')
    for (const each of names) {
      const name = each.split(':').at(-1)!.trim()
      if (name === '' || found.get(name)?.kind === kind) continue
      const known = found.get(name)
      // A type and a value of one name are one entry: the value's.
      if (known && known.kind !== 'type') continue
      const doc = docBefore(source, match.index) ?? known?.doc
      found.set(name, { name, kind, file, doc })
    }
  }
  return [...found.values()]
}

/** Every name that a module of lib exports, its own and those that it hands on. */
export function exportsOf(file: string): Export[] {
  const source = readFileSync(join(root, 'lib', file), 'utf8')
  const target = (path: string) => join(dirname(file), path).replace(/\.js$/, '.ts')
  const list = declaredIn(file, source)
  const from = (path: string, name: string) => exportsOf(target(path)).find((e) => e.name === name)
  for (const [, path] of source.matchAll(/^export \* from '(\.[^']*)'/gm)) list.push(...exportsOf(target(path)))
  for (const [, name, path] of source.matchAll(/^export \* as (\w+) from '(\.[^']*)'/gm)) {
    list.push({ name, kind: 'namespace', file: target(path), doc: name })
    list.push(...exportsOf(target(path)).map((e) => ({ ...e, name: `${name}.${e.name}` })))
  }
  for (const match of source.matchAll(/^export (type )?\{([^}]*)\}(?: from '(\.[^']*)')?/gm)) {
    for (const part of match[2].split(',')) {
      const words = part.trim().replace(/^type /, '')
      // A class that is handed on as a type has no value outside.
      const typeOnly = Boolean(match[1]) || words !== part.trim()
      if (words === '') continue
      const [inner, outer = inner] = words.split(/\s+as\s+/)
      const found = match[3] ? from(match[3], inner) : imported(source, inner, from)
      if (!found) throw new Error(`${file} exports ${inner}, whose declaration was not found`)
      list.push({ ...found, name: outer, kind: typeOnly ? 'type' : found.kind })
      if (found.kind === 'namespace') {
        for (const e of exportsOf(found.file)) list.push({ ...e, name: `${outer}.${e.name}` })
      }
    }
  }
  return list
}

/** A name that a file hands on after it imported or declared it. */
function imported(
  source: string,
  name: string,
  from: (path: string, name: string) => Export | undefined,
): Export | undefined {
  for (const [, names, path] of source.matchAll(/^import (?:type )?\{([^}]*)\} from '(\.[^']*)'/gm)) {
    const own = names.split(',').map((n) =>
      n
        .trim()
        .replace(/^type /, '')
        .split(/\s+as\s+/),
    )
    const match = own.find((pair) => (pair[1] ?? pair[0]) === name)
    if (match) return from(path, match[0])
  }
  const local = source.replace(/^(function|class|const|interface|type)\b/gm, 'export $1')
  return declaredIn('', local).find((e) => e.name === name)
}
