import { checkOptions, SteepestError } from '../errors.js'
import { namedTensors, withTensors } from '../nn/module.js'
import { stack } from '../ops/assemble.js'
import { assign } from '../ops/control.js'
import { add, cast, div, equal, log, maximum, mul, remainder, sqrt, square, sub, where } from '../ops/elementwise.js'
import { random } from '../ops/random.js'
import { argmax, sum } from '../ops/reduce.js'
import { full, reshape, slice, zerosLike } from '../ops/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { hvp } from '../transform/grad.js'
import { cond, scan } from '../transform/loop.js'
import { argsOf, argument, gradsByName } from './base.js'
import { type Objective, withGradient } from './objective.js'
import type { Optimizer, OptimizerState, StepContext, Stepped, Updated } from './optimizer.js'
import { needsObjective } from './sam.js'
import { smaller } from './through.js'
import { clipOf, movedOf, seedKey, stateTwice, wideOf } from './wrap.js'

/** Hyper-parameters of `blockwise`. */
export interface BlockwiseOptions {
  /**
   * Which block moves: `random`; `cyclic`; `lipschitz` (random, by the curvature); `gs` (largest gradient); `gsl` (largest square of the gradient
   * over the curvature). Default `gsl`.
   */
  rule?: 'random' | 'cyclic' | 'lipschitz' | 'gs' | 'gsl'
  /** The block of a parameter, by its name; parameters of one block move together. Default each parameter is a block. */
  block?: (name: string) => string
  /** Divide the gradient of the block by its curvature: with `sgd({ lr: 1 })` inside, the step that the bound allows. Default true. */
  scaled?: boolean
  /** Steps between two measurements of the curvature, a whole number of 1 or more. Default 10. */
  every?: number
  /** Rounds of the power iteration of a measurement, a whole number of 1 or more; too few find less than there is. Default 4. */
  rounds?: number
  /** Seed of random choices where the loop gives no key. Default 0. */
  seed?: number
}

type Named = Record<string, Tensor>
const RULES = ['random', 'cyclic', 'lipschitz', 'gs', 'gsl']
/** Optimizers whose state is of all parameters together: no block of it can stay as it is. */
const TOGETHER = ['lbfgs', 'blockCoordinate']
const least = (x: Tensor): Tensor => maximum(x, 1e-30)

/**
 * Block coordinate descent over the layers of a model: each step moves one block of parameters by `base` and leaves the others, and their states,
 * as they are. The curvature of a block, the largest eigenvalue of its part of the Hessian, is measured by a few rounds of
 * power iteration, each of them one product with the Hessian for each block. A heuristic where losses are not convex. Source: Nutini, Laradji, Schmidt, arXiv 1712.08859.
 * State beside that of `base`: for every parameter `direction` (float32, or float64), for every block a number, where the rule uses curvature.
 */
export function blockwise(base: Optimizer, options: BlockwiseOptions = {}): Optimizer {
  const who = 'optim.blockwise'
  checkOptions(who, options, ['rule', 'block', 'scaled', 'every', 'rounds', 'seed'])
  const { rule = 'gsl', block = (name: string) => name, scaled = true, every = 10, rounds = 4, seed = 0 } = options
  if (!RULES.includes(rule))
    throw new SteepestError('OPTION', { who, rule: `\`rule\` must be ${RULES.join(', ')}`, got: String(rule) })
  for (const [name, value] of Object.entries({ every, rounds }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw new SteepestError('OPTION', {
        who,
        rule: `\`${name}\` must be a whole number of 1 or more`,
        got: String(value),
      })
  if (TOGETHER.includes(base.rule))
    throw new SteepestError('OPTION', {
      who,
      rule: 'what is inside must have a state for each parameter, not one for all together',
      got: base.name,
    })
  const measures = scaled || rule === 'gsl' || rule === 'lipschitz'
  const blocksOf = (names: readonly string[]): string[][] => {
    const by = new Map<string, string[]>()
    for (const name of names) by.set(block(name), [...(by.get(block(name)) ?? []), name])
    return [...by.values()]
  }
  const squares = (named: Named): Tensor =>
    Object.values(named)
      .map((g) => sum(square(cast(g, 'float64'))))
      .reduce(add)
  const some = (named: Named, names: readonly string[]): Named => Object.fromEntries(names.map((k) => [k, named[k]]))

  const own = (params: unknown): Record<string, Named> => {
    if (!measures) return {}
    const moved = movedOf(base, params)
    // No direction is left out: powers of the Hessian find the largest from any that has a part of it.
    const direction = Object.fromEntries(
      moved.map(({ name, p, site }): [string, Tensor] => {
        const wide = wideOf(p)
        return [name, random.normal(seedKey(seed), p.shape, { dtype: wide, site })]
      }),
    )
    const curvature = Object.fromEntries(
      blocksOf(moved.map((m) => m.name)).map(([first]): [string, Tensor] => [first, full([], 0, 'float64')]),
    )
    return { direction, curvature }
  }
  const init = (params: unknown): OptimizerState => {
    const { step, slots } = base.init(params)
    const mine = own(params)
    const twice = Object.keys(mine).find((slot) => slot in slots)
    if (twice) throw stateTwice(who, twice)
    return { step, slots: { ...slots, ...mine } }
  }

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const { scaleOf, clipNorm: _, ...rest } = context
    const args = argsOf(who, base.lr, state, context)
    const t = argument(args, 1)
    const moved = movedOf(base, params)
    const byName = (tree: unknown): Named =>
      Object.fromEntries(gradsByName(who, params, tree, new Map(moved.map((m) => [m.p, m.name]))))
    const first = objective.valueAndGrad(params)
    const { loss } = first
    const given = byName(first.grads)
    const clip = scaleOf?.(given)
    const start: Named = Object.fromEntries(moved.map(({ name, p }) => [name, p]))
    const blocks = blocksOf(moved.map((m) => m.name))
    const { direction: held, curvature: known, ...slots } = state.slots as Record<string, Named>

    /** One round of the power iteration for every block. */
    const measured = (old: { direction: Named; curvature: Named }): { direction: Named; curvature: Named } => {
      const next = { direction: { ...old.direction }, curvature: { ...old.curvature } }
      for (const names of blocks) {
        const size = sqrt(least(squares(some(old.direction, names))))
        const unit = (k: string): Tensor => div(old.direction[k], cast(size, old.direction[k].dtype))
        const along: Named = Object.fromEntries(
          moved.map(({ name, p }) => [name, names.includes(name) ? cast(unit(name), p.dtype) : zerosLike(p)]),
        )
        const turned = objective.total((part) => {
          const all = hvp((named: Named) => part.loss(withTensors(params, named)), start, along)
          return Object.fromEntries(names.map((k) => [k, cast(all[k], old.direction[k].dtype)]))
        })
        const length = sqrt(squares(turned))
        next.curvature[names[0]] = length
        // Where there is no curvature the direction stays what it was.
        for (const k of names)
          next.direction[k] = where(equal(length, 0), unit(k), div(turned[k], cast(least(length), turned[k].dtype)))
      }
      return next
    }
    const repeated = (old: { direction: Named; curvature: Named }) =>
      scan((at: typeof old, _: null) => ({ carry: measured(at), y: null }), old, null, { length: rounds }).carry
    const due = equal(remainder(sub(t, 1), every), 0)
    const now = measures
      ? cond(due, repeated, (same: { direction: Named; curvature: Named }) => same, {
          direction: held,
          curvature: known,
        })
      : { direction: {}, curvature: {} as Named }

    const bend = stack(blocks.map(([first]) => now.curvature[first] ?? full([], 1, 'float64')))
    const lengths = stack(blocks.map((names) => squares(some(given, names))))
    const key = random.foldIn(context.key ?? objective.key ?? seedKey(seed), cast(t, 'int32'))
    const pick = (): Tensor => {
      if (rule === 'random') return reshape(random.integers(key, [1], 0, blocks.length), [])
      if (rule === 'cyclic') return cast(remainder(sub(t, 1), blocks.length), 'int32')
      if (rule === 'lipschitz') return random.categorical(key, log(least(bend)))
      return argmax(rule === 'gs' ? lengths : div(lengths, least(bend)))
    }
    const chosen = pick()
    const scale = (i: number, g: Tensor): Tensor => {
      const one = reshape(slice(bend, [[i, i + 1]]), [])
      const by = where(equal(one, 0), 1, div(1, where(equal(one, 0), 1, one)))
      return mul(g, cast(by, g.dtype))
    }
    const place = new Map(blocks.flatMap((names, i) => names.map((k): [string, number] => [k, i])))
    const wide = (named: Named): Named =>
      Object.fromEntries(
        moved.map(({ name, p }): [string, Tensor] => {
          const g = cast(named[name], wideOf(p))
          return [name, scaled ? scale(place.get(name)!, g) : g]
        }),
      )
    /** An objective in which all blocks but the chosen one are flat. */
    const ofBlock = withGradient(objective, (inner) => {
      let fresh = inner === objective
      return (at) => {
        const { loss: height, grads } = fresh ? first : inner.valueAndGrad(at)
        const factor = fresh ? clip : clipOf(grads, context)
        fresh = false
        const own = Object.entries(wide(namedTensors(grads).parameters)).map(([k, g]): [string, Tensor] => {
          const whole = factor ? mul(g, cast(factor, g.dtype)) : g
          return [k, where(equal(chosen, place.get(k)!), whole, zerosLike(whole))]
        })
        return { loss: height, grads: withTensors(grads, Object.fromEntries(own)) }
      }
    })
    const before = { step: state.step, slots }
    const next: Updated<P> = base.step
      ? base.step(ofBlock, params, before, { ...rest, args })
      : base.update(params, wide(given), before, { ...rest, args, scale: clip })
    const kept = (name: string, after: Tensor, before: Tensor): Tensor =>
      assign(before, where(equal(chosen, place.get(name)!), after, before))
    const after = namedTensors(next.params).parameters
    const moves = Object.fromEntries(moved.map(({ name, p }) => [name, kept(name, after[name], p)]))
    const states = Object.fromEntries(
      Object.entries(next.state.slots).map(([slot, by]) => [
        slot,
        Object.fromEntries(
          Object.entries(by).map(([k, x]) => [
            k,
            place.has(k) ? kept(k, x, (slots as Record<string, Named>)[slot][k]) : x,
          ]),
        ),
      ]),
    )
    const mine: Record<string, Named> = measures
      ? {
          direction: Object.fromEntries(Object.entries(held).map(([k, x]) => [k, assign(x, now.direction[k])])),
          curvature: Object.fromEntries(Object.entries(known).map(([k, x]) => [k, assign(x, now.curvature[k])])),
        }
      : {}
    return {
      params: withTensors(params, moves),
      state: { step: next.state.step, slots: { ...states, ...mine } },
      norm: next.norm,
      loss,
    }
  }
  return {
    ...base,
    name: `blockwise(${base.name})`,
    hyper: { ...base.hyper, every },
    init,
    ...smaller(base, (o) => blockwise(o, options)),
    update: () => needsObjective('blockwise'),
    step,
    stateBytes: (params) =>
      Object.fromEntries(
        Object.entries(init(params).slots).map(([slot, by]) => [
          slot,
          Object.values(by).reduce((total, x) => total + x.size * bytesOf(x.dtype), 0),
        ]),
      ),
  }
}
