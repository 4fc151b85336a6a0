import { namedTensors, withTensors } from '../nn/module.js'
import { add, cast, div, maximum, mul, square, sub, where, equal } from '../ops/elementwise.js'
import { sum } from '../ops/reduce.js'
import { alias, full } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { jvp } from '../transform/grad.js'
import { gradsByName } from './base.js'
import { type BatchTestOptions, checkBatchTest } from './batch-tests.js'
import type { Objective } from './objective.js'
import type { Optimizer, OptimizerState, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { stepOn } from './through.js'

type Named = Record<string, Tensor>
const squares = (named: Named): Tensor =>
  Object.values(named)
    .map((g) => sum(square(cast(g, 'float64'))))
    .reduce(add)
/** a / b, 0 where a is, without end where only b is. */
const over = (a: Tensor, b: Tensor): Tensor => where(equal(a, 0), 0, div(a, b))

/**
 * Adaptive batch sizes (AdAdaGrad): measures, in each step, how the gradients of the micro-batches lie around their mean, and says in the step's
 * metrics how many micro-batches the next step needs to pass a test (`neededBatches`). `data.growing` gives the steps that many. Around any
 * optimizer; `adagradNorm` and `adagrad` are the paper's. With micro-batches of one example the variance is that of the examples; with larger
 * ones it is estimated from their means. Steps need two or more micro-batches. No state of its own.
 * Source: Lau, Liu, Kolar, "AdAdaGrad: adaptive batch size schemes for adaptive gradient methods", arXiv 2402.11215.
 */
export function adaptiveBatch(base: Optimizer, options: BatchTestOptions = {}): Optimizer {
  const who = 'optim.adaptiveBatch'
  const { test, eta, theta, nu } = checkBatchTest(who, options)
  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    let needed: Tensor | undefined
    let count = 1
    const measured: Objective<P> = {
      ...objective,
      valueAndGrad(at) {
        if (needed) return objective.valueAndGrad(at)
        const moved = new Set(base.moved(at))
        const names = new Map(
          Object.entries(namedTensors(at).parameters).flatMap(([k, p]): [Tensor, string][] =>
            moved.has(k) ? [[p, k]] : [],
          ),
        )
        const own = (grads: unknown): Named => Object.fromEntries(gradsByName(who, at, grads, names))
        const all = objective.total((part) => {
          count = Math.round(1 / part.share)
          const { loss, grads } = part.valueAndGrad(at)
          // Gradients of parts are multiplied by their share already.
          return { loss, grads, length: mul(squares(own(grads)), 1 / part.share) }
        })
        if (count < 2) {
          needed = full([], 2, 'float64')
          return all
        }
        const mean = own(all.grads)
        const size = squares(mean)
        const variance = maximum(mul(sub(all.length, size), count / (count - 1)), 0)
        if (test === 'norm') needed = over(variance, mul(size, eta * eta))
        else {
          const along = Object.fromEntries([...names].map(([p, k]): [string, Tensor] => [k, cast(mean[k], p.dtype)]))
          const start = Object.fromEntries([...names].map(([p, k]): [string, Tensor] => [k, alias(p)]))
          const second = objective.total((part) => {
            const [, slope] = jvp((named: Named) => part.loss(withTensors(at, named)), [start], [along])
            return mul(square(cast(slope, 'float64')), 1 / part.share)
          })
          const inner = maximum(mul(sub(second, square(size)), count / (count - 1)), 0)
          const first = over(inner, mul(square(size), theta * theta))
          const across = maximum(sub(variance, over(inner, size)), 0)
          needed = test === 'innerProduct' ? first : maximum(first, over(across, mul(size, nu * nu)))
        }
        return { loss: all.loss, grads: all.grads }
      },
    }
    const next = stepOn(who, base, measured, params, state, context)
    return { ...next, metrics: { ...next.metrics, neededBatches: needed ?? full([], 2, 'float64') } }
  }
  return {
    ...base,
    name: `adaptiveBatch(${base.name})`,
    hyper: { ...base.hyper, eta },
    update: () => needsObjective('adaptiveBatch'),
    step,
  }
}
