import { SteepestError } from '../errors.js'
import { Tensor } from '../tensor/tensor.js'
import { valueAndGrad } from '../transform/grad.js'

/** What a model says of a batch. */
export interface Outputs {
  /** Mean loss, a scalar. */
  loss: Tensor
  /** Scores of the classes, [..., classes]. */
  logits?: Tensor
  /** Losses of the tasks, scalars by name. */
  losses?: Readonly<Record<string, Tensor>>
}

/** One micro-batch of a step. */
export interface ObjectivePart<P> {
  /** What the model says with these parameters; the same batch and random numbers at each call. */
  outputs(params: P): Outputs
  loss(params: P): Tensor
  /** Its loss and gradient (a tree like `params`). */
  valueAndGrad(params: P): { loss: Tensor; grads: P }
  /** int32 [2], this micro-batch's own; absent where nothing is random. */
  readonly key?: Tensor
  /** Its part of the step: the shares of all micro-batches add up to 1, and so `loss` of all adds up to the loss of the step. */
  readonly share: number
}

/** The loss of one step as a function of the parameters, for optimizers that need more than its gradient. */
export interface Objective<P> {
  /** Sum over the micro-batches of a tree of float tensors. One micro-batch is in memory at a time. */
  total<R>(f: (part: ObjectivePart<P>) => R): R
  /** Loss and gradient (a tree like `params`). */
  valueAndGrad(params: P): { loss: Tensor; grads: P }
  loss(params: P): Tensor
  /** int32 [2], of this step; absent where nothing is random. */
  readonly key?: Tensor
}

/** @internal An objective from its sum over micro-batches. */
export function objectiveOf<P>(total: Objective<P>['total'], key?: Tensor): Objective<P> {
  return {
    total,
    valueAndGrad: (params) => total((part) => part.valueAndGrad(params)),
    loss: (params) => total((part) => part.loss(params)),
    key,
  }
}

/**
 * An objective for one's own loop: `optimizer.step(objective((p) => loss(p, batch)), params, state)`.
 * @param f the loss of the parameters, a scalar, or what a model says: `{ loss, logits, losses }`
 * @param key int32 [2], for optimizers that draw random numbers; another one at each step
 */
export function objective<P>(f: (params: P) => Tensor | Outputs, key?: Tensor): Objective<P> {
  const outputs = (params: P): Outputs => {
    const out = f(params)
    return out instanceof Tensor ? { loss: out } : out
  }
  const loss = (params: P): Tensor => outputs(params).loss
  const both = (params: P) => {
    const [value, grads] = valueAndGrad(loss)(params)
    return { loss: value, grads }
  }
  const part: ObjectivePart<P> = { outputs, loss, valueAndGrad: both, key, share: 1 }
  return objectiveOf((g) => g(part), key)
}

/** The key of a step, or an error that says who needs one. */
export function requireKey(who: string, key: Tensor | undefined): Tensor {
  if (key) return key
  throw new SteepestError('ARGUMENT', {
    who,
    rule: 'random numbers need a key',
    fix: 'Give one: optim.objective(loss, random.foldIn(random.key(0), step))',
  })
}
