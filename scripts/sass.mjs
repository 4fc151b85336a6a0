// `node scripts/sass.mjs [library]`: reads the generated code of the hot kernels (cuda/hot.json) out of libsteepest_cuda.so: for no target
// may one keep more on its stack than the list says (0 where it says nothing: what spills lies there), and those that are bound by memory
// must have so many loads and stores of 128 bits. No GPU is needed.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ensureDisassemblers } from './deps-cuda.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const TARGETS = ['sm_80', 'sm_90a', 'sm_100']
const READ = 'sm_90a'

/** What cuobjdump says of a library, as text. */
function dumpWith(bin) {
  return (args) => {
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` }
    const { status, stdout, error } = spawnSync(join(bin, 'cuobjdump'), args, {
      env,
      encoding: 'utf8',
      maxBuffer: 1 << 30,
    })
    if (error || status !== 0) throw error ?? new Error(`cuobjdump ${args.join(' ')} failed`)
    return stdout
  }
}

/** Bytes of stack by kernel, from `-res-usage`. */
export function stacksOf(text) {
  const stacks = new Map()
  for (const [, name, stack] of text.matchAll(/^ *Function (\S+):\s*\n.*?STACK:(\d+)/gm))
    stacks.set(name, Number(stack))
  return stacks
}

/** Loads and stores of global memory of 128 bits by kernel, from `-sass`. */
export function accessesOf(text) {
  const found = new Map()
  for (const part of text.split(/^\s*Function : /m).slice(1)) {
    const count = (op) => (part.match(new RegExp(`\\b${op}\\.E[.A-Z_0-9]*\\.128\\b`, 'g')) ?? []).length
    found.set(part.slice(0, part.search(/\s/)), { loads: count('LDG'), stores: count('STG') })
  }
  return found
}

/** What is wrong with the hot kernels of a library, one sentence each; without accesses those are not looked at. */
export function judge(hot, stacks, accesses) {
  const wrong = []
  for (const { name, symbol, loads = 0, stores = 0, stack = 0 } of hot) {
    const found = [...stacks.keys()].filter((kernel) => kernel.includes(symbol))
    if (found.length === 0) wrong.push(`${name}: there is no kernel of this name (${symbol})`)
    for (const kernel of found) {
      const has = stacks.get(kernel)
      if (has > stack) wrong.push(`${name}: ${has} bytes of stack, at most ${stack} are allowed`)
      if (!accesses) continue
      const wide = accesses.get(kernel) ?? { loads: 0, stores: 0 }
      if (wide.loads < loads) wrong.push(`${name}: ${wide.loads} loads of 128 bits, at least ${loads} are wanted`)
      if (wide.stores < stores) wrong.push(`${name}: ${wide.stores} stores of 128 bits, at least ${stores} are wanted`)
    }
  }
  return wrong
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const library = process.argv[2] ?? join(root, 'build', 'Release', 'libsteepest_cuda.so')
  if (!existsSync(library)) {
    console.error(`steepest: ${library} is not there; build it with: npm run cuda`)
    process.exit(1)
  }
  const dump = dumpWith(ensureDisassemblers())
  const hot = JSON.parse(readFileSync(join(root, 'cuda', 'hot.json'), 'utf8'))
  const stacks = new Map(TARGETS.map((arch) => [arch, stacksOf(dump(['-arch', arch, '-res-usage', library]))]))
  // Reading the code is slow: what is loaded and stored together is so for all targets.
  const names = [...stacks.get(READ).keys()].filter((kernel) => hot.some(({ symbol }) => kernel.includes(symbol)))
  const accesses = accessesOf(dump(['-arch', READ, '-sass', '-fun', names.join(','), library]))
  let failed = false
  for (const arch of TARGETS) {
    for (const sentence of judge(hot, stacks.get(arch), arch === READ ? accesses : undefined)) {
      console.log(`${arch}: ${sentence}`)
      failed = true
    }
  }
  if (failed) process.exit(1)
  console.log(`${hot.length} hot kernels: no spills beyond the list, 128-bit accesses where they are wanted`)
}
