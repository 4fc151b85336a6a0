import { crossEntropy, memory, nn, optim, type Tensor, train } from 'steepest'
import { batches, type Rows } from './rows.js'

/** Layers 64-256-…-256-10. */
class Classifier extends nn.Module {
  mlp: nn.MLP
  constructor(seed: number, hidden: number) {
    super()
    this.mlp = new nn.MLP([64, ...new Array<number>(hidden).fill(256), 10], { seed })
  }
  loss({ x, y }: { x: Tensor; y: Tensor }): { loss: Tensor } {
    return { loss: crossEntropy(this.mlp.forward(x), y) }
  }
}

/** What training with sampled gradients gave. */
export interface SampledRun {
  accuracy: number
  /** Bytes of activations that the plan holds at its fullest. */
  activations: number
  noise: number
}

/** Trains on rows, with exact gradients where there are no options, and tests on others. */
export async function trainSampled(
  seed: number,
  data: Rows,
  test: Rows,
  steps: number,
  options?: memory.SampledOptions,
  { hidden = 2, clip }: { hidden?: number; clip?: null } = {},
): Promise<SampledRun> {
  const model = new Classifier(seed, hidden)
  const batch = 256
  const [n, width] = data.x.shape
  const [x, y] = [(await data.x.read()) as Float32Array, (await data.y.read()) as Int32Array]
  const rows = await Promise.all((await batches(seed, n, batch, steps)).map((t) => t.read()))
  const given = rows.map((ids) => {
    const own = new Float32Array(batch * width)
    ids.forEach((row, i) => own.set(x.subarray(row * width, (row + 1) * width), i * width))
    return {
      x: { data: own, shape: [batch, width] },
      y: Int32Array.from(ids, (row) => y[row]),
      ids: Int32Array.from(ids),
    }
  })
  const run = train(options ? memory.sampled(model, options) : model, given as never, {
    optimizer: optim.adamw({ lr: 1e-3 }),
    steps,
    seed,
    clip,
  })
  let [activations, noise] = [0, 0]
  for await (const event of run) {
    if (event.type === 'start') activations = event.memory.activations
    if (event.type === 'step') noise = Math.sqrt(event.metrics?.samplingVariance ?? 0) / event.gradNorm
  }
  const right = model.mlp.forward(test.x).argmax({ axis: -1 }).equal(test.y)
  return { accuracy: 100 * (await right.cast('float64').mean().item()), activations, noise }
}
