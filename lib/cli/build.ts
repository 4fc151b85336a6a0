import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from '../addon.js'
import { SteepestError } from '../errors.js'
import type { Command } from './support/command.js'

/** `steepest build`. */
export const buildCommand: Command = {
  name: 'build',
  summary: 'build the native part for this machine, where no ready-made one serves',
  flags: [],
  notes: 'Needs a C++20 compiler and Python with pip; fetches oneDNN, OpenBLAS and, where it is missing, CMake.',
  async run(_, { env }) {
    const script = join(packageRoot, 'scripts', 'build.mjs')
    if (!existsSync(script)) {
      throw new SteepestError('FILE', {
        who: packageRoot,
        rule: 'this copy of steepest has no sources to build',
        fix: 'Install the package anew: npm install steepest',
      })
    }
    return new Promise((resolve, reject) => {
      const child = spawn(process.execPath, [script], { cwd: packageRoot, stdio: 'inherit', env: { ...env } })
      child.on('error', reject)
      child.on('close', (code) => resolve(code ?? 1))
    })
  },
}
