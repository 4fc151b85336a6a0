// `npm run cuda`: builds libsteepest_cuda.so for all targets and puts it beside the addon. The compiler is that of CUDACXX, else of the
// system, else of the wheels that scripts/deps-cuda.mjs fetches. No GPU is needed.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureCuda } from './deps-cuda.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const LEAST_TOOLKIT = 13

function toolkitOf(nvcc) {
  const { stdout } = spawnSync(nvcc, ['--version'], { encoding: 'utf8' })
  return Number(/release (\d+)\./.exec(stdout ?? '')?.[1] ?? 0)
}

/** The environment in which CMake finds a compiler that is new enough. */
function environment() {
  const named = process.env.CUDACXX
  if (named) return process.env
  const system = ['nvcc', '/usr/local/cuda/bin/nvcc'].find((nvcc) => toolkitOf(nvcc) >= LEAST_TOOLKIT)
  if (system) return { ...process.env, CUDACXX: system }
  const toolkit = ensureCuda()
  // The wheels have lib where the compiler looks for lib64.
  const libraries = [join(toolkit, 'lib'), process.env.LIBRARY_PATH].filter(Boolean).join(delimiter)
  return { ...process.env, CUDACXX: join(toolkit, 'bin', 'nvcc'), LIBRARY_PATH: libraries }
}

const env = environment()
const folder = join(root, 'build-cuda')
const run = (args) => {
  const done = spawnSync('cmake', args, { cwd: root, env, stdio: 'inherit' })
  if (done.error || done.status !== 0) process.exit(done.status ?? 1)
}
if (!existsSync(join(folder, 'CMakeCache.txt'))) {
  const ninja = spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0 ? ['-G', 'Ninja'] : []
  run(['-S', '.', '-B', folder, ...ninja, '-DSTEEPEST_CUDA=ON', '-DSTEEPEST_ADDON=OFF'])
}
run(['--build', folder, '--target', 'steepest_cuda', '--parallel', String(availableParallelism())])
const library = join(folder, 'cuda', 'libsteepest_cuda.so')
mkdirSync(join(root, 'build', 'Release'), { recursive: true })
copyFileSync(library, join(root, 'build', 'Release', 'libsteepest_cuda.so'))
console.log(`${(statSync(library).size / 1e6).toFixed(1)} MB  build/Release/libsteepest_cuda.so`)
