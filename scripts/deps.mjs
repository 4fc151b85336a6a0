// Puts the native libraries that steepest is built on into .deps/ (oneDNN and OpenBLAS, as wheels from PyPI).
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const target = join(root, '.deps', 'python')
const WHEELS = ['onednn-devel-cpu-gomp==2023.2.0', 'onednn-cpu-gomp==2023.2.0', 'scipy-openblas32==0.3.34.481.3']

export function ensureDeps() {
  if (existsSync(join(target, 'lib', 'libdnnl.so.3')) && existsSync(join(target, 'scipy_openblas32'))) return
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps', '--upgrade', '--target', target, ...WHEELS]
  const done = spawnSync('python3', args, { stdio: ['ignore', 'inherit', 'inherit'] })
  if (done.status !== 0) {
    console.error(`steepest: could not install oneDNN and OpenBLAS from PyPI; type: python3 ${args.join(' ')}`)
    process.exit(1)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) ensureDeps()
