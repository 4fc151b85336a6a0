import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { root } from '../house/scan.js'
import { expectTrains, installed, type Runner } from './packed.js'

const platform = `${process.platform}-${process.arch}`

/** A folder with node, npm, npx and a shell: a machine with no compiler, no Python and no git. */
function bareTools(folder: string): string {
  const bin = join(folder, 'bin')
  mkdirSync(bin)
  const find = (program: string) =>
    (process.env.PATH ?? '')
      .split(delimiter)
      .map((dir) => join(dir, program))
      .find(existsSync)
  for (const program of ['node', 'npm', 'npx', 'sh']) {
    const path = program === 'node' ? process.execPath : find(program)
    if (path) symlinkSync(realpathSync(path), join(bin, program))
  }
  return bin
}

describe('the packed package', () => {
  let folder: string
  let home: string
  let env: NodeJS.ProcessEnv

  let inProject: Runner

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'steepest-'))
    execFileSync(process.execPath, ['scripts/prebuild.mjs'], { cwd: root, stdio: 'ignore' })
    env = { PATH: bareTools(folder), HOME: process.env.HOME, NO_COLOR: '1', CI: 'true' }
    ;({ home, inProject } = installed(folder, env))
  }, 300_000)

  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  test('carries the binary with the libraries that it loads, and no install script', () => {
    const installed = join(home, 'node_modules', 'steepest')
    expect(existsSync(join(installed, 'binding.gyp'))).toBe(false)
    const files = readdirSync(join(installed, 'prebuilds', platform))
    expect(files.filter((f) => f.endsWith('.node'))).toHaveLength(1)
    expect(files).toEqual(expect.arrayContaining(['libdnnl.so.3', 'libgomp.so.1', 'libscipy_openblas.so']))
    for (const name of ['LICENSE', 'NOTICE', 'licenses']) expect(existsSync(join(installed, name))).toBe(true)
  })

  test('loads its own libraries, not those of the system', () => {
    writeFileSync(
      join(home, 'maps.mjs'),
      `import { tensor } from 'steepest'
import { readFileSync } from 'node:fs'
await tensor([[1, 2], [3, 4]]).matmul(tensor([[1], [1]])).read()
const maps = readFileSync('/proc/self/maps', 'utf8')
console.log(JSON.stringify([...new Set(maps.match(/\\S*lib(gomp|dnnl)\\S*/g))]))`,
    )
    const { out, err } = inProject('node', ['maps.mjs'])
    const loaded = JSON.parse(out || '[]') as string[]
    expect(loaded, err).toHaveLength(2)
    for (const path of loaded) expect(path).toContain(join('node_modules', 'steepest', 'prebuilds', platform))
  })

  test('trains', () => expectTrains(home, inProject))

  test('measures a paper, and has its source to read', () => {
    const { code, out, err } = inProject('npx', ['steepest', 'paper', 'lr-perceptron', '--quick'])
    expect(code, err).toBe(0)
    expect(out).toContain('it runs')
    expect(existsSync(join(home, 'node_modules', 'steepest', 'papers', 'lr-perceptron.ts'))).toBe(true)
  })

  test('doctor finds nothing wrong with the package', () => {
    const { out, err } = inProject('npx', ['steepest', 'doctor', '--json'])
    const findings = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { name: string; ok: boolean; value: string })
    expect(
      findings.find((f) => f.name === 'native part'),
      err,
    ).toMatchObject({ ok: true })
  })

  test('without its binary says what to type', () => {
    writeFileSync(join(home, 'absent.mjs'), "import 'steepest'\n")
    const { code, err } = inProject('node', ['absent.mjs'])
    expect([code, err]).toEqual([0, ''])
    const broken = spawnSync(process.execPath, ['absent.mjs'], {
      cwd: home,
      env: { ...env, STEEPEST_PREBUILD: folder },
      encoding: 'utf8',
    })
    expect(broken.status).toBe(1)
    expect(broken.stderr).toContain('npx steepest build')
  })
})
