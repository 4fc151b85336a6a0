import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { catalogue, type Paper, runStudy } from '../../lib/study/index.js'
import { page } from '../../scripts/papers.mjs'
import { filesBelow, root } from '../house/scan.js'

const names = filesBelow('papers', /\.ts$/)
  .filter((f) => !f.includes('/'))
  .map((f) => f.replace(/\.ts$/, ''))
const load = async (name: string): Promise<Paper> => (await import(join(root, 'papers', `${name}.ts`))) as Paper
const entries = catalogue()

describe('papers', () => {
  test('are there, and in the catalogue', () => {
    expect(names.length).toBeGreaterThan(0)
    expect(names.filter((n) => !entries.some((e) => e.name === n))).toEqual([])
  })

  test('import the public face and what they share, nothing else', () => {
    const wrong = filesBelow('papers', /\.ts$/).flatMap((file) => {
      const source = readFileSync(join(root, 'papers', file), 'utf8')
      const from = [...source.matchAll(/\b(?:from|import)\s*\(?\s*'([^'\n]+)'/g)].map((m) => m[1])
      expect(from.length, file).toBeGreaterThan(0)
      const shared = file.startsWith('support/') ? /^(\.\/[a-z]+\.js|node:.*)$/ : /^\.\/support\/[a-z]+\.js$/
      return from.filter((f) => f !== 'steepest' && !shared.test(f)).map((f) => `${file} imports ${f}`)
    })
    expect(wrong).toEqual([])
  })

  test.each(names)('%s is short enough to be read', (name) => {
    expect(readFileSync(join(root, 'papers', `${name}.ts`), 'utf8').split('\n').length - 1).toBeLessThanOrEqual(200)
  })

  test.each(names)('%s runs', async (name) => {
    const paper = await load(name)
    const { verdict, numbers, criteria, controls, curves } = await runStudy(paper, { seeds: [0], quick: true })
    expect(verdict).toBe('walked')
    expect(criteria.map((c) => c.number)).toEqual(paper.claim.criteria.map((c) => c.number))
    expect(Object.keys(numbers)).toEqual(expect.arrayContaining(Object.keys(paper.claim.reports ?? {})))
    for (const control of controls) expect(control.criteria.length).toBeGreaterThan(0)
    const drawn = paper.plot.curves ?? Object.keys(curves)
    expect(drawn.length).toBeGreaterThan(0)
    for (const curve of drawn) expect(curves[curve]?.[0].length, curve).toBeGreaterThan(0)
  })

  const measured = entries.filter((e) => e.result !== undefined)
  test.each(measured)('the result of $name is of the file as it is', async ({ name, result }) => {
    const { claim } = await load(name)
    const bounds = claim.criteria.map(({ number, what, atMost, atLeast }) => ({ number, what, atMost, atLeast }))
    expect(result!.criteria).toMatchObject(JSON.parse(JSON.stringify(bounds)))
    expect(result!.claim).toMatchObject({ says: claim.says, notShown: claim.notShown })
    expect(result!.seeds.length).toBeGreaterThanOrEqual(3)
    // Without a +: nothing differed from the commit.
    expect(result!.commit).toMatch(/^[0-9a-f]{40}$/)
    expect(existsSync(join(root, 'papers', 'results', `${name}.svg`))).toBe(true)
  })

  test('docs/papers.md is what `npm run papers` writes', () => {
    expect(readFileSync(join(root, 'docs', 'papers.md'), 'utf8')).toBe(page(entries))
  })
})
