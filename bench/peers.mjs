// Sets up the environment that the peers of the benches live in: `.peers` in the project. What cannot be installed is said; the benches go on
// without it. `node bench/peers.mjs [bench …]`
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { peerPython, root } from './harness.mjs'

/** By bench: packages, and the module that shows that one is there. */
const TORCH = [
  ['numpy', 'numpy'],
  ['torch', 'torch'],
]
const PACKAGES = {
  gpt: TORCH,
  conv: TORCH,
  memory: [...TORCH, ['transformers', 'transformers'], ['peft', 'peft'], ['safetensors', 'safetensors']],
  optim: [
    ...TORCH,
    ['optax', 'optax'],
    ['lion-pytorch', 'lion_pytorch'],
    ['adabelief-pytorch', 'adabelief_pytorch'],
    ['adamp', 'adamp'],
    ['schedulefree', 'schedulefree'],
    ['bitsandbytes', 'bitsandbytes'],
    ['timm', 'timm'],
    ['torch_optimizer', 'torch_optimizer'],
    ['muon-optimizer', 'muon'],
    ['heavyball', 'heavyball'],
  ],
}
const benches = process.argv.slice(2).filter((name) => name in PACKAGES)
const wanted = new Map((process.argv.length > 2 ? benches : Object.keys(PACKAGES)).flatMap((name) => PACKAGES[name]))

const run = (command, args, stdio = 'inherit') => spawnSync(command, args, { stdio }).status === 0
if (!peerPython()) {
  const folder = join(root, '.peers')
  console.log(`setting up ${folder} for the peers (some gigabytes, once)`)
  if (!run('python3', ['-m', 'venv', folder])) console.log('there is no Python to set up the peers with')
}
const python = peerPython()
if (python) {
  const there = (module) =>
    run(python, ['-c', `import importlib.util as u, sys; sys.exit(u.find_spec('${module}') is None)`], 'ignore')
  for (const [name, module] of wanted) {
    if (there(module)) continue
    console.log(`installing ${name}`)
    if (!run(python, ['-m', 'pip', 'install', '--quiet', name]))
      console.log(`${name} could not be installed: the benches say that it is missing`)
  }
}
