import { optim, random, stopGradient, type study, type Tensor } from 'steepest'
import { keyOf } from './keys.js'
import { type Fitted, learn } from './learn.js'
import { batches } from './rows.js'

const [DIM, BATCH] = [50, 100]

/** Rows with labels ±1 that are drawn with the probabilities of a random logistic model; columns are scaled by exp(N(0, 1)); float64. */
export interface LogisticTask {
  x: Tensor
  y: Tensor
  seed: number
}
type Weights = { w: Tensor }

/** 2000 rows of 50 columns. */
export async function logisticTask({ seed, pick }: study.Trial): Promise<LogisticTask> {
  const key = keyOf(seed, 'data')
  const draw = (i: number, shape: number[]) => random.normal(random.foldIn(key, i), shape, { dtype: 'float64' })
  const x = draw(0, [pick(2000, 200), DIM]).mul(draw(1, [DIM]).exp())
  const p = x.matmul(draw(2, [DIM])).sigmoid()
  const drawn = random.uniform(random.foldIn(key, 3), p.shape, { dtype: 'float64' })
  const y = drawn.less(p).cast('float64').mul(2).sub(1).reshape([-1, 1])
  await y.read()
  return { x, y, seed }
}

/** Mean loss of weights on rows, and the scores that it is made of. */
export const scored = ({ w }: Weights, x: Tensor, y: Tensor): optim.Outputs => {
  const logits = x.matmul(w)
  return { loss: logits.mul(y).neg().softplus().mean(), logits }
}

/** The loss, but each example gets the slope of another. */
export function shuffled(p: Weights, x: Tensor, y: Tensor): optim.Outputs {
  const { loss, logits } = scored(p, x, y)
  const z = logits as Tensor
  const slope = z.mul(y).neg().sigmoid().mul(y).neg().div(y.size)
  const dealt = slope.take(random.permutation(random.key(1), y.size))
  return {
    loss: stopGradient(loss).add(
      stopGradient(dealt)
        .mul(z.sub(stopGradient(z)))
        .sum(),
    ),
    logits,
  }
}

/** Steps from weights 0 on all rows. */
export function onAll(
  task: LogisticTask,
  optimizer: optim.Optimizer,
  steps: number,
  loss = scored,
): Promise<Fitted<Weights>> {
  const w = task.x
    .slice([[0, 1]])
    .mul(0)
    .reshape([DIM, 1])
  const all = (p: Weights, _: Tensor) => loss(p, task.x, task.y)
  return learn({ params: { w }, loss: all, optimizer, steps, batchOf: () => task.y })
}

/** The least loss that there is. */
export async function leastLoss(task: LogisticTask): Promise<number> {
  const { params } = await onAll(task, optim.lbfgs(), 20)
  return scored(params, task.x, task.y).loss.item()
}

/** The lowest loss on all rows that some optimizers reach, each with so many looks at batches of 100. */
export async function lowest(
  task: LogisticTask,
  optimizers: readonly optim.Optimizer[],
  looks: number,
): Promise<number> {
  const { x, y, seed } = task
  const rows = await batches(seed, y.size, BATCH, looks)
  let best = Infinity
  for (const optimizer of optimizers) {
    const { params } = await learn({
      params: {
        w: x
          .slice([[0, 1]])
          .mul(0)
          .reshape([DIM, 1]),
      },
      loss: (p: Weights, at: Tensor) => scored(p, x.take(at), y.take(at)),
      optimizer,
      steps: looks,
      batchOf: (t) => rows[t - 1],
    })
    const loss = await scored(params, x, y).loss.item()
    if (loss < best) best = loss
  }
  return best
}
