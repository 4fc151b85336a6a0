// Puts the native libraries that steepest is built on into .deps/: oneDNN and OpenBLAS, as wheels from PyPI, pinned by hash.
import { spawnSync } from 'node:child_process'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const deps = join(root, '.deps')
const REQUIREMENTS = `
onednn-devel-cpu-gomp==2023.2.0 --hash=sha256:9763c69e8c907e119056bd52ad918ca84ac9ba939d130a99dfa95ccca3e5e284
onednn-cpu-gomp==2023.2.0 --hash=sha256:2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb
scipy-openblas32==0.3.34.481.3 --hash=sha256:0595f94cd58c1f8a0d90c975621f4587337a003916b1979e834ebdf2cb5d9504
`
const STAMP = join(deps, 'native', 'stamp')

function python(...args) {
  const done = spawnSync('python3', args, { stdio: ['ignore', 'ignore', 'inherit'] })
  if (done.status === 0) return
  console.error(
    'steepest: oneDNN and OpenBLAS could not be fetched from PyPI; python3 with pip and a way to it are needed. Type: sudo apt-get install python3-pip',
  )
  process.exit(1)
}

/** Leaves `.deps/native/{include,lib}`; does nothing when they are there. */
export function ensureDeps() {
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === REQUIREMENTS) return
  mkdirSync(deps, { recursive: true })
  const work = mkdtempSync(join(deps, 'fetch-'))
  try {
    writeFileSync(join(work, 'requirements.txt'), REQUIREMENTS)
    python(
      '-m',
      'pip',
      'download',
      '--quiet',
      '--disable-pip-version-check',
      '--no-deps',
      '--require-hashes',
      '-d',
      work,
      '-r',
      join(work, 'requirements.txt'),
    )
    for (const wheel of readdirSync(work).filter((f) => f.endsWith('.whl')))
      python('-m', 'zipfile', '-e', join(work, wheel), join(work, 'all'))
    const all = join(work, 'all')
    const out = join(work, 'native')
    mkdirSync(join(out, 'lib'), { recursive: true })
    cpSync(join(all, 'onednn_devel_cpu_gomp-2023.2.0.data', 'data', 'include'), join(out, 'include'), {
      recursive: true,
    })
    copyFileSync(
      join(all, 'onednn_cpu_gomp-2023.2.0.data', 'data', 'lib', 'libdnnl.so.3'),
      join(out, 'lib', 'libdnnl.so.3'),
    )
    cpSync(join(all, 'scipy_openblas32', 'include'), join(out, 'include', 'openblas'), { recursive: true })
    copyFileSync(join(all, 'scipy_openblas32', 'lib', 'libscipy_openblas.so'), join(out, 'lib', 'libscipy_openblas.so'))
    writeFileSync(join(out, 'stamp'), REQUIREMENTS)
    rmSync(join(deps, 'native'), { recursive: true, force: true })
    renameSync(out, join(deps, 'native'))
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) ensureDeps()
