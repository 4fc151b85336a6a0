import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'

const root = join(dirname(fileURLToPath(import.meta.url)), '../..')

const folders: string[] = []
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

/** A new empty folder, there until the tests of the file have run. */
export function freshFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `steepest-${name}-`))
  folders.push(folder)
  return folder
}

/** Compiles one script of this folder, with what it imports, and gives the path of the JavaScript. */
export function compileScript(name: string): string {
  const out = freshFolder('child')
  const config = {
    extends: join(root, 'tsconfig.json'),
    compilerOptions: {
      rootDir: root,
      outDir: out,
      declaration: false,
      sourceMap: false,
      typeRoots: [join(root, 'node_modules/@types')],
    },
    files: [join(root, 'test/io', `${name}.ts`)],
    include: [],
  }
  writeFileSync(join(out, 'tsconfig.json'), JSON.stringify(config))
  writeFileSync(join(out, 'package.json'), '{"type":"module"}')
  const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin/tsc')
  execFileSync(process.execPath, [tsc, '-p', out], { stdio: 'pipe' })
  return join(out, 'test/io', `${name}.js`)
}

/** Runs a script to its end. */
export function runScript(
  script: string,
  args: readonly string[],
): Promise<{ signal: string | null; code: number | null; out: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    child.stdout.on('data', (data) => (out += data))
    child.stderr.on('data', (data) => (err += data))
    child.on('error', reject)
    child.on('close', (code, signal) => (code ? reject(new Error(err)) : resolve({ code, signal, out })))
  })
}
