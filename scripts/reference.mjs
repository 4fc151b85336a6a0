// `npm run reference`: the API reference as HTML in docs/reference, made from the docstrings by TypeDoc. TypeDoc and the TypeScript
// that it works with (it needs one with the compiler's interface in JavaScript) live in a folder of their own below .deps.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const folder = join(root, '.deps', 'typedoc')
const typedoc = join(folder, 'node_modules', 'typedoc', 'bin', 'typedoc')

function run(program, args) {
  const done = spawnSync(program, args, { cwd: root, stdio: 'inherit' })
  if (done.status !== 0) process.exit(done.status ?? 1)
}

if (!existsSync(typedoc)) {
  mkdirSync(folder, { recursive: true })
  run('npm', [
    'install',
    '--prefix',
    folder,
    '--no-save',
    '--no-audit',
    '--no-fund',
    'typedoc@0.28.20',
    'typescript@5.9.3',
  ])
}
run(process.execPath, [
  typedoc,
  ...['--entryPoints', 'lib/index.ts', '--tsconfig', 'tsconfig.json', '--out', 'docs/reference', '--name', 'steepest'],
  ...['--readme', 'none', '--excludeInternal', '--disableGit', '--hideGenerator', '--githubPages', 'false'],
  // The link of a declaration would name a file of this machine.
  '--disableSources',
  // What a function takes is documented where it is declared, exported or not.
  ...['--validation.notExported', 'false'],
  ...process.argv.slice(2),
])
