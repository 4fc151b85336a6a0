import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { add, type DType, matmul, mean, nn, square, sub, tanh, type Tensor, tensor } from '../../lib/index.js'
import { HostArray } from '../../lib/train/host.js'
import { type FitOptions, train } from '../../lib/train/train.js'

export const numbers = (seed: number, n: number): Float64Array =>
  Float64Array.from({ length: n }, (_, i) => Math.sin(seed * 77.7 + 12.9898 * (i + 1)) * (1 + 0.3 * Math.cos(3.1 * i)))

/** Two wide matrices and one tall one, biases, a head and a frozen bias. */
export class Net {
  first: { weight: Tensor; bias: Tensor }
  second: { weight: Tensor }
  third: { weight: Tensor }
  head: { weight: Tensor }
  frozen: Tensor
  constructor(
    readonly dtype: DType = 'float64',
    seed = 0,
  ) {
    const make = (n: number, shape: number[]) =>
      tensor(
        numbers(
          seed + n,
          shape.reduce((a, b) => a * b, 1),
        ),
        { dtype, shape },
      )
    this.first = { weight: make(1, [6, 10]), bias: make(2, [10]) }
    this.second = { weight: make(3, [10, 8]) }
    this.third = { weight: make(4, [8, 12]) }
    this.head = { weight: make(5, [12, 2]) }
    this.frozen = make(6, [2])
  }
  loss({ x, y }: { x: Tensor; y: Tensor }): { loss: Tensor } {
    const h = tanh(add(matmul(x, this.first.weight), this.first.bias))
    const z = tanh(matmul(tanh(matmul(h, this.second.weight)), this.third.weight))
    return { loss: mean(square(sub(add(matmul(z, this.head.weight), this.frozen), y))) }
  }
}

/** The frozen bias, as a group. */
export const FROZEN = [{ match: /frozen/, frozen: true }]

/** Steps of `rows` examples in `cut` micro-batches. */
export const batches = (steps: number, rows: number, cut: number, dtype: DType = 'float64', same = false) =>
  Array.from({ length: steps * cut }, (_, i) => {
    const [step, part] = [same ? 0 : Math.floor(i / cut), i % cut]
    const own = rows / cut
    const take = (seed: number, width: number) => {
      const all = numbers(seed + step, rows * width).slice(part * own * width, (part + 1) * own * width)
      return new HostArray(dtype === 'float64' ? all : Float32Array.from(all), [own, width])
    }
    return { x: take(10, 6), y: take(50, 2) }
  })

const folders: string[] = []
/** A folder that is removed when the file's tests are done. */
export const folder = (): string => {
  folders.push(mkdtempSync(join(tmpdir(), 'steepest-memory-')))
  return folders.at(-1)!
}
afterAll(() => {
  for (const dir of folders) rmSync(dir, { recursive: true, force: true })
})

export interface TrainedOptions extends Partial<FitOptions> {
  optimizer: FitOptions['optimizer']
  steps?: number
  cut?: number
  /** The same batch at every step. */
  same?: boolean
}

/** Weights after training, and the loss of the first batch before and after. */
export async function trained(net: Net, { cut = 1, steps = 7, same = false, ...options }: TrainedOptions) {
  const at = { n: 0 }
  const all = batches(steps, 16, cut, net.dtype, same)
  const source = {
    next: () => {
      const from = at.n++ * cut
      return from >= all.length ? null : { microBatches: all.slice(from, from + cut), tokens: 16 }
    },
    state: () => at.n,
    restore: (n: unknown) => {
      at.n = n as number
    },
  }
  const onFirst = async () => {
    const { x, y } = batches(1, 16, 1, net.dtype)[0]
    const at = { x: tensor(x.data, { shape: x.shape }), y: tensor(y.data, { shape: y.shape }) }
    return Number((await net.loss(at).loss.read())[0])
  }
  const before = await onFirst()
  await train(net as never, source as never, { steps, ...options })
  const after = await onFirst()
  const named = Object.entries(nn.parameters(net))
  const read = await Promise.all(named.map(async ([k, t]) => [k, [...(await t.read())]] as const))
  return { before, after, weights: Object.fromEntries(read) as Record<string, number[]> }
}

export const worst = (a: Record<string, number[]>, b: Record<string, number[]>): number =>
  Math.max(...Object.keys(a).map((k) => Math.max(...a[k].map((x, i) => Math.abs(x - b[k][i])))))

export const filesOf = (dir: string): Record<string, string> =>
  Object.fromEntries(readdirSync(dir).map((name) => [name, readFileSync(join(dir, name)).toString('latin1')]))
