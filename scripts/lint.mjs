// `npm run lint` and `npm run format`: Biome over TypeScript, clang-format over C++ and CUDA, and clang-tidy over the part of C++
// that takes what others give it. A tool that cannot be had on this machine is said so and left out.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { availableParallelism } from 'node:os'
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

/** clang-tidy over files, one per core at a time; what it finds is shown file by file. */
async function tidy(program, files) {
  const left = [...files]
  const worker = async () => {
    for (let file = left.shift(); file; file = left.shift()) {
      const child = spawn(program, ['-p', 'build', '--quiet', file], { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] })
      let output = ''
      child.stdout.setEncoding('utf8').on('data', (text) => {
        output += text
      })
      const code = await new Promise((resolve) => child.on('close', resolve))
      if (code === 0) continue
      failed = true
      console.log(output.trim())
    }
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
}

if (!write) {
  const clangTidy = wheelTool('clang-tidy')
  if (!clangTidy || !works(clangTidy, ['--version'])) console.log('skipped: clang-tidy could not be had')
  else if (!existsSync(join(root, 'build', 'compile_commands.json')))
    console.log('skipped: clang-tidy works on what npm run compile leaves in build')
  else
    await tidy(
      clangTidy,
      sources.filter((file) => /^native\/(runtime|addon)\/.*\.cc$/.test(file)),
    )
}
process.exitCode = failed ? 1 : 0
