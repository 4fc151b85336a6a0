import { crossEntropy, nn, optim, tanh, type Tensor } from 'steepest'
import { learn } from './learn.js'
import { batches, type Rows } from './rows.js'

const DIM = 50

/** 50-128-128 with tanh, and a head. */
export class Encoder extends nn.Module {
  body: nn.Linear[]
  head: nn.Linear

  constructor(seed: number, outputs: number) {
    super()
    const keys = new nn.Keys(seed)
    this.body = [DIM, 128].map((n) => new nn.Linear(n, 128, { key: keys.next() }))
    this.head = new nn.Linear(128, outputs, { key: keys.next() })
  }

  forward(x: Tensor): Tensor {
    return this.head.forward(this.body.reduce((h, layer) => tanh(layer.forward(h)), x))
  }

  loss({ x, y }: Rows): { loss: Tensor } {
    return { loss: crossEntropy(this.forward(x), y) }
  }
}

type Params = Record<string, Tensor>

/** Trains a model, or the few numbers of one, and gives it. */
export async function tune<M extends { loss(batch: never, ctx: nn.Context): optim.Outputs }>(
  model: M,
  data: Rows,
  { lr, steps, seed, params = nn.parameters(model) }: { lr: number; steps: number; seed: number; params?: Params },
): Promise<M> {
  const rows = await batches(seed, data.y.size, 64, steps)
  const fitted = await learn({
    params,
    loss: (p: Params, at: Tensor) =>
      nn.withTensors(model, p).loss({ x: data.x.take(at), y: data.y.take(at) } as never, new nn.Context()).loss,
    optimizer: optim.adam({ lr: optim.schedule({ kind: 'cosine', lr, steps }) }),
    steps,
    batchOf: (t) => rows[t - 1],
    seed,
  })
  return nn.withTensors(model, fitted.params)
}
