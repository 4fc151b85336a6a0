import { crossEntropy, nn, type optim, relu, type Tensor } from 'steepest'
import { accuracy, type Fitted, learn } from './learn.js'
import { batches, type Rows } from './rows.js'

/** Two convolutions of stride 2 and a linear layer, for images [n, 1, 12, 12] of ten classes: some 7,000 parameters. */
export class ConvNet extends nn.Module {
  first: nn.Conv2d
  second: nn.Conv2d
  head: nn.Linear

  constructor(seed: number) {
    super()
    const keys = new nn.Keys(seed)
    const how = () => ({ stride: 2, padding: 1, init: nn.init.kaimingNormal(), key: keys.next() })
    this.first = new nn.Conv2d(1, 16, 3, how())
    this.second = new nn.Conv2d(16, 32, 3, how())
    this.head = new nn.Linear(32 * 9, 10, { key: keys.next() })
  }

  forward(x: Tensor): Tensor {
    const h = relu(this.second.forward(relu(this.first.forward(x))))
    return this.head.forward(h.reshape([h.shape[0], 32 * 9]))
  }
}

/** A trained net with its accuracy on other rows. */
export interface Scored extends Fitted<Record<string, Tensor>> {
  accuracy: number
}

/** Trains a net on rows for some epochs and tests it. */
export async function trainNet(
  model: { forward(x: Tensor): Tensor },
  optimizer: optim.Optimizer,
  train: Rows,
  test: Rows,
  { seed, epochs, batch }: { seed: number; epochs: number; batch: number },
): Promise<Scored> {
  const n = train.y.size
  const steps = epochs * Math.floor(n / batch)
  const rows = await batches(seed, n, batch, steps)
  const logits = (params: Record<string, Tensor>, x: Tensor) => nn.withTensors(model, params).forward(x)
  const fitted = await learn({
    params: nn.parameters(model),
    loss: (params: Record<string, Tensor>, at: Tensor) =>
      crossEntropy(logits(params, train.x.take(at)), train.y.take(at)),
    optimizer,
    steps,
    batchOf: (t) => rows[t - 1],
    seed,
  })
  return { ...fitted, accuracy: await accuracy(logits(fitted.params, test.x), test.y) }
}
