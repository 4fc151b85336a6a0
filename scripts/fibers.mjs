// `npm run fibers`: builds the CUDA sources as plain C++ on fibers, for a machine without a GPU and without a toolkit. Prints the library,
// which the addon opens where the environment variable STEEPEST_CUDA_LIBRARY names it.
//   --sanitize   under AddressSanitizer and UndefinedBehaviorSanitizer (then node itself needs LD_PRELOAD=$(gcc -print-file-name=libasan.so))
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Builds what has changed, and gives the path of the library; throws with what the compiler said. */
export function buildFibers({ sanitize = false, jobs = availableParallelism() } = {}) {
  const folder = join(root, sanitize ? 'build-fibers-sanitize' : 'build-fibers')
  const run = (args) => {
    const done = spawnSync('cmake', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 })
    if (done.error) throw done.error
    if (done.status !== 0)
      throw new Error(`cmake ${args.join(' ')}\n${done.stdout.slice(-6000)}${done.stderr.slice(-6000)}`)
  }
  if (!existsSync(join(folder, 'CMakeCache.txt'))) {
    const ninja = spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0 ? ['-G', 'Ninja'] : []
    const sanitizers = sanitize ? ['-DSTEEPEST_SANITIZE=address,undefined'] : []
    run(['-S', '.', '-B', folder, ...ninja, '-DSTEEPEST_FIBERS=ON', '-DSTEEPEST_ADDON=OFF', ...sanitizers])
  }
  run(['--build', folder, '--target', 'steepest_cuda_fibers', '--parallel', String(jobs)])
  return join(folder, 'cuda', 'libsteepest_cuda_fibers.so')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(buildFibers({ sanitize: process.argv.includes('--sanitize') }))
}
