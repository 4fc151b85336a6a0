import { afterEach, describe, expect, test } from 'vitest'
import { device } from '../../lib/device.js'
import { memory, nn, optim, random } from '../../lib/index.js'
import { GPT2 } from '../../lib/models/gpt2.js'
import { parameters } from '../../lib/nn/module.js'
import { mean, mul, square, sub, type Tensor, tanh } from '../../lib/ops/index.js'
import { HostArray } from '../../lib/train/host.js'
import { type FitOptions, train } from '../../lib/train/train.js'
import { Net, numbers, trained, worst } from '../memory/training.js'
import { fibersLibrary } from './library.js'
import { missing } from './missing.js'

const library = await fibersLibrary()

/** What `f` gives on the CPU and on fibers. */
async function both<T>(f: () => Promise<T>): Promise<[T, T]> {
  const out: T[] = []
  for (const where of ['cpu', 'cuda'] as const) {
    device(where)
    out.push(await f())
  }
  return [out[0], out[1]]
}

/** Two layers that share their input, and one behind them. */
class Gated extends nn.Module {
  left = new nn.Linear(6, 8, { key: random.key(1) })
  right = new nn.Linear(6, 8, { key: random.key(2) })
  out = new nn.Linear(8, 3, { key: random.key(3) })

  loss({ x, y }: { x: Tensor; y: Tensor }): { loss: Tensor } {
    return { loss: mean(square(sub(this.out.forward(mul(tanh(this.left.forward(x)), this.right.forward(x))), y))) }
  }
}

/** Last loss and weights of a training run on `batch(step)`. */
async function run(model: object, batch: (step: number) => object, options: Partial<FitOptions>, steps: number) {
  let n = 0
  const source = {
    next: () => (n < steps ? { microBatches: [batch(n++)], tokens: 64 } : null),
    state: () => n,
    restore: (at: number) => {
      n = at
    },
  }
  const { loss } = await train(model as never, source as never, { steps, ...options } as FitOptions)
  const read = await Promise.all(Object.values(parameters(model)).map((t) => t.read()))
  return { loss, weights: read.map((w) => [...w]) }
}

const furthest = (a: readonly (readonly number[])[], b: readonly (readonly number[])[]): number =>
  Math.max(...a.map((w, i) => Math.max(...w.map((x, k) => Math.abs(x - b[i][k])))))

describe.runIf(library)('training on fibers gives the numbers of the CPU', () => {
  process.env.STEEPEST_CUDA_LIBRARY = library
  afterEach(() => {
    device('cpu')
  })

  test.each(['power', 'svd'] as const)('GaLore, whose spaces are chosen anew every other step (%s)', async (method) => {
    const [cpu, cuda] = await both(() =>
      trained(new Net('float32'), {
        optimizer: memory.galore(optim.adamw({ lr: 0.01 }), { rank: 3, updateGap: 2, method }),
        steps: 3,
      }),
    )
    expect(cuda.after).toBeLessThan(cuda.before)
    expect(Math.abs(cuda.after - cpu.after)).toBeLessThan(1e-4 * cpu.before)
    expect(worst(cpu.weights, cuda.weights)).toBeLessThan(2e-3)
  })

  test.each(['systematic', 'replacement'] as const)('WTA-CRS, with norms of earlier steps (%s)', async (draw) => {
    const batch = (step: number) => ({
      x: new HostArray(Float32Array.from(numbers(step % 2, 32 * 6)), [32, 6]),
      y: new HostArray(Float32Array.from(numbers(7 + (step % 2), 32 * 3)), [32, 3]),
      ids: new HostArray(Int32Array.from({ length: 32 }, (_, i) => (step % 2) * 32 + i)),
    })
    const [cpu, cuda] = await both(() =>
      run(
        memory.sampled(new Gated(), { ratio: 0.3, cache: 4096, draw }),
        batch,
        { optimizer: optim.adamw({ lr: 0.01 }) },
        4,
      ),
    )
    // The same rows were chosen: another one would move weights by a tenth of a step at the least.
    expect(furthest(cpu.weights, cuda.weights)).toBeLessThan(5e-4)
    expect(Math.abs(cpu.loss - cuda.loss)).toBeLessThan(1e-4 * cpu.loss)
  })

  test.runIf(!missing.some((name) => /^(linearCrossEntropy|attention)/.test(name)))('a small GPT', async () => {
    const config = { vocabSize: 31, context: 12, layers: 2, heads: 2, width: 16 }
    const ids = (step: number, shift: number) =>
      new HostArray(
        Int32Array.from({ length: 48 }, (_, i) => (7 * (i + shift) + 3 * step + ((i + shift) % 5)) % 31),
        [4, 12],
      )
    const batch = (step: number) => ({ inputIds: ids(step, 0), targets: ids(step, 1) })
    const [cpu, cuda] = await both(() => run(new GPT2(config), batch, { optimizer: optim.adamw({ lr: 3e-3 }) }, 8))
    // Better than to know nothing.
    expect(cuda.loss).toBeLessThan(Math.log(31))
    expect(Math.abs(cpu.loss - cuda.loss)).toBeLessThan(1e-3 * cpu.loss)
  })
})

test.skipIf(library)('skipped: training on fibers (npm run fibers builds them)', () => {
  expect(library).toBeUndefined()
})
