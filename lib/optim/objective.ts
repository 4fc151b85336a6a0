import { SteepestError } from '../errors.js'
import { div } from '../ops/elementwise.js'
import { Tensor } from '../tensor/tensor.js'
import { valueAndGrad } from '../transform/grad.js'
import { flatten } from '../transform/tree.js'

/** What a model says of a batch. */
export interface Outputs {
  /** Mean loss, a scalar. */
  loss: Tensor
  /** Scores of the classes, [..., classes]. */
  logits?: Tensor
  /** Losses of the tasks, scalars by name. */
  losses?: Readonly<Record<string, Tensor>>
}

/** The examples of a micro-batch, one by one. */
export interface Examples<P> {
  readonly count: number
  /** What they are made of: a tree of tensors, along whose first axis the examples lie. */
  readonly batch: unknown
  /** The loss of one of them (that tree without the axis), a scalar; those of all examples of all micro-batches add up to the loss of the step. */
  loss(params: P, example: unknown): Tensor
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
  /** Its examples; absent where nobody said what they are. */
  readonly examples?: Examples<P>
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
  /** @internal Where wrappers changed its gradient: what it was before, and what they make of any. */
  readonly changed?: { readonly from: Objective<P>; readonly by: (objective: Objective<P>) => Objective<P> }
  /** @internal Who makes its gradient of something else than the gradients of the parts. */
  readonly combinedBy?: string
  /** @internal Its gradients are taken within a loop of the program, out of which nothing can be told to whoever trains. */
  readonly silent?: boolean
}

/** @internal `objective` with another gradient, which is made of its own. */
export function withGradient<P>(
  objective: Objective<P>,
  make: (objective: Objective<P>) => Objective<P>['valueAndGrad'],
): Objective<P> {
  const own = (of: Objective<P>): Objective<P> => ({ ...of, valueAndGrad: make(of) })
  const { from, by } = objective.changed ?? { from: objective, by: (of: Objective<P>) => of }
  return { ...own(objective), changed: { from, by: (of) => own(by(of)) } }
}

/**
 * @internal An objective that `make` makes of the parts of another: what wrappers around do to gradients they do to those of the new one.
 * @throws SteepestError where the parts do not give the gradient, since another one combines them
 */
export function ofParts<P>(
  who: string,
  objective: Objective<P>,
  make: (objective: Objective<P>) => Objective<P>,
): Objective<P> {
  if (objective.combinedBy)
    throw new SteepestError('OPTION', {
      who,
      rule: 'what is around it must leave the losses of the parts as they are',
      got: objective.combinedBy,
      fix: `Put ${objective.combinedBy} inside`,
    })
  const { from, by } = objective.changed ?? { from: objective, by: (of: Objective<P>) => of }
  return by(make(from))
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

/** The examples of an objective for one's own loop. */
export interface OwnExamples<P, B> {
  /** A tree of tensors, along whose first axis the examples lie. */
  batch: B
  /** The loss of one of them, a scalar; their mean is the loss of the step. */
  loss: (params: P, example: B) => Tensor
}

/**
 * An objective for one's own loop: `optimizer.step(objective((p) => loss(p, batch)), params, state)`.
 * @param f the loss of the parameters, a scalar, or what a model says: `{ loss, logits, losses }`
 * @param key int32 [2], for optimizers that draw random numbers; another one at each step
 * @param examples what the loss is the mean of, for `adaptiveBatch({ estimator: 'examples' })`
 */
export function objective<P, B = unknown>(
  f: (params: P) => Tensor | Outputs,
  key?: Tensor,
  examples?: OwnExamples<P, B>,
): Objective<P> {
  const outputs = (params: P): Outputs => {
    const out = f(params)
    return out instanceof Tensor ? { loss: out } : out
  }
  const loss = (params: P): Tensor => outputs(params).loss
  const both = (params: P) => {
    const [value, grads] = valueAndGrad(loss)(params)
    return { loss: value, grads }
  }
  const count = examples ? (flatten(examples.batch).tensors[0]?.shape[0] ?? 0) : 0
  const part: ObjectivePart<P> = {
    outputs,
    loss,
    valueAndGrad: both,
    key,
    share: 1,
    examples: examples && {
      count,
      batch: examples.batch,
      loss: (params, example) => div(examples.loss(params, example as B), count),
    },
  }
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
