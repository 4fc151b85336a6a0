import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { commands } from '../../lib/cli/commands.js'
import { parse } from '../../lib/cli/support/parse.js'
import { optim } from '../../lib/index.js'
import { exportsOf } from './exports.js'
import { root } from './scan.js'

const readme = readFileSync(join(root, 'README.md'), 'utf8')
const fences = (language: string) =>
  [...readme.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, 'g'))].map((m) => m[1])

/** The table of optimizers, from their docstrings. */
function table(): string {
  const documented = exportsOf('optim/index.ts')
  const rows = optim.OPTIMIZERS.map((name) => {
    const doc = documented.find((e) => e.name === name)?.doc ?? ''
    const what = /^.*?(?=[.;] |\.$)/.exec(doc)?.[0]
    const source = /Source: (.*?)\.(?= [A-Z]| @|$)/.exec(doc)?.[1]
    const lr = /Learning rate (\S+) where none is given/.exec(doc)?.[1]
    if (!what || !source || !lr)
      throw new Error(`the docstring of optim.${name} must say what it does, its source and its learning rate`)
    return `| \`${name}\` | ${what} | ${source} | ${lr} |`
  })
  return ['| Name | Method | Source | Learning rate |', '|---|---|---|---|', ...rows].join('\n')
}

describe('the README', () => {
  test('has a program of 15 lines that trains as it stands', () => {
    const [program] = fences('js')
    expect(program.split('\n').filter((line) => line.trim() !== '')).toHaveLength(15)
    // Inside the package, its own name is the built library.
    const folder = mkdtempSync(join(root, 'build', 'readme-'))
    try {
      writeFileSync(join(folder, 'program.mjs'), program)
      const { status, stdout, stderr } = spawnSync(process.execPath, [join(folder, 'program.mjs')], {
        encoding: 'utf8',
      })
      expect(status, stderr).toBe(0)
      const lines = stdout
        .trim()
        .split('\n')
        .map((line) => line.split(' ').map(Number))
      expect(lines.at(-1)![0]).toBe(500)
      expect(lines.at(-1)![1]).toBeLessThan(0.02)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })

  test('shows commands and flags that exist', () => {
    const lines = fences('sh')
      .flatMap((block) => block.trim().split('\n'))
      .filter((line) => line.startsWith('npx steepest'))
    expect(lines.length).toBeGreaterThan(4)
    for (const line of lines) {
      const words = line
        .replace(/\s+#.*/, '')
        .match(/"[^"]*"|\S+/g)!
        .slice(2)
      parse(commands, '0', words)
    }
  })

  // `STEEPEST_UPDATE=1 npx vitest run test/house/readme.test.ts` writes it anew.
  test('lists every optimizer as its header describes it', () => {
    const [before, rest] = readme.split('<!-- optimizers -->\n')
    const [now, after] = rest.split('\n<!-- /optimizers -->')
    if (process.env.STEEPEST_UPDATE) {
      writeFileSync(join(root, 'README.md'), `${before}<!-- optimizers -->\n${table()}\n<!-- /optimizers -->${after}`)
      return
    }
    expect(now).toBe(table())
  })

  test('links to files that are there', () => {
    const links = [...readme.matchAll(/\]\(([^)#:]+)\)/g)].map((m) => m[1])
    expect(links.length).toBeGreaterThan(2)
    for (const link of links) expect(existsSync(join(root, link)), link).toBe(true)
  })
})
