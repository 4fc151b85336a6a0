// `npm run lint` and `npm run format`: Biome over TypeScript, clang-format over C++ and CUDA. A tool that cannot be had on this
// machine is said so and left out.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { wheelTool } from './tools.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const write = process.argv.includes('--write')
let failed = false

function run(program, args) {
  const done = spawnSync(program, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  if (done.error) return false
  if (done.status !== 0) failed = true
  return true
}

const works = (program, args) => spawnSync(program, args, { cwd: root, stdio: 'ignore' }).status === 0

const biome = join(root, 'node_modules', '@biomejs', 'biome', 'bin', 'biome')
if (works(process.execPath, [biome, '--version'])) {
  const how = write ? ['check', '--write'] : ['check', '--error-on-warnings']
  run(process.execPath, [biome, ...how, '--max-diagnostics=100'])
} else {
  console.log('skipped: Biome has no program for this machine')
}

const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z'], { cwd: root })
const sources = String(listed.stdout)
  .split('\0')
  .filter((file) => /\.(cc|h|cu|cuh)$/.test(file) && !file.includes('.gen.'))
const clangFormat = wheelTool('clang-format')
if (clangFormat && works(clangFormat, ['--version'])) {
  run(clangFormat, [...(write ? ['-i'] : ['--dry-run', '-Werror']), ...sources])
} else {
  console.log('skipped: clang-format could not be had')
}
process.exitCode = failed ? 1 : 0
