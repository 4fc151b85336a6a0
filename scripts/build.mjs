// `npm run compile`, and `npx steepest build` where steepest is installed as a package: what the native part is built on,
// the native part, then (in a clone, and without --native) TypeScript. No script is named `build`: npm would take `prebuild` for a
// part of it.
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureDeps } from './deps.mjs'
import { wheelTool } from './tools.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const require = createRequire(join(root, 'package.json'))
const LEAST_CMAKE = [3, 22]

/** Ends with one sentence and the line to type. */
function stop(what, type) {
  console.error(`steepest: ${what}. Type: ${type}`)
  process.exit(1)
}

/** How a package of the system is installed here. */
function install(debian, redhat = debian, brew = debian) {
  const managers = [
    ['apt-get', `sudo apt-get install ${debian}`],
    ['dnf', `sudo dnf install ${redhat}`],
    ['apk', `apk add ${debian}`],
    ['brew', `brew install ${brew}`],
  ]
  const here = managers.find(([program]) => spawnSync(program, ['--version'], { stdio: 'ignore' }).status === 0)
  return (here ?? managers[0])[1]
}

const versionOf = (program, pattern) => {
  const done = spawnSync(program, ['--version'], { encoding: 'utf8' })
  const match = done.status === 0 ? pattern.exec(done.stdout) : null
  return match ? [Number(match[1]), Number(match[2])] : undefined
}

function checkCompiler() {
  const compiler = process.env.CXX?.split(' ')[0] ?? 'c++'
  const gxx = install('g++', 'gcc-c++', 'gcc')
  const version =
    versionOf(compiler, /(\d+)\.(\d+)\.\d+/) ?? (process.env.CXX ? undefined : versionOf('g++', /(\d+)\.(\d+)\.\d+/))
  if (!version) stop(`a C++20 compiler is needed, and ${compiler} is not there`, gxx)
  if (version[0] < 11)
    stop(`a C++20 compiler is needed (g++ 11, clang 14), and ${compiler} is ${version.join('.')}`, gxx)
}

/** The environment in which cmake is new enough: the system's, else that of a wheel. */
function environment() {
  const version = versionOf('cmake', /version (\d+)\.(\d+)/)
  const enough =
    version && (version[0] > LEAST_CMAKE[0] || (version[0] === LEAST_CMAKE[0] && version[1] >= LEAST_CMAKE[1]))
  if (enough) return process.env
  const cmake = wheelTool('cmake')
  if (!cmake) stop(`CMake ${LEAST_CMAKE.join('.')} or newer is needed`, install('cmake'))
  return { ...process.env, PATH: `${dirname(cmake)}${delimiter}${process.env.PATH}` }
}

/** The folders of Node's headers: those of this clone, else fetched once into .deps. */
function headers() {
  const find = (resolve) =>
    ['node-api-headers', 'node-addon-api'].map((name) => {
      const { include_dir: folder } = resolve(name)
      return folder
    })
  try {
    return find(require)
  } catch {
    const folder = join(root, '.deps', 'headers')
    const { devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    const wanted = ['node-api-headers', 'node-addon-api'].map((name) => `${name}@${devDependencies[name]}`)
    mkdirSync(folder, { recursive: true })
    const args = ['install', '--prefix', folder, '--no-save', '--ignore-scripts', '--no-audit', '--no-fund', ...wanted]
    const done = spawnSync('npm', args, { stdio: ['ignore', 'ignore', 'inherit'] })
    if (done.status !== 0) stop('the headers of Node could not be fetched', `npm ${args.join(' ')}`)
    return find(createRequire(join(folder, 'x.js')))
  }
}

/** Runs a program quietly; its output is shown when it fails. `onLine` sees each line as it comes. */
function run(program, args, env, onLine = () => {}) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    let rest = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text
        const lines = (rest + text).split('\n')
        rest = lines.pop()
        lines.forEach(onLine)
      })
    }
    child.on('error', (error) => resolve({ code: 1, output: error.message }))
    child.on('close', (code) => resolve({ code: code ?? 1, output }))
  })
}

async function must(what, program, args, env, onLine) {
  const { code, output } = await run(program, args, env, onLine)
  if (code === 0) return
  console.error(output.split('\n').slice(-60).join('\n'))
  console.error(`steepest: ${what} failed; the output is above`)
  process.exit(1)
}

/** Says how far ninja or make is: in place on a terminal, else at every quarter. */
function progress() {
  let said = 0
  return (line) => {
    const [, done, all, percent] = /^\[\s*(?:(\d+)\/(\d+)|(\d+)%)\]/.exec(line) ?? []
    const share = percent === undefined ? Number(done) / Number(all) : Number(percent) / 100
    if (!Number.isFinite(share)) return
    if (process.stdout.isTTY) {
      process.stdout.write(
        `\rbuilding the native part: ${String(Math.floor(100 * share)).padStart(3)}%${share === 1 ? '\n' : ''}`,
      )
    } else if (share >= said + 0.25 && share < 1) {
      said = Math.floor(share * 4) / 4
      console.log(`building the native part: ${100 * said}%`)
    }
  }
}

async function buildNative() {
  checkCompiler()
  const env = environment()
  ensureDeps()
  const inClone = existsSync(join(root, 'node_modules', 'cmake-js'))
  if (inClone) {
    const cmakeJs = join(root, 'node_modules', 'cmake-js', 'bin', 'cmake-js')
    await must('configuring the native part', process.execPath, [cmakeJs, 'configure', '--log-level', 'error'], env)
  } else {
    const ninja = spawnSync('ninja', ['--version'], { stdio: 'ignore' }).status === 0 ? ['-G', 'Ninja'] : []
    const args = ['-S', '.', '-B', 'build', ...ninja, `-DCMAKE_JS_INC=${headers().join(';')}`]
    await must('configuring the native part', 'cmake', args, env)
  }
  if (!existsSync(join(root, 'build', 'Release', 'steepest.node')))
    console.log('building the native part: some minutes the first time')
  const jobs = String(availableParallelism())
  await must(
    'building the native part',
    'cmake',
    ['--build', 'build', '--parallel', jobs, '--target', 'steepest'],
    env,
    progress(),
  )
}

async function buildTypeScript() {
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  // The papers see the compiled package, as its users do.
  for (const project of ['tsconfig.json', 'papers/tsconfig.json']) {
    await must('compiling TypeScript', process.execPath, [tsc, '-p', project], process.env)
  }
  const { configSchema } = await import(join(root, 'dist', 'cli', 'config.js'))
  writeFileSync(join(root, 'dist', 'steepest.schema.json'), `${JSON.stringify(configSchema(), null, 2)}\n`)
  chmodSync(join(root, 'dist', 'cli', 'main.js'), 0o755)
}

await buildNative()
if (existsSync(join(root, 'tsconfig.json')) && !process.argv.includes('--native')) await buildTypeScript()
