import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { optim, zeros } from '../../lib/index.js'
import { exportsOf } from '../house/exports.js'
import { root } from '../house/scan.js'
import { EVERY } from './walk.js'

const path = join(root, 'docs/optimizers.md')
const exported = exportsOf('optim/index.ts')
const docOf = (name: string): string => exported.find((e) => e.name === name)?.doc ?? ''
const sources = new Map<string, string>()
const sourceOf = (file: string): string => {
  if (!sources.has(file)) sources.set(file, readFileSync(join(root, 'lib', file), 'utf8'))
  return sources.get(file)!
}
const firstLine = (doc: string): string => /^.*?(?=[.;] |\.$)/.exec(doc)?.[0] ?? doc
const paperOf = (doc: string): string => /Source: (.*?)\.(?= [A-Z]| @|$)/.exec(doc)?.[1] ?? ''
const cell = (text: string): string => text.replaceAll('|', '\\|')

/** Options with their docstrings, those of the interfaces that it extends first. */
function optionsIn(file: string, type: string): [name: string, doc: string][] {
  const source = sourceOf(file)
  const head = new RegExp(`interface ${type}(?: extends ([^{]*))? \\{\n([\\s\\S]*?)\n\\}`).exec(source)
  if (!head) return []
  const parents = [...(head[1] ?? '').matchAll(/\b(\w+Options)\b/g)].map((m) => m[1]).filter((p) => p !== 'RuleOptions')
  const own = [...head[2].matchAll(/ {2}\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\n {2}(?:readonly )?(\w+)\??:/g)].map(
    ([, doc, name]): [string, string] => [name, doc.replace(/\s*\n\s*\*\s*/g, ' ').trim()],
  )
  return [...parents.flatMap((p) => optionsIn(file, p)), ...own]
}

/** The options of an optimizer, from the type of its argument. */
function optionsOf(name: string): [string, string][] {
  const { file } = exported.find((e) => e.name === name)!
  const source = sourceOf(file)
  const declared = new RegExp(`export (?:const|function) ${name}\\b[\\s\\S]{0,200}?(\\w+Options)\\b`).exec(source)
  const type = declared?.[1] ?? ''
  const alias = new RegExp(`export type ${type} = Omit<(\\w+),([^>]*)>`).exec(source)
  const found = optionsIn(file, alias ? alias[1] : type)
  const left = (alias?.[2] ?? '').match(/'(\w+)'/g)?.map((x) => x.slice(1, -1)) ?? []
  if (found.length > 0 || type === '') return found.filter(([k]) => !left.includes(k))
  // The type comes from another file.
  const from = new RegExp(`\\b${type}\\b[^;]*?from '\\./([\\w-]+)\\.js'`).exec(source)
  return from ? optionsIn(`optim/${from[1]}.ts`, type) : []
}

/** Bytes of state per parameter, of a matrix of 1024 by 1024. */
function bytesOf(optimizer: optim.Optimizer, dtype: 'float32' | 'bfloat16', base?: optim.Optimizer): string {
  const params = { 'h.weight': zeros([1024, 1024], dtype) }
  const held = (o: optim.Optimizer) => Object.values(o.stateBytes(params)).reduce((a, b) => a + b, 0)
  const bytes = (held(optimizer) - (base ? held(base) : 0)) / 2 ** 20
  return String(bytes < 0.1 ? Math.round(bytes * 1e4) / 1e4 : Math.round(bytes * 100) / 100)
}

/** Of these the state depends on options, not on the number of parameters alone. */
const DEPENDS: Record<string, string> = {
  blockCoordinate: 'what is known of the function',
  lbfgs: '(2 · historySize + 2) · 4',
}

/** The same where states can be kept in eight bits. */
function eightBit(name: string): string {
  try {
    return bytesOf(optim.optimizerNamed(name, { states: '8bit' }), 'float32')
  } catch {
    return ''
  }
}

function table(names: readonly string[], make: (name: string) => optim.Optimizer, base?: optim.Optimizer): string {
  const rows = names.map((name) => {
    const doc = docOf(name)
    const state = DEPENDS[name] ?? bytesOf(make(name), 'float32', base)
    const half = DEPENDS[name] ?? bytesOf(make(name), 'bfloat16', base)
    const rate = /Learning rate (\S+) where none is given/.exec(doc)?.[1] ?? ''
    return `| \`${name}\` | ${cell(firstLine(doc))} | ${cell(paperOf(doc))} | ${rate} | ${state} | ${half} | ${eightBit(name)} |`
  })
  return [
    '| Name | Method | Source | Learning rate | Bytes, float32 | Bytes, bfloat16 | Bytes, 8-bit states |',
    '|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

function options(names: readonly string[]): string {
  return names
    .map((name) => {
      const list = optionsOf(name)
      const lines = list.map(([key, doc]) => `| \`${key}\` | ${cell(doc)} |`)
      const rest = docOf(name).replace(/ @(throws|param|example)[\s\S]*$/, '')
      return `### ${name}\n\n${rest}\n\n${lines.length > 0 ? `| Option | |\n|---|---|\n${lines.join('\n')}\n` : 'No options of its own.\n'}`
    })
    .join('\n')
}

const wrappers = Object.keys(EVERY).filter((name) => !optim.OPTIMIZERS.includes(name))
const around = (name: string): optim.Optimizer =>
  (optim as unknown as Record<string, (base: optim.Optimizer) => optim.Optimizer>)[name](optim.sgd())

/** The parts of the page that code says. */
const generated: Record<string, () => string> = {
  optimizers: () => table(optim.OPTIMIZERS, (name) => optim.optimizerNamed(name)),
  wrappers: () => table(wrappers, around, optim.sgd()),
  common: () =>
    `| Option | |\n|---|---|\n${optionsIn('optim/optimizer.ts', 'RuleOptions')
      .map(([key, doc]) => `| \`${key}\` | ${cell(doc)} |`)
      .join('\n')}`,
  options: () => options([...optim.OPTIMIZERS, ...wrappers]).trimEnd(),
}

describe('docs/optimizers.md', () => {
  // `STEEPEST_UPDATE=1 npx vitest run test/optim/docs.test.ts` writes it anew.
  test('says of every optimizer what its code says', () => {
    let page = readFileSync(path, 'utf8')
    for (const [part, make] of Object.entries(generated)) {
      const [before, rest] = page.split(`<!-- ${part} -->\n`)
      const [now, after] = rest.split(`\n<!-- /${part} -->`)
      const wanted = make()
      if (process.env.STEEPEST_UPDATE) page = `${before}<!-- ${part} -->\n${wanted}\n<!-- /${part} -->${after}`
      else expect(now).toBe(wanted)
    }
    if (process.env.STEEPEST_UPDATE) writeFileSync(path, page)
  })

  test('every option of every optimizer has a docstring that names its default or says that there is none', () => {
    for (const name of optim.OPTIMIZERS) {
      const list = optionsOf(name)
      const taken = Object.keys(optim.optimizerNamed(name).hyper)
      expect(taken.length === 0 || list.length > 0, name).toBe(true)
      for (const [key, doc] of list) expect(doc.length, `${name}.${key}`).toBeGreaterThan(10)
    }
  })

  test('its programs run', () => {
    const page = readFileSync(path, 'utf8')
    const programs = [...page.matchAll(/```js\n([\s\S]*?)```/g)].map((m) => m[1])
    expect(programs.length).toBeGreaterThan(0)
    expect(existsSync(join(root, 'build'))).toBe(true)
    for (const program of programs) {
      const folder = mkdtempSync(join(root, 'build', 'docs-'))
      try {
        writeFileSync(join(folder, 'program.mjs'), program)
        const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, 'program.mjs')], {
          encoding: 'utf8',
        })
        expect(status, stderr).toBe(0)
        expect(Number(stdout.trim().split('\n').at(-1))).toBeLessThan(0.01)
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    }
  })
})
