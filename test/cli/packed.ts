import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { root } from '../house/scan.js'

/** Runs a program in the project; what it said and how it ended. */
export type Runner = (program: string, args: readonly string[]) => { code: number | null; out: string; err: string }

/** The tarball of this tree, installed with install scripts off in an empty project, as a person would have it. */
export function installed(folder: string, env: NodeJS.ProcessEnv): { home: string; inProject: Runner } {
  execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], { cwd: root, stdio: 'ignore' })
  const tarball = readdirSync(folder).find((f) => f.endsWith('.tgz'))!
  const home = join(folder, 'project')
  mkdirSync(home)
  writeFileSync(join(home, 'package.json'), '{ "name": "mine", "private": true, "type": "module" }\n')
  const inProject: Runner = (program, args) => {
    const done = spawnSync(program, args, { cwd: home, env, encoding: 'utf8' })
    return { code: done.status, out: done.stdout, err: done.stderr }
  }
  const how = ['--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund']
  const done = inProject('npm', ['install', ...how, join(folder, tarball)])
  expect(done.code, done.err).toBe(0)
  return { home, inProject }
}

/** Trains thirty steps on lines of text, which a model learns at once, and saves. */
export function expectTrains(home: string, inProject: Runner): void {
  const text = Array.from({ length: 4000 }, (_, i) => `${i} is ${i % 2 ? 'odd' : 'even'}.\n`).join('')
  writeFileSync(join(home, 'numbers.txt'), text)
  const sizes = ['--layers', '1', '--width', '32', '--context', '32', '--batch', '8', '--steps', '30']
  const { code, out, err } = inProject('npx', ['steepest', 'train', 'numbers.txt', ...sizes, '--json'])
  expect(code, out.slice(-2000) + err).toBe(0)
  const events = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { type: string; loss?: number; step?: number })
  const losses = events.filter((e) => e.type === 'step').map((e) => e.loss!)
  expect(losses.at(-1)).toBeLessThan(0.8 * losses[0])
  expect(readdirSync(join(home, 'runs', 'numbers', 'checkpoint-30'))).toContain('model.safetensors')
}
