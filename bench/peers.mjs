// Sets up the environment that the peers of the benches live in: `.peers` in the project. What cannot be installed is said; the benches go on
// without it. `node bench/peers.mjs [bench …]`
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { peerNode, peerPython, root } from './harness.mjs'

/** By bench: packages with the version that was measured, and the module that shows that one is there. */
const TORCH = [
  ['numpy', 'numpy'],
  ['torch==2.15.0', 'torch'],
]
const TRANSFORMERS = [
  ['transformers==5.24.0', 'transformers'],
  ['safetensors', 'safetensors'],
]
const JAX = [
  ['jax==0.10.2', 'jax'],
  ['optax==0.2.8', 'optax'],
]
const PACKAGES = {
  training: [...TORCH, ...TRANSFORMERS, ...JAX],
  conv: TORCH,
  memory: [...TORCH, ...TRANSFORMERS, ['peft', 'peft']],
  finetune: [...TORCH, ...TRANSFORMERS, ['peft', 'peft']],
  optim: [
    ...TORCH,
    ...JAX,
    ['lion-pytorch==0.2.5', 'lion_pytorch'],
    ['adabelief-pytorch==0.2.1', 'adabelief_pytorch'],
    ['adamp==0.3.0', 'adamp'],
    ['schedulefree==1.4.1', 'schedulefree'],
    ['bitsandbytes==0.50.2', 'bitsandbytes'],
    ['timm==1.0.31', 'timm'],
    ['torch_optimizer==0.3.0', 'torch_optimizer'],
    ['muon-optimizer==0.1.0', 'muon'],
    ['heavyball==3.2.1', 'heavyball'],
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

/** Libraries of JavaScript, each installed by itself so that one that fails takes none with it. */
const MODULES = [
  '@tensorflow/tfjs@4.22.0',
  '@tensorflow/tfjs-backend-wasm@4.22.0',
  '@jax-js/jax@0.1.25',
  '@frost-beta/mlx@0.0.7',
]
if (process.argv.length === 2 || benches.includes('training')) {
  const folder = peerNode()
  mkdirSync(folder, { recursive: true })
  const manifest = join(folder, 'package.json')
  if (!existsSync(manifest)) writeFileSync(manifest, '{ "private": true }\n')
  for (const wanted of MODULES) {
    const name = wanted.slice(0, wanted.lastIndexOf('@'))
    if (existsSync(join(folder, 'node_modules', name))) continue
    console.log(`installing ${name}`)
    if (!run('npm', ['install', '--prefix', folder, '--silent', wanted], 'ignore'))
      console.log(`${name} could not be installed: the benches say that it is missing`)
  }
}
