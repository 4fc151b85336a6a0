// Puts NVIDIA's compiler into .deps/cuda, as wheels from PyPI, pinned by hash (about 105 MB to fetch): for machines without a CUDA toolkit.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const deps = join(root, '.deps')
const REQUIREMENTS = `
nvidia-cuda-nvcc==13.0.88 --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-nvvm==13.0.88 --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
`

// They read the code of older compilers too; there are none of version 13.0.
const DISASSEMBLERS = `
nvidia-cuda-cuobjdump==13.5.37 --hash=sha256:38780fee50863252a0b8926357faa91615ca1c8346490563f33a06100cd73f58
nvidia-cuda-nvdisasm==13.5.37 --hash=sha256:d3fdbdd49fa53e2e4aacd3db8259d052bd2b049ececdcb69e92e083c6728e7ca
`

/** Leaves `.deps/cuda/nvidia/cu13` and gives its path; does nothing when it is there. */
export const ensureCuda = () => ensure('cuda', REQUIREMENTS, "NVIDIA's compiler")

/** Leaves cuobjdump and nvdisasm in `.deps/cuda-tools/nvidia/cu13/bin` and gives the path of that folder. */
export const ensureDisassemblers = () => join(ensure('cuda-tools', DISASSEMBLERS, "NVIDIA's disassemblers"), 'bin')

function ensure(name, requirements, what) {
  const folder = join(deps, name)
  const stamp = join(folder, 'stamp')
  const toolkit = join(folder, 'nvidia', 'cu13')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === requirements) return toolkit
  mkdirSync(deps, { recursive: true })
  const work = mkdtempSync(join(deps, 'fetch-'))
  try {
    writeFileSync(join(work, 'requirements.txt'), requirements)
    const quiet = ['--quiet', '--disable-pip-version-check', '--no-deps', '--require-hashes', '--only-binary', ':all:']
    const args = ['-m', 'pip', 'install', ...quiet, '--target', join(work, 'all'), '-r', join(work, 'requirements.txt')]
    const env = { ...process.env, PIP_ROOT_USER_ACTION: 'ignore' }
    if (spawnSync('python3', args, { stdio: ['ignore', 'ignore', 'inherit'], env }).status !== 0) {
      console.error(`steepest: ${what} could not be fetched from PyPI; python3 with pip and a way to it are needed`)
      process.exit(1)
    }
    writeFileSync(join(work, 'all', 'stamp'), requirements)
    rmSync(folder, { recursive: true, force: true })
    renameSync(join(work, 'all'), folder)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return toolkit
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(ensureCuda())
