// Sets up the environment that the peers of the benches live in: `.peers` in the project. What cannot be installed is said; the benches go on without it.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { peerPython, root } from './harness.mjs'

const PACKAGES = ['numpy', 'torch', 'transformers', 'peft', 'safetensors']

if (!peerPython()) {
  const folder = join(root, '.peers')
  console.log(`setting up ${folder} with ${PACKAGES.join(', ')} (some gigabytes, once)`)
  const made = spawnSync('python3', ['-m', 'venv', folder], { stdio: 'inherit' }).status === 0
  const installed =
    made && spawnSync(join(folder, 'bin/pip'), ['install', '--quiet', ...PACKAGES], { stdio: 'inherit' }).status === 0
  if (!installed) console.log('the peers could not be installed: the benches say of each that it is missing')
}
