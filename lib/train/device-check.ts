import { fromNative, native } from '../addon.js'
import { device } from '../device.js'
import { readAll } from '../graph/evaluate.js'
import { add, div, erf, exp, log, mul, relu, sqrt, tanh, where, greater } from '../ops/elementwise.js'
import { layerNorm, rmsNorm, softmax } from '../ops/norm.js'
import { matmul } from '../ops/matmul.js'
import { max, mean, sum } from '../ops/reduce.js'
import { tensor, transpose } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { grad } from '../transform/index.js'
import type { Finding } from './machine.js'
import { bytes } from './plot-numbers.js'

/** Works of a training step, from two matrices with positive entries. */
const WORKS: readonly (readonly [name: string, f: (x: Tensor, y: Tensor) => Tensor])[] = [
  ['a chain of elementwise steps', (x, y) => where(greater(x, y), mul(exp(x), tanh(y)), div(log(add(x, 1)), sqrt(y)))],
  ['erf and relu', (x, y) => relu(add(erf(x), mul(y, -1)))],
  ['a transposed operand', (x, y) => add(transpose(x), transpose(y))],
  ['sums', (x, y) => add(sum(x, { axis: 0 }), mean(y, { axis: 0 }))],
  ['the largest', (x) => max(x, { axis: 1 })],
  ['softmax', (x) => softmax(x)],
  ['the gradient of softmax', (x, y) => grad((v: Tensor) => sum(mul(softmax(v), y)))(x)],
  ['layerNorm', (x) => layerNorm(x)],
  ['the gradient of layerNorm', (x, y) => grad((v: Tensor) => sum(mul(layerNorm(v), y)))(x)],
  ['rmsNorm', (x) => rmsNorm(x)],
  ['a product', (x, y) => matmul(x, transpose(y))],
]
const ROWS = 37
const COLUMNS = 129
/** Sums are taken in another order than on the CPU. */
const BOUND = 1e-5

const entries = (phase: number): Float32Array =>
  Float32Array.from({ length: ROWS * COLUMNS }, (_, i) => 0.1 + 0.9 * Math.abs(Math.sin(1.7 * i + phase)))

async function compute(where: 'cpu' | 'cuda', f: (x: Tensor, y: Tensor) => Tensor): Promise<ArrayLike<number>> {
  device(where)
  const [x, y] = [0, 1].map((phase) => tensor(entries(phase), { shape: [ROWS, COLUMNS] }))
  return (await readAll([f(x, y)]))[0]
}

/** Compares works on the GPU with the CPU. What has no kernel yet is told apart from what is wrong. */
async function compareWorks(): Promise<Finding[]> {
  const right: string[] = []
  const lacking: string[] = []
  const wrong: string[] = []
  for (const [name, f] of WORKS) {
    const wanted = await compute('cpu', f)
    try {
      const got = await compute('cuda', f)
      let worst = 0
      for (let i = 0; i < wanted.length; i++) {
        const error = Math.abs(got[i] - wanted[i]) / Math.max(1, Math.abs(wanted[i]))
        // NaN is the worst that there is.
        worst = error <= worst ? worst : error
      }
      if (worst <= BOUND) right.push(name)
      else wrong.push(`${name} (by ${worst.toExponential(1)})`)
    } catch (error) {
      const { message } = fromNative('doctor', error)
      if (/there is no CUDA kernel/.test(message)) lacking.push(name)
      else wrong.push(`${name} (${message})`)
    }
  }
  return [
    { name: 'as the CPU', value: right.join(', ') || 'nothing', ok: right.length > 0 || wrong.length === 0 },
    ...(lacking.length > 0 ? [{ name: 'not compared', value: lacking.join(', '), ok: true }] : []),
    ...(wrong.length > 0
      ? [{ name: 'wrong', value: wrong.join(', '), ok: false, fix: 'Train on the CPU, and report this line' }]
      : []),
  ]
}

/** Bytes a second of copies to the GPU and back. */
function copySpeed(): Finding {
  const n = 1 << 26
  const [host, buffer] = [new Uint8Array(n), new (native().Buffer)(n)]
  const rate = (f: () => void): number => {
    f()
    const began = performance.now()
    f()
    return n / ((performance.now() - began) / 1000)
  }
  const down = new Uint8Array(1)
  // A read behind a write waits for it.
  const up = rate(() => {
    buffer.write(host)
    buffer.read(down, n - 1)
  })
  const back = rate(() => buffer.read(host))
  buffer.free()
  return { name: 'copies', value: `${bytes(up)}/s to the GPU, ${bytes(back)}/s back`, ok: true }
}

/** What `steepest doctor --device cuda` finds: the GPU, what has a kernel, and whether it computes as the CPU does. */
export async function inspectDevice(): Promise<Finding[]> {
  const before = device()
  try {
    device('cuda')
    const { facts, missing } = native().deviceInfo()!
    const found: Finding[] = facts.map(([name, value]) => ({ name, value, ok: true }))
    found.push({ name: 'no kernel', value: missing.join(' ') || 'none: every op has one', ok: true })
    found.push(copySpeed(), ...(await compareWorks()))
    return found
  } catch (error) {
    const { rule, fix } = fromNative('device', error)
    return [{ name: 'GPU', value: rule, ok: false, ...(fix ? { fix } : {}) }]
  } finally {
    device(before)
  }
}
