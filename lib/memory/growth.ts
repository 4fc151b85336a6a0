import { SteepestError } from '../errors.js'
import { assign } from '../ops/control.js'
import { add, div, greaterEqual, maximum, pow, sqrt, square, sub, where } from '../ops/elementwise.js'
import { norm, sum } from '../ops/reduce.js'
import { full } from '../ops/shape.js'
import { argument } from '../optim/base.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Projector } from './projector.js'
import type { Inner } from './wrap.js'

/** Added to a norm before something is divided by it. */
export const TINY = 1e-8

/** @internal Throws unless the rule's steps are proportional to the learning rate and do not look at the weights. */
export function requireProportional(who: string, { decay, parts }: Inner): void {
  if (decay.kind !== 'own') return
  throw new SteepestError('ARGUMENT', {
    who,
    rule: 'the rule inside must make steps that are proportional to the learning rate and do not look at the weights',
    got: parts.name,
    fix: 'Take Adam, AdamW, SGD, Lion or another such rule',
  })
}

/**
 * What the rule's step is a multiple of: for Hugging Face's AdamW the bias correction, which Fira and APOLLO leave out where they compare norms.
 */
export function biasOf({ parts, hyper }: Inner, args: Tensor): Tensor | undefined {
  if (parts.name !== 'adamwHf' || hyper.correctBias === false) return undefined
  const t = argument(args, 1)
  const left = (beta: unknown) => sub(1, pow(full([], Number(beta), 'float64'), t))
  return div(sqrt(left(hyper.beta2)), left(hyper.beta1))
}

/** Norms of the vectors of a small matrix that one factor is for: those along its small side, or the whole. */
export function norms(projector: Projector, low: Tensor, whole: boolean): Tensor {
  if (whole) return norm(low)
  return sqrt(sum(square(low), { axis: projector.space?.left ? 0 : 1, keepDims: true }))
}

/**
 * A limit to how much a norm grows in a step. `before` is the norm of the step before, as it was then limited, negative at the first step; gives
 * what to divide by, and the norm to remember.
 */
export function limited(size: Tensor, before: Tensor, limit: number): { divisor: Tensor; norm: Tensor } {
  const grown = div(maximum(div(size, add(before, TINY)), limit), limit)
  const divisor = where(greaterEqual(before, 0), grown, 1)
  return { divisor, norm: assign(before, div(size, divisor)) }
}
