import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The root of the repository. */
export const root = join(dirname(fileURLToPath(import.meta.url)), '../..')

/** All files below a folder of the repository, as paths from that folder, sorted. */
export function filesBelow(folder: string, ending: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((f) => ending.test(f))
    .sort()
}

export interface Edge {
  to: string
  /** A type-only import is erased: it cannot make a cycle at run time. */
  typeOnly: boolean
}

/** The relative imports and re-exports of a TypeScript source, as paths below lib. */
export function importsOf(file: string, source: string): Edge[] {
  const edges: Edge[] = []
  const text = source.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
  for (const match of text.matchAll(/\b(import|export)\s+(type\s+)?([^'";]*?)\bfrom\s*'(\.[^']*)'/g)) {
    const names = match[3].trim()
    const inner = names.startsWith('{')
      ? names
          .slice(1, -1)
          .split(',')
          .filter((n) => n.trim())
      : []
    const typeOnly = Boolean(match[2]) || (inner.length > 0 && inner.every((n) => n.trim().startsWith('type ')))
    edges.push({ to: join(dirname(file), match[4]).replace(/\.js$/, '.ts'), typeOnly })
  }
  for (const match of text.matchAll(/\bimport\s*\(?\s*'(\.[^']*)'/g)) {
    edges.push({ to: join(dirname(file), match[1]).replace(/\.js$/, '.ts'), typeOnly: false })
  }
  return edges
}

/** Every cycle of the graph as a list of files, one per strongly connected part that has one. */
export function cycles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = []
  const done = new Set<string>()
  const path: string[] = []
  const visit = (node: string) => {
    const at = path.indexOf(node)
    if (at >= 0) {
      found.push([...path.slice(at), node])
      return
    }
    if (done.has(node)) return
    path.push(node)
    for (const next of graph.get(node) ?? []) visit(next)
    path.pop()
    done.add(node)
  }
  for (const node of graph.keys()) visit(node)
  return found
}
