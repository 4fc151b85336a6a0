import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { cycles, filesBelow, importsOf, root } from './scan.js'

const lib = join(root, 'lib')

/**
 * Imports point down this list, or stay on a line. `errors.ts` and generated lists are free to all; `index.ts` may import
 * anything. An import of types alone is erased and may point anywhere.
 */
const layers = [
  ['cli'],
  ['study'],
  ['train'],
  ['models', 'data', 'io'],
  ['memory', 'optim', 'nn'],
  ['transform'],
  ['graph'],
  ['ops'],
  ['tensor'],
  ['addon', 'device', 'installed'],
]

const level = (path: string): number | undefined => {
  const top = path.split('/')[0].replace(/\.ts$/, '')
  const at = layers.findIndex((names) => names.includes(top))
  return at < 0 ? undefined : at
}

const files = filesBelow('lib', /\.ts$/)
const edges = new Map(files.map((f) => [f, importsOf(f, readFileSync(join(lib, f), 'utf8'))]))

describe('imports', () => {
  test('every file is on a layer', () => {
    const free = ['errors.ts', 'index.ts']
    expect(files.filter((f) => level(f) === undefined && !free.includes(f))).toEqual([])
  })

  test('point down the layers', () => {
    const wrong: string[] = []
    for (const [file, list] of edges) {
      const from = level(file)
      if (from === undefined) continue
      for (const { to, typeOnly } of list) {
        const target = level(to)
        if (to === 'errors.ts' || to.endsWith('.gen.ts') || typeOnly) continue
        if (target === undefined || target < from) wrong.push(`${file} imports ${to}`)
      }
    }
    expect(wrong).toEqual([])
  })

  test('name files that exist', () => {
    const wrong: string[] = []
    for (const [file, list] of edges) {
      for (const { to } of list) if (!files.includes(to)) wrong.push(`${file} imports ${to}`)
    }
    expect(wrong).toEqual([])
  })

  // The derivative of an op is written with the ops of other families, and theirs with its: sum and broadcastTo. Such a
  // circle within lib/ops is sound as long as nothing in it runs while it loads, which the next test sees.
  test('have no cycle, but for derivatives among the op families', () => {
    const family = (f: string) => f.startsWith('ops/')
    const graph = new Map(
      [...edges].map(([f, list]) => [
        f,
        list.filter((e) => !e.typeOnly && !(family(f) && family(e.to))).map((e) => e.to),
      ]),
    )
    expect(cycles(graph)).toEqual([])
  })

  test.each(files.filter((f) => f.startsWith('ops/')))('%s may be the first to load', async (file) => {
    vi.resetModules()
    await import(join(lib, file))
  })

  test('the scanner sees cycles, types and re-exports', () => {
    const source = `
      import type { A } from './a.js'
      import { type B, type C } from '../x/b.js'
      import {
        d,
        type E,
      } from './d.js'
      export * from './f.js'
      // import { no } from './no.js'
      const late = await import('./late.js')`
    expect(importsOf('ops/me.ts', source)).toEqual([
      { to: 'ops/a.ts', typeOnly: true },
      { to: 'x/b.ts', typeOnly: true },
      { to: 'ops/d.ts', typeOnly: false },
      { to: 'ops/f.ts', typeOnly: false },
      { to: 'ops/late.ts', typeOnly: false },
    ])
    const loop = new Map([
      ['a', ['b']],
      ['b', ['c']],
      ['c', ['a']],
      ['d', ['a']],
    ])
    expect(cycles(loop)).toEqual([['a', 'b', 'c', 'a']])
  })
})
