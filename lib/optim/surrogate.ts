import { checkOptions, SteepestError } from '../errors.js'
import { parameters, withTensors } from '../nn/module.js'
import { stopGradient } from '../ops/control.js'
import { add, cast, div, equal, mul, pow, sqrt, square, sub, where } from '../ops/elementwise.js'
import { arange } from '../ops/assemble.js'
import { sum } from '../ops/reduce.js'
import { alias, onesLike } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { valueAndGrad } from '../transform/grad.js'
import { backward } from '../transform/backward.js'
import { scan } from '../transform/loop.js'
import { argsOf, argument } from './base.js'
import { type Objective, objectiveOf, type ObjectivePart, ofParts } from './objective.js'
import { checkPositive } from './options.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { smaller, stepOn } from './through.js'

/** Hyper-parameters of `surrogate`. */
export interface SurrogateOptions {
  /** Step size in the space of the scores, above 0; one over the smoothness of the loss of one example there (logistic: 4). Default 1. */
  eta?: number
  /** How eta falls with the step t: not, as 1 / √t, or as this factor to the power of t − 1. Default `constant`. */
  decay?: 'constant' | 'sqrt' | number
  /** Steps of `base` on each surrogate, a whole number of 1 or more. Default 10. */
  innerSteps?: number
}

/** Where the surrogate touches the loss: the scores there, and the gradient of the loss by them. */
interface Touch {
  loss: Tensor
  scores: Tensor
  slope: Tensor
}

/**
 * Target-based surrogate optimization: the loss is looked at once a step, by its gradient in the space of the scores (`logits`), and `base` takes
 * several steps on the surrogate that this makes, ⟨g, z − z₀⟩ + ‖z − z₀‖² / 2η (means over the examples), which bounds the loss from above where
 * 1 / η is its smoothness there. With one inner step of gradient descent it is gradient descent. No state of its own.
 * A loop's clip is left out; that of `base` holds for the gradients of the surrogate.
 * Source: Lavington et al., "Target-based surrogates for stochastic optimization", arXiv 2302.02607.
 * @param base any optimizer, one that evaluates the objective too: `armijo()` is the authors'
 */
export function surrogate(base: Optimizer, options: SurrogateOptions = {}): Optimizer {
  const who = 'optim.surrogate'
  checkOptions(who, options, ['eta', 'decay', 'innerSteps'])
  const { eta = 1, decay = 'constant', innerSteps = 10 } = options
  checkPositive(who, 'eta', eta)
  if (decay !== 'constant' && decay !== 'sqrt' && !(typeof decay === 'number' && decay > 0 && decay <= 1))
    throw new SteepestError('OPTION', {
      who,
      rule: '`decay` must be constant, sqrt or a factor in (0, 1]',
      got: String(decay),
    })
  if (!Number.isSafeInteger(innerSteps) || innerSteps < 1)
    throw new SteepestError('OPTION', {
      who,
      rule: '`innerSteps` must be a whole number of 1 or more',
      got: String(innerSteps),
    })

  const scoresOf = <P>(part: ObjectivePart<P>, params: P): { loss: Tensor; scores: Tensor } => {
    const { loss, logits } = part.outputs(params)
    if (logits) return { loss, scores: logits }
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'the surrogate is a function of the scores, so the model must give them',
      got: 'no logits',
      fix: 'Return { loss, logits }',
    })
  }
  const touch = <P>(part: ObjectivePart<P>, params: P): Touch => {
    const { loss, scores } = scoresOf(part, params)
    const [slope] = backward([loss], [onesLike(loss)], [scores])
    if (!slope)
      throw new SteepestError('ARGUMENT', {
        who,
        rule: 'the loss must be computed from the scores that the model gives',
        fix: 'Return the tensor that the loss was made of as `logits`',
      })
    return { loss: stopGradient(loss), scores: stopGradient(scores), slope: stopGradient(slope) }
  }

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const args = argsOf(who, base.lr, state, context)
    const t = argument(args, 1)
    const size =
      typeof decay === 'number' ? mul(pow(decay, sub(t, 1)), eta) : decay === 'sqrt' ? div(eta, sqrt(t)) : eta
    // The base writes over the weights; the surrogate goes on touching the loss where they were.
    const start = withTensors(
      params,
      Object.fromEntries(Object.entries(parameters(params)).map(([k, p]): [string, Tensor] => [k, alias(p)])),
    )
    // With one micro-batch the loss is looked at once; with several, once for each of them and inner step, as they are not all in memory.
    let whole: Touch | undefined
    const loss = objective.total((part) => {
      const at = touch(part, start)
      if (part.share === 1) whole = at
      return at.loss
    })
    const surrogateOf = (part: ObjectivePart<P>, at: P): { loss: Tensor; logits: Tensor } => {
      const { loss: height, scores: z0, slope } = whole ?? touch(part, start)
      const { scores: z } = scoresOf(part, at)
      const away = sub(z, z0)
      const rows = z.size / z.shape[z.rank - 1]
      const bend = div(
        mul(sum(square(away)), part.share / (2 * rows)),
        typeof size === 'number' ? size : cast(size, z.dtype),
      )
      return { loss: add(cast(height, z.dtype), add(sum(mul(slope, away)), bend)), logits: z }
    }
    const surrogates = ({ total, key }: Objective<P>): Objective<P> => ({
      ...objectiveOf<P>(
        (f) =>
          total((part) =>
            f({
              ...part,
              examples: undefined,
              outputs: (at) => surrogateOf(part, at),
              loss: (at) => surrogateOf(part, at).loss,
              valueAndGrad: (at) => {
                const [value, grads] = valueAndGrad((q: P) => surrogateOf(part, q).loss)(at)
                return { loss: value, grads }
              },
            }),
          ),
        key,
      ),
      silent: true,
    })
    const inner = ofParts(who, objective, surrogates)
    const { scaleOf: _, clipNorm: __, ...rest } = context
    const { carry } = scan(
      (now: { params: P; state: OptimizerState }, i: Tensor) => {
        // Each inner step is a step of the base.
        const own = where(
          equal(arange(args.shape[0]), 1),
          add(mul(sub(t, 1), innerSteps), add(cast(i, 'float64'), 1)),
          args,
        )
        const next = stepOn(who, base, inner, now.params, now.state, { ...rest, lr: undefined, args: own })
        return { carry: { params: next.params, state: next.state }, y: null }
      },
      { params, state },
      arange(innerSteps),
    )
    return { params: carry.params, state: carry.state, loss }
  }
  return {
    ...base,
    name: `surrogate(${base.name})`,
    hyper: { ...base.hyper, eta, innerSteps },
    ...smaller(base, (o) => surrogate(o, options)),
    update: () => needsObjective('surrogate'),
    step,
  }
}
