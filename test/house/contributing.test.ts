import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { root } from './scan.js'
import { apply, edited, type Step, stepsOf } from './walk.js'

const steps = stepsOf(readFileSync(join(root, 'CONTRIBUTING.md'), 'utf8'))
const walks = [...new Set(steps.map((s) => s.under))]
const commandsOf = (walk: string) => steps.filter((s): s is Step & { is: 'run' } => s.is === 'run' && s.under === walk)

describe.skipIf(!existsSync(join(root, '.git')))('the walks of CONTRIBUTING.md', () => {
  let copy: string

  const run = (command: string) => {
    const done = spawnSync('sh', ['-c', command], {
      cwd: copy,
      encoding: 'utf8',
      env: { ...process.env, NO_COLOR: '1' },
    })
    return { code: done.status, out: done.stdout.trim(), all: done.stdout.slice(-3000) + done.stderr.slice(-3000) }
  }

  beforeAll(() => {
    copy = mkdtempSync(join(tmpdir(), 'steepest-walk-'))
    const args = ['ls-files', '--cached', '--others', '--exclude-standard', '-z']
    for (const file of execFileSync('git', args, { cwd: root, encoding: 'utf8' }).split('\0')) {
      if (file === '' || !existsSync(join(root, file))) continue
      mkdirSync(join(copy, dirname(file)), { recursive: true })
      cpSync(join(root, file), join(copy, file))
    }
    for (const folder of ['node_modules', '.deps']) symlinkSync(join(root, folder), join(copy, folder))
    for (const step of steps) apply(step, copy)
  }, 120_000)

  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  test('are those that the page promises', () => {
    expect(walks).toEqual(['Add an optimizer', 'Add an op', 'Add a pass'])
    for (const walk of walks) expect(commandsOf(walk).length).toBeGreaterThan(0)
  })

  test('generate, and pass the type check', () => {
    const generated = run('npm run --silent gen')
    expect(generated.code, generated.all).toBe(0)
    expect(readFileSync(join(copy, 'lib/optim/rules.gen.ts'), 'utf8')).toContain('export const adamax = ')
    expect(readFileSync(join(copy, 'native/elementwise.gen.h'), 'utf8')).toContain('X(softsign)')
    const checked = run('npm run --silent typecheck')
    expect(checked.code, checked.all).toBe(0)
  }, 120_000)

  // Builds the native part from nothing.
  test.runIf(process.env.STEEPEST_LONG)('build, and print what the page says', () => {
    for (const step of walks.flatMap(commandsOf)) {
      const { code, out, all } = run(step.command)
      expect(code, `${step.command}\n${all}`).toBe(0)
      if (step.prints !== undefined) expect(out).toBe(step.prints)
    }
  })

  test('an edit whose lines are not there, or there twice, is told', () => {
    expect(edited('a\nb\nc\n', ' a\n+x\n b', 'f')).toBe('a\nx\nb\nc\n')
    expect(edited('a\nb\nc\n', '-b\n+x', 'f')).toBe('a\nx\nc\n')
    expect(() => edited('a\n', ' b\n+x', 'f')).toThrow('f does not have the lines')
    expect(() => edited('a\na\n', ' a\n+x', 'f')).toThrow('twice')
  })
})
