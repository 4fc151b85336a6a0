import { checkOptions, SteepestError } from '../errors.js'
import { withTensors } from '../nn/module.js'
import { stack } from '../ops/assemble.js'
import { add, cast, div, maximum, mul, sub } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { sum } from '../ops/reduce.js'
import { reshape, scalar, slice, zerosLike } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { vjp } from '../transform/grad.js'
import { globalNorm } from './clip.js'
import { checkCombiner, combine, type Combiner } from './combine.js'
import { type Objective, type ObjectivePart, ofParts } from './objective.js'
import type { Optimizer, ParameterGroup } from './optimizer.js'
import { needsObjective } from './sam.js'
import { smaller, stepOn } from './through.js'
import { movedOf, seedKey, wideOf } from './wrap.js'

type Named = Record<string, Tensor>

/** Hyper-parameters of `multiTask`. */
export interface MultiTaskOptions {
  /** How the gradients of the tasks become one. Default `combine.sum()`. */
  combine?: Combiner
  /**
   * Radius of the neighbourhood in which the worst loss of each task is minimized, in [0, ∞). 0, the default, takes gradients where the
   * weights are. The paper takes 0.001 to 0.5.
   */
  rho?: number
  /** Combine the gradients, and apart from them what the worst place nearby adds to them; else combine those of the worst place. Default true. */
  split?: boolean
  /** Parameters that all tasks share; the others (heads) take the sum of the gradients of the tasks. Default all. */
  shared?: ParameterGroup['match']
}

const each = (named: Named, f: (t: Tensor, name: string) => Tensor): Named =>
  Object.fromEntries(Object.entries(named).map(([k, t]) => [k, f(t, k)]))
const only = (named: Named, keep: (name: string) => boolean): Named =>
  Object.fromEntries(Object.entries(named).filter(([k]) => keep(k)))
const product = (a: Named, b: Named): Tensor =>
  Object.keys(a)
    .map((k) => sum(mul(cast(a[k], 'float64'), cast(b[k], 'float64'))))
    .reduce(add)

/** Σ weight · gradient of the tasks. */
function weighted(tasks: readonly Named[], weights: Tensor): Named {
  return each(tasks[0], (_, k) =>
    tasks
      .map((g, i) => mul(g[k], cast(reshape(slice(weights, [[i, i + 1]]), []), g[k].dtype)))
      .reduce((a, b) => add(a, b)),
  )
}

/**
 * Trains several tasks at once: takes the gradient of every task's loss (`losses` of the model, a record of scalars) and combines them; with
 * `rho`, seeks weights that are in a flat region of every task: the gradients, and what they gain at each task's own worst place nearby, are
 * combined apart from each other. One gradient for each task, and with `rho` two. No state of its own.
 * Source: Phan et al., "Improving multi-task learning via seeking task-based flat regions", arXiv 2211.13723.
 */
export function multiTask(base: Optimizer, options: MultiTaskOptions = {}): Optimizer {
  const who = 'optim.multiTask'
  checkOptions(who, options, ['combine', 'rho', 'split', 'shared'])
  const { rho = 0, split = true, shared } = options
  const combiner = checkCombiner(who, options.combine ?? combine.sum())
  if (!(typeof rho === 'number' && rho >= 0))
    throw new SteepestError('OPTION', { who, rule: '`rho` must be 0 or more', got: String(rho) })

  const isShared = (name: string, p: Tensor): boolean => {
    if (shared === undefined) return true
    if (shared instanceof RegExp) return shared.test(name)
    return typeof shared === 'function' ? shared(name, p) : shared.includes(name)
  }
  const lossesOf = (part: ObjectivePart<unknown>, params: unknown): { loss: Tensor; losses: Named } => {
    const { loss, losses } = part.outputs(params)
    if (!losses || Object.keys(losses).length === 0)
      throw new SteepestError('ARGUMENT', {
        who,
        rule: 'gradients are those of the tasks, so the model must give their losses',
        got: 'no losses',
        fix: 'Return { loss, losses: { first, second } } with a scalar for each task',
      })
    return { loss, losses: { ...losses } }
  }

  const combined = <P>(objective: Objective<P>): Objective<P> => ({
    ...objective,
    combinedBy: 'multiTask',
    valueAndGrad(params) {
      const moved = movedOf(base, params)
      const start: Named = Object.fromEntries(moved.map(({ name, p }) => [name, p]))
      const wide = (g: Named): Named => each(g, (t, k) => cast(t, wideOf(start[k])))
      const at = (named: Named) => withTensors(params, named)
      const own = new Set(moved.filter(({ name, p }) => isShared(name, p)).map(({ name }) => name))
      const body = (g: Named) => only(g, (k) => own.has(k))
      const heads = (g: Named) => only(g, (k) => !own.has(k))
      let names: string[] = []
      const { loss, tasks } = objective.total((part) => {
        const [out, back] = vjp((named: Named) => lossesOf(part as ObjectivePart<unknown>, at(named)), start)
        names = Object.keys(out.losses)
        const seed = (task: string) => ({
          loss: zerosLike(out.loss),
          losses: each(out.losses, (t, k) => scalar(k === task ? 1 : 0, t.dtype)),
        })
        return { loss: out.loss, tasks: names.map((task) => wide(back(seed(task))[0])) }
      })
      const gram = (list: readonly Named[]): Tensor =>
        stack(list.map((a) => stack(list.map((b) => product(body(a), body(b))))))
      const key = () => objective.key ?? seedKey(0)
      const joined = (list: readonly Named[]): Named =>
        own.size === 0
          ? {}
          : weighted(
              list.map(body),
              combiner.weights(gram(list), () => random.foldIn(key(), 0x6d74)),
            )
      const total = (list: readonly Named[]): Named =>
        each(heads(list[0]), (_, k) => list.map((g) => g[k]).reduce((a, b) => add(a, b)))
      if (rho === 0) return { loss, grads: withTensors(params, { ...joined(tasks), ...total(tasks) }) }

      const worst = tasks.map((g, i) => {
        const away = (part: Named): Named => {
          if (Object.keys(part).length === 0) return {}
          const norm = globalNorm(Object.values(part))
          const scale = div(rho, maximum(norm, norm.dtype === 'float64' ? 1e-300 : 1e-37))
          return each(part, (t, k) => add(start[k], cast(mul(t, cast(scale, t.dtype)), start[k].dtype)))
        }
        const place = { ...away(body(g)), ...away(heads(g)) }
        return objective.total((part) => {
          const [out, back] = vjp((named: Named) => lossesOf(part as ObjectivePart<unknown>, at(named)), place)
          const seed = {
            loss: zerosLike(out.loss),
            losses: each(out.losses, (t, k) => scalar(k === names[i] ? 1 : 0, t.dtype)),
          }
          return wide(back(seed)[0])
        })
      })
      const gains = worst.map((g, i) => each(g, (t, k) => sub(t, tasks[i][k])))
      const flat = split
        ? ((a: Named, b: Named) => each(a, (t, k) => add(t, b[k])))(joined(tasks), joined(gains))
        : joined(worst)
      return { loss, grads: withTensors(params, { ...flat, ...total(worst) }) }
    },
  })
  return {
    ...base,
    name: `multiTask(${base.name})`,
    hyper: { ...base.hyper, rho, split },
    ...smaller(base, (o) => multiTask(o, options)),
    update: () => needsObjective('multiTask'),
    step: (objective, params, state, context = {}) =>
      stepOn(who, base, ofParts(who, objective, combined), params, state, context),
  }
}
