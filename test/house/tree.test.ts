import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { root } from './scan.js'

/** What git has, and what it would take: built and fetched things are none of it. */
function listed(): string[] {
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '-z']
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' })
    .split('\0')
    .filter((f) => f !== '' && existsSync(join(root, f)))
}

const inClone = existsSync(join(root, '.git'))
const files = inClone ? listed() : []
const texts = files.filter((f) => /\.(ts|mjs|cjs|cc|h|cu|cuh|py|sh|md|json|txt)$|(^|\/)(CMakeLists|\.ci\/run)/.test(f))
const written = texts.filter((f) => /\.(ts|mjs|cjs|cc|h|cu|cuh|py|sh)$/.test(f) && !f.includes('.gen.'))

function linesWith(pattern: RegExp, among: readonly string[]): string[] {
  return among.flatMap((file) =>
    readFileSync(join(root, file), 'utf8')
      .split('\n')
      .flatMap((line, i) => (pattern.test(line) ? [`${file}:${i + 1}: ${line.trim().slice(0, 100)}`] : [])),
  )
}

describe.skipIf(!inClone)('the tree', () => {
  test('names no path of the machine it was written on, and no host of a package registry', () => {
    const hosts = ['registry.npmjs', 'files.pythonhosted', 'pypi.org', 'deb.debian', 'crates.io', 'proxy.golang']
    const paths = ['work', 'root', 'home'].map((folder) => `(^|["'\`( =])/${folder}/`)
    const pattern = new RegExp(`${paths.join('|')}|${hosts.join('|').replaceAll('.', '\\.')}`)
    expect(linesWith(pattern, texts).filter((line) => !line.startsWith('test/house/tree.test.ts'))).toEqual([])
  })

  test('has a lock file with every platform of what is locked, so that an install anywhere leaves it as it is', () => {
    const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
      packages: Record<string, { resolved?: string; optionalDependencies?: Record<string, string> }>
    }
    const wanted = Object.values(packages).flatMap((p) => Object.keys(p.optionalDependencies ?? {}))
    const absent = wanted.filter((name) => !Object.keys(packages).some((path) => path.endsWith(`node_modules/${name}`)))
    expect(absent).toEqual([])
    // The host of whichever registry it was made with is nobody else's.
    expect(Object.values(packages).flatMap((p) => p.resolved ?? [])).toEqual([])
  })

  test('leaves no work marked as undone', () => {
    expect(linesWith(new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b`), written)).toEqual([])
  })

  test('has no source file of more than 600 lines', () => {
    const long = written.map((f) => [f, readFileSync(join(root, f), 'utf8').split('\n').length - 1] as const)
    expect(long.filter(([, lines]) => lines > 600)).toEqual([])
  })
})
