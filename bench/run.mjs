// `npm run bench`: all benches; `npm run bench -- NAME [options]`: that one. The peers' environment is set up first.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { root } from './harness.mjs'

const BENCHES = ['training', 'optim', 'conv', 'memory', 'lowrank', 'sampled', 'finetune']
const [name, ...options] = process.argv.slice(2)
if (name !== undefined && !BENCHES.includes(name)) {
  console.error(`There is no bench named ${name}; there are ${BENCHES.join(', ')}`)
  process.exit(1)
}
const run = (file, args) =>
  spawnSync(process.execPath, [join(root, 'bench', `${file}.mjs`), ...args], { stdio: 'inherit' }).status
const names = name === undefined ? BENCHES : [name]
run('peers', names)
process.exit(names.map((n) => run(n, options)).find((status) => status !== 0) ?? 0)
