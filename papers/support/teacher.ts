import { matmul, memory, nn, optim, random, tanh, type Tensor, tensor } from 'steepest'
import { type Fitted, learn } from './learn.js'

const WIDTHS = [64, 64, 64, 16]
const NOISE = 0.05

/** Three matrices with tanh between them; N(0, 1/64) at first. */
export class Student extends nn.Module {
  layers: { weight: Tensor }[]

  constructor(seed: number) {
    super()
    this.layers = WIDTHS.slice(1).map((out, i) => ({
      weight: random.normal(random.foldIn(random.key(seed), i), [out, WIDTHS[i]], { std: 1 / 8 }),
    }))
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce((h, { weight }, i) => matmul(i === 0 ? h : tanh(h), weight.transpose()), x)
  }

  loss({ x, y }: { x: Tensor; y: Tensor }): { loss: Tensor } {
    return { loss: this.forward(x).sub(y).square().mean() }
  }
}

/** Inputs N(0, σ²) with σ from 3 to 0.1, of which only a few count much. */
function inputs(key: Tensor, n: number): Tensor {
  const scales = Float32Array.from({ length: WIDTHS[0] }, (_, i) => 3 * 10 ** ((-1.5 * i) / (WIDTHS[0] - 1)))
  return random.normal(key, [n, WIDTHS[0]]).mul(tensor(scales))
}

/** A trained student, and its mean squared distance from what the teacher says of 4000 other inputs. */
export interface Taught extends Fitted<Record<string, Tensor>> {
  error: number
}

/** Its model, and the loss of parameters of it on 128 new examples, which the key of a step gives. */
export function lessons(seed: number, rank?: number) {
  const teacher = new Student(3 * seed)
  const start = new Student(3 * seed + 1)
  const model = rank ? memory.lora(start, { rank, alpha: rank }) : start
  const root = random.key(3 * seed + 2)
  const lossAt = (params: Record<string, Tensor>, x: Tensor, y: Tensor) =>
    nn.withTensors(model, params).loss({ x, y } as never, new nn.Context({ training: true })).loss
  return {
    model,
    keyOf: (step: number) => random.foldIn(root, step),
    loss(params: Record<string, Tensor>, key: Tensor): Tensor {
      const x = inputs(key, 128)
      const noise = random.normal(random.foldIn(key, 1), [128, WIDTHS[3]]).mul(NOISE)
      return lossAt(params, x, teacher.forward(x).add(noise))
    },
    async test(params: Record<string, Tensor>): Promise<number> {
      const x = inputs(random.foldIn(root, 0), 4000)
      return await lossAt(params, x, teacher.forward(x)).item()
    },
  }
}

/** How a student is taught. */
export interface TeachOptions {
  lr: number
  steps: number
  /** Train additions of this rank in place of the weights. */
  rank?: number
  onStep?: (step: number, params: Record<string, Tensor>, state: optim.OptimizerState) => Promise<void>
}

/** Teaches a student in steps of 128 new examples, with warm-up and a rate that falls to 0 along a cosine. */
export async function teach(
  seed: number,
  make: (lr: optim.Schedule) => optim.Optimizer,
  { lr, steps, rank, onStep }: TeachOptions,
): Promise<Taught> {
  const { model, loss, keyOf, test } = lessons(seed, rank)
  const warmup = Math.min(50, Math.ceil(steps / 4))
  const fitted = await learn({
    params: nn.parameters(model),
    loss,
    optimizer: make(optim.schedule({ kind: 'cosine', lr, steps, warmup })),
    steps,
    batchOf: keyOf,
    seed,
    onStep,
  })
  return { ...fitted, error: await test(fitted.params) }
}

/** The least error over some learning rates; infinite where training with one ends the run. */
export async function best(
  seed: number,
  make: (lr: optim.Schedule) => optim.Optimizer,
  options: { rates: readonly number[]; steps: number; rank?: number },
): Promise<{ error: number; lr: number }> {
  let least = { error: Infinity, lr: Number.NaN }
  for (const lr of options.rates) {
    const { error } = await teach(seed, make, { ...options, lr })
    if (error < least.error) least = { error, lr }
  }
  return least
}
