import { SteepestError } from '../errors.js'
import { withTensors } from '../nn/module.js'
import { add, cast, div, equal, maximum, mul, remainder, square, sub, where } from '../ops/elementwise.js'
import { sum } from '../ops/reduce.js'
import { alias, full } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { jvp } from '../transform/grad.js'
import { cond } from '../transform/loop.js'
import { perExampleNorms } from '../transform/per-example.js'
import { flatten } from '../transform/tree.js'
import { vmap } from '../transform/vmap.js'
import { argsOf, argument, gradsByName } from './base.js'
import { type AdaptiveBatchOptions, checkAdaptiveBatch } from './batch-tests.js'
import type { Examples, Objective, ObjectivePart } from './objective.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { smaller, stepOn } from './through.js'
import { movedOf } from './wrap.js'

type Named = Record<string, Tensor>
const squares = (named: Named): Tensor =>
  Object.values(named)
    .map((g) => sum(square(cast(g, 'float64'))))
    .reduce(add)
/** a / b, 0 where a is, without end where only b is. */
const over = (a: Tensor, b: Tensor): Tensor => where(equal(a, 0), 0, div(a, b))
const f64 = (x: number): Tensor => full([], x, 'float64')

const who = 'optim.adaptiveBatch'

/** What gradients are compared, of one micro-batch: each is n · ∇ of a part of the step's loss, of which there are n. */
interface Compared {
  /** How many of them a micro-batch has, and a step. */
  readonly own: number
  readonly n: number
  /** Σ ‖∇‖² */
  squares(grads: Named): Tensor
  /** Σ ⟨∇, along⟩² */
  slopes(along: Named): Tensor
}

/** Parameters by name as places of their own, so that what they are put into can be differentiated. */
const placesOf = (moved: Named): Named => Object.fromEntries(Object.entries(moved).map(([k, p]) => [k, alias(p)]))
const slopesOf = (f: (named: Named) => Tensor, at: Named, along: Named): Tensor => {
  const [, slope] = jvp(
    f,
    [placesOf(at)],
    [Object.fromEntries(Object.entries(at).map(([k, p]) => [k, cast(along[k], p.dtype)]))],
  )
  return sum(square(cast(slope, 'float64')))
}

function wholeMicroBatch<P>(part: ObjectivePart<P>, params: P, moved: Named): Compared {
  return {
    own: 1,
    n: Math.round(1 / part.share),
    squares,
    slopes: (along) => slopesOf((named) => part.loss(withTensors(params, named)), moved, along),
  }
}

function examplesOf<P>({ examples, share }: ObjectivePart<P>, params: P, moved: Named): Compared {
  const { count, batch, loss } = checkedExamples(examples)
  const lossOf = (named: Named, example: unknown): Tensor => loss(withTensors(params, named), example)
  return {
    own: count,
    n: Math.round(count / share),
    squares: () => sum(square(cast(perExampleNorms(lossOf)(moved, batch).total, 'float64'))),
    slopes: (along) => slopesOf((named) => vmap((example: unknown) => lossOf(named, example))(batch), moved, along),
  }
}

function checkedExamples<P>(examples: Examples<P> | undefined): Examples<P> {
  if (!examples)
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'gradients of examples are compared, so it must know them',
      got: 'an objective without examples',
      fix: 'Train with train(), or give them: optim.objective(loss, key, { batch, loss: lossOfOne }); or take estimator: "microBatches"',
    })
  const { tensors } = flatten(examples.batch)
  if (examples.count < 1 || tensors.some((t) => t.shape[0] !== examples.count))
    throw new SteepestError('DATA', {
      who,
      rule: 'every part of a batch must have the examples along its first axis',
      got: tensors.map((t) => `[${t.shape.join(', ')}]`).join(', '),
      fix: 'Take estimator: "microBatches"',
    })
  return examples
}

/**
 * Adaptive batch sizes (AdAdaGrad): measures, in each step, how gradients lie around their mean, and says in the step's metrics how many
 * micro-batches the next step needs to pass a test (`neededBatches`). `data.growing` gives the steps that many. Around any optimizer;
 * `adagradNorm` and `adagrad` are the paper's. Compares the gradients of single examples or those of micro-batches (`estimator`). No state of
 * its own.
 * Source: Lau, Liu, Kolar, "AdAdaGrad: adaptive batch size schemes for adaptive gradient methods", arXiv 2402.11215.
 */
export function adaptiveBatch(base: Optimizer, options: AdaptiveBatchOptions = {}): Optimizer {
  const { test, eta, theta, nu, estimator, every } = checkAdaptiveBatch(who, options)
  const compared = estimator === 'examples' ? examplesOf : wholeMicroBatch

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const due =
      every === 1 ? undefined : equal(remainder(sub(argument(argsOf(who, base.lr, state, context), 1), 1), every), 0)
    /** `f` where it is time to measure. */
    const inTime = (f: () => Tensor): Tensor => (due ? cond(due, f, () => f64(0)) : f())
    let needed: Tensor | undefined

    /** Loss and gradient of an objective, with what is needed measured on the way. */
    const measured = (of: Objective<P>, at: P): { loss: Tensor; grads: P } => {
      const moved: Named = Object.fromEntries(movedOf(base, at).map(({ name, p }) => [name, p]))
      const names = new Map(Object.entries(moved).map(([k, p]) => [p, k]))
      const byName = (grads: unknown): Named => Object.fromEntries(gradsByName(who, at, grads, names))
      let [own, n] = [1, 1]
      const both = of.total((part) => {
        const { loss, grads } = part.valueAndGrad(at)
        const some = compared(part, at, moved)
        own = some.own
        n = some.n
        return { loss, grads, squares: n < 2 ? f64(0) : inTime(() => some.squares(byName(grads))) }
      })
      if (n < 2) {
        needed = f64(2)
        return both
      }
      const mean = byName(both.grads)
      const size = squares(mean)
      /** The variance of numbers whose squares add up to `all` and whose mean has the square `middle`. */
      const spread = (all: Tensor, middle: Tensor) => maximum(mul(sub(mul(all, n), middle), n / (n - 1)), 0)
      const variance = spread(both.squares, size)
      const wanted = (): Tensor => {
        if (test === 'norm') return over(variance, mul(size, eta * eta))
        const second = of.total((part) => compared(part, at, moved).slopes(mean))
        const inner = spread(second, square(size))
        const along = over(inner, mul(square(size), theta * theta))
        if (test === 'innerProduct') return along
        const across = maximum(sub(variance, over(inner, size)), 0)
        return maximum(along, over(across, mul(size, nu * nu)))
      }
      needed = div(inTime(wanted), own)
      return { loss: both.loss, grads: both.grads }
    }
    /** An objective whose first gradient is measured; `gradient` where that is not the sum of those of the parts. */
    const watched = (of: Objective<P>): Objective<P> => ({
      ...of,
      valueAndGrad(at) {
        if (needed) return of.valueAndGrad(at)
        const both = measured(of, at)
        return of.combinedBy ? of.valueAndGrad(at) : both
      },
    })
    const { changed } = objective
    const given = changed ? { ...changed.by(watched(changed.from)), changed } : watched(objective)
    const next = stepOn(who, base, given, params, state, context)
    if (!needed) measured(objective, params)
    return { ...next, metrics: { ...next.metrics, neededBatches: needed! } }
  }
  return {
    ...base,
    name: `adaptiveBatch(${base.name})`,
    hyper: { ...base.hyper, eta },
    ...smaller(base, (o) => adaptiveBatch(o, options)),
    update: () => needsObjective('adaptiveBatch'),
    step,
  }
}
