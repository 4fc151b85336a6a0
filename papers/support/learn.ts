import { compile, nn, optim, random, readAll, Tensor, tensor, valueAndGrad } from 'steepest'
import { keyOf } from './keys.js'

/** The loss of parameters on a batch, a scalar, or all that a model says of it. */
export type Loss<P, B> = (params: P, batch: B) => Tensor | optim.Outputs

/** What training left. */
export interface Fitted<P> {
  params: P
  state: optim.OptimizerState
  /** Loss of every step, before its update. */
  losses: number[]
}

/** Steps after which the numbers are read: the queue stays short, and the event loop turns. */
const READ_EVERY = 50

/**
 * Trains parameters: one compiled program a step, with the learning rate of the optimizer's schedule.
 * @param batchOf the batch of the 1-based step
 * @param onStep called after a step with the parameters as they are then
 */
export async function learn<P, B>(options: {
  params: P
  loss: Loss<P, B>
  optimizer: optim.Optimizer
  steps: number
  batchOf: (step: number) => B
  seed?: number
  onStep?: (step: number, params: P, state: optim.OptimizerState) => Promise<void> | void
}): Promise<Fitted<P>> {
  const { loss, optimizer, steps, batchOf, seed = 0, onStep } = options
  const scalar = (p: P, batch: B): Tensor => {
    const out = loss(p, batch)
    return out instanceof Tensor ? out : out.loss
  }
  const step = compile(
    (params: P, state: optim.OptimizerState, batch: B, lr: Tensor, key: Tensor) => {
      if (optimizer.step) {
        return optimizer.step(
          optim.objective((p: P) => loss(p, batch), key),
          params,
          state,
          { lr, key },
        )
      }
      const [value, grads] = valueAndGrad(scalar)(params, batch)
      return { ...optimizer.update(params, grads, state, { lr, key }), loss: value }
    },
    { donate: [0, 1] },
  )
  // The first parameters are copied, so that the caller's are not overwritten.
  let params = compile((p: P) => copied(p))(options.params)
  let state = optimizer.init(params)
  const keys = keyOf(seed, 'steps')
  const losses: number[] = []
  let pending: Tensor[] = []
  for (let t = 1; t <= steps; t++) {
    const lr = tensor(optimizer.lrAt(t), { dtype: 'float64' })
    const next = step(params, state, batchOf(t), lr, random.foldIn(keys, t))
    params = next.params
    state = next.state
    pending.push(next.loss)
    if (pending.length === READ_EVERY || t === steps) {
      for (const read of await readAll(pending)) losses.push(read[0] as number)
      pending = []
    }
    if (onStep) await onStep(t, params, state)
  }
  return { params, state, losses }
}

/** The same tree with tensors of its own. */
function copied<P>(params: P): P {
  const all = nn.namedTensors(params).parameters
  return nn.withTensors(params, Object.fromEntries(Object.entries(all).map(([k, t]) => [k, t.mul(1)])))
}

/** The mean of the last `share` of some numbers. */
export function tailMean(values: readonly number[], share = 0.1): number {
  const tail = values.slice(-Math.max(1, Math.round(values.length * share)))
  return tail.reduce((a, b) => a + b, 0) / tail.length
}

/** Share of rows whose largest logit is that of the label, in [0, 1]. */
export async function accuracy(logits: Tensor, labels: Tensor): Promise<number> {
  return await logits.argmax({ axis: -1 }).equal(labels).cast('float64').mean().item()
}

/** A function that is called once for each key, so that an experiment and its control share what both need. */
export function once<T>(): (key: string, f: () => Promise<T>) => Promise<T> {
  const known = new Map<string, Promise<T>>()
  return (key, f) => {
    const found = known.get(key) ?? f()
    known.set(key, found)
    return found
  }
}
