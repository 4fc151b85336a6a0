import { checkOptions, SteepestError } from '../errors.js'
import { withTensors } from '../nn/module.js'
import { concat } from '../ops/assemble.js'
import { assign } from '../ops/control.js'
import {
  abs,
  add,
  cast,
  div,
  equal,
  greater,
  greaterEqual,
  less,
  lessEqual,
  logicalAnd,
  logicalNot,
  logicalOr,
  minimum,
  mul,
  neg,
  reciprocal,
  remainder,
  sub,
  where,
} from '../ops/elementwise.js'
import { dynamicSlice, dynamicUpdateSlice } from '../ops/indexing.js'
import { max, sum } from '../ops/reduce.js'
import { reshape, scalar, slice, zeros } from '../ops/shape.js'
import { bytesOf, type DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { cond, whileLoop } from '../transform/loop.js'
import { argsOf, argument, COMMON, gradsByName, roundStochastically } from './base.js'
import { defineOptimizer } from './define.js'
import { type LinePoint, strongWolfe } from './line-search.js'
import type { Objective } from './objective.js'
import { checkPositive } from './options.js'
import type { Optimizer, OptimizerState, RuleOptions, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { type Moved, movedOf } from './wrap.js'

/** Hyper-parameters of `lbfgs`. */
export interface LbfgsOptions extends Omit<RuleOptions, 'clip'> {
  /** Iterations of a step at most, a whole number of 1 or more. Default 20. */
  maxIter?: number
  /** Evaluations of the loss of a step at most, a whole number of 1 or more. Default 1.25 maxIter. */
  maxEval?: number
  /** A step ends where no number of the gradient is larger, in [0, ∞). Default 1e-7. */
  toleranceGrad?: number
  /** A step ends where neither loss nor weights change by more, in [0, ∞). Default 1e-9. */
  toleranceChange?: number
  /** Pairs of steps and changes of the gradient that are kept, a whole number of 1 or more. Default 100. */
  historySize?: number
  /** `strongWolfe`, or `none`: steps of length lr. Default `strongWolfe`. */
  lineSearch?: 'strongWolfe' | 'none'
}

/** Everything is one vector; states stand under this name. */
const ALL = 'all'
/** Places in the vector of numbers. */
const [T, SCALE, STORED, ITERATIONS] = [0, 1, 2, 3]

interface Moving {
  x: Tensor
  f: Tensor
  g: Tensor
  t: Tensor
  evaluations: Tensor
  /** 1 as long as iterations follow. */
  going: Tensor
}

interface Loop extends Moving {
  d: Tensor
  before: Tensor
  changes: Tensor
  steps: Tensor
  ro: Tensor
  scale: Tensor
  stored: Tensor
  iterations: Tensor
  round: Tensor
}

const f64 = (x: number): Tensor => scalar(x, 'float64')
const dot = (a: Tensor, b: Tensor): Tensor => sum(mul(cast(a, 'float64'), cast(b, 'float64')))
const largest = (x: Tensor): Tensor => cast(max(abs(x)), 'float64')
const by = (x: Tensor, s: Tensor): Tensor => mul(x, cast(s, x.dtype))
const either = (...tests: Tensor[]): Tensor => tests.reduce(logicalOr)

function checkWhole(who: string, name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new SteepestError('OPTION', {
      who,
      rule: `\`${name}\` must be a whole number of 1 or more`,
      got: String(value),
    })
}

/** Minus the gradient times the inverse of the Hessian that the kept pairs tell of. */
function direction({ g, changes, steps, ro, scale, stored }: Loop, history: number): Tensor {
  const kept = minimum(stored, history)
  /** The i-th pair, the newest being 0. */
  const place = (i: Tensor) => cast(remainder(sub(sub(stored, 1), i), history), 'int32')
  const row = (x: Tensor, at: Tensor) => reshape(dynamicSlice(x, at, { axis: 0, size: 1 }), x.shape.slice(1))
  interface Half {
    i: Tensor
    q: Tensor
    share: Tensor
  }
  const down = whileLoop(
    ({ i }: Half) => less(i, kept),
    ({ i, q, share }: Half): Half => {
      const at = place(i)
      const a = mul(dot(row(steps, at), q), row(ro, at))
      return {
        i: add(i, 1),
        q: sub(q, by(row(changes, at), a)),
        share: dynamicUpdateSlice(share, reshape(a, [1]), at, { axis: 0 }),
      }
    },
    { i: f64(0), q: neg(g), share: zeros([history], 'float64') },
  )
  const up = whileLoop(
    ({ i }: { i: Tensor; r: Tensor }) => greater(i, 0),
    ({ i, r }) => {
      const at = place(sub(i, 1))
      const b = mul(dot(row(changes, at), r), row(ro, at))
      return { i: sub(i, 1), r: add(r, by(row(steps, at), sub(row(down.share, at), b))) }
    },
    { i: kept, r: by(down.q, scale) },
  )
  return up.r
}

/**
 * L-BFGS: each step is some iterations of the limited-memory quasi-Newton method with a line search for the strong Wolfe conditions, all within
 * the program; for losses without noise, on the same data at every evaluation. Source: Liu, Nocedal 1989, as `torch.optim.LBFGS` runs it.
 * Learning rate 1 where none is given. Takes no clipping and no `lrScale`: the gradient must be that of the loss.
 * State, over all parameters together: 2 · historySize + 2 numbers for each, and a float32 copy of bfloat16 weights.
 * @throws SteepestError for an unknown option or one out of its range
 */
export function lbfgs(options: LbfgsOptions = {}): Optimizer {
  const who = 'optim.lbfgs'
  const known = ['maxIter', 'maxEval', 'toleranceGrad', 'toleranceChange', 'historySize', 'lineSearch']
  checkOptions(who, options, [...COMMON.filter((k) => k !== 'clip'), ...known])
  const { maxIter = 20, toleranceGrad = 1e-7, toleranceChange = 1e-9, lineSearch = 'strongWolfe', ...rest } = options
  const { historySize: history = 100, maxEval = Math.floor(maxIter * 1.25), lr, groups = [], rounding } = rest
  for (const [name, value] of Object.entries({ maxIter, maxEval, historySize: history })) checkWhole(who, name, value)
  for (const [name, value] of Object.entries({ toleranceGrad, toleranceChange }))
    if (value !== 0) checkPositive(who, name, value)
  if (lineSearch !== 'strongWolfe' && lineSearch !== 'none')
    throw new SteepestError('OPTION', {
      who,
      rule: '`lineSearch` must be strongWolfe or none',
      got: String(lineSearch),
    })
  if (groups.some((g) => g.lrScale !== undefined && g.lrScale !== 1))
    throw new SteepestError('OPTION', { who, rule: 'all parameters have one learning rate', got: 'lrScale' })
  const base = defineOptimizer({ name: 'lbfgs', lr: 1, step: ({ p }) => ({ p }) })({ lr, groups, rounding })

  const dtypeOf = (moved: readonly Moved[]): DType =>
    moved.some(({ p }) => p.dtype === 'float64') ? 'float64' : 'float32'
  const keepsMaster = (moved: readonly Moved[]): boolean =>
    (rounding ?? 'master') === 'master' && moved.some(({ p }) => p.dtype === 'bfloat16')
  const joined = (moved: readonly Moved[], of: (m: Moved) => Tensor): Tensor =>
    concat(moved.map((m) => reshape(cast(of(m), dtypeOf(moved)), [m.p.size])))
  const apart = (moved: readonly Moved[], x: Tensor): Record<string, Tensor> => {
    let at = 0
    return Object.fromEntries(
      moved.map(({ name, p }): [string, Tensor] => {
        const own = reshape(slice(x, [[at, at + p.size]]), p.shape)
        at += p.size
        return [name, own]
      }),
    )
  }

  const init = (params: unknown): OptimizerState => {
    const moved = movedOf(base, params)
    const dtype = dtypeOf(moved)
    const n = moved.reduce((sum, { p }) => sum + p.size, 0)
    const slots: Record<string, Tensor> = {
      direction: zeros([n], dtype),
      before: zeros([n], dtype),
      changes: zeros([history, n], dtype),
      steps: zeros([history, n], dtype),
      ro: zeros([history], 'float64'),
      numbers: zeros([4], 'float64'),
    }
    if (keepsMaster(moved)) slots.master = joined(moved, ({ p }) => p)
    return {
      step: zeros([], 'int32'),
      slots: Object.fromEntries(Object.entries(slots).map(([slot, t]) => [slot, { [ALL]: t }])),
    }
  }

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const moved = movedOf(base, params)
    const held = (slot: string): Tensor => state.slots[slot][ALL]
    const args = argsOf(who, base.lr, state, context)
    const rate = argument(args, 0)
    const x0 = state.slots.master ? held('master') : joined(moved, ({ p }) => p)
    const evaluated = (x: Tensor): { f: Tensor; g: Tensor } => {
      const at = apart(moved, x)
      const here = withTensors(params, Object.fromEntries(moved.map(({ name, p }) => [name, cast(at[name], p.dtype)])))
      const { loss, grads } = objective.valueAndGrad(here)
      const named = gradsByName(who, here, grads, new Map(movedOf(base, here).map(({ p, name }) => [p, name])))
      return { f: cast(loss, 'float64'), g: joined(moved, ({ name }) => named.get(name)!) }
    }
    const start = evaluated(x0)
    // The loop's clip is not for this optimizer; the norm is told all the same.
    context.scaleOf?.(apart(moved, start.g))

    const iterate = (loop: Loop): Loop => {
      const { f, g, before, evaluations: done } = loop
      const first = equal(loop.iterations, 0)
      const [y, s] = [sub(g, before), by(loop.d, loop.t)]
      const ys = dot(y, s)
      const good = logicalAnd(logicalNot(first), greater(ys, 1e-10))
      const place = cast(remainder(loop.stored, history), 'int32')
      const put = (rows: Tensor, fresh: Tensor): Tensor => {
        const own = reshape(fresh, [1, ...fresh.shape])
        const old = dynamicSlice(rows, place, { axis: 0, size: 1 })
        return dynamicUpdateSlice(rows, where(good, own, old), place, { axis: 0 })
      }
      const memory = {
        changes: put(loop.changes, y),
        steps: put(loop.steps, s),
        ro: put(loop.ro, reciprocal(where(good, ys, 1))),
        stored: where(good, add(loop.stored, 1), loop.stored),
        scale: where(first, 1, where(good, div(ys, where(good, dot(y, y), 1)), loop.scale)),
      }
      const d = direction({ ...loop, ...memory }, history)
      const t = where(first, mul(minimum(reciprocal(sum(abs(cast(g, 'float64')))), 1), rate), rate)
      const slope = dot(g, d)
      const round = add(loop.round, 1)
      // The pairs, which are long, stay outside of the branches.
      const now: Moving = { x: loop.x, f, g, t, evaluations: done, going: f64(0) }
      const on = (from: Moving): Moving => {
        const along = (u: Tensor): LinePoint => {
          const here = evaluated(add(from.x, by(d, u)))
          return { t: u, ...here, slope: dot(here.g, d) }
        }
        const searched = (): { t: Tensor; f: Tensor; g: Tensor; more: Tensor } => {
          const { point, evaluations } = strongWolfe(along, { t: f64(0), f, g, slope }, from.t, {
            most: sub(maxEval, done),
            tolerance: toleranceChange,
            reach: largest(d),
          })
          return { t: point.t, f: point.f, g: point.g, more: evaluations }
        }
        const fixed = (): { t: Tensor; f: Tensor; g: Tensor; more: Tensor } => {
          const look = (u: Tensor) => {
            const { f: there, g: slopes } = along(u)
            return { f: there, g: slopes, more: f64(1) }
          }
          // Where the last step led to is not looked at.
          const stay = (u: Tensor) => ({ f: add(f, mul(u, 0)), g: add(g, 0), more: f64(0) })
          return { t: from.t, ...cond(less(round, maxIter), look, stay, from.t) }
        }
        const there = lineSearch === 'none' ? fixed() : searched()
        const evaluations = add(done, there.more)
        const moves = by(d, there.t)
        const stop = either(
          greaterEqual(round, maxIter),
          greaterEqual(evaluations, maxEval),
          lessEqual(largest(there.g), toleranceGrad),
          lessEqual(largest(moves), toleranceChange),
          less(abs(sub(there.f, f)), toleranceChange),
        )
        return {
          x: add(from.x, moves),
          f: there.f,
          g: there.g,
          t: there.t,
          evaluations,
          going: where(stop, f64(0), f64(1)),
        }
      }
      const there = cond(greater(slope, -toleranceChange), (same: Moving) => same, on, now)
      return { ...loop, ...memory, ...there, d, before: g, round, iterations: add(loop.iterations, 1) }
    }
    const number = (i: number): Tensor => reshape(slice(held('numbers'), [[i, i + 1]]), [])
    const end = whileLoop(({ going }: Loop) => greater(going, 0), iterate, {
      x: x0,
      ...start,
      d: held('direction'),
      before: held('before'),
      changes: held('changes'),
      steps: held('steps'),
      ro: held('ro'),
      t: number(T),
      scale: number(SCALE),
      stored: number(STORED),
      iterations: number(ITERATIONS),
      round: f64(0),
      evaluations: f64(1),
      going: where(lessEqual(largest(start.g), toleranceGrad), f64(0), f64(1)),
    })
    const numbers = concat([end.t, end.scale, end.stored, end.iterations].map((x) => reshape(x, [1])))
    const slots: Record<string, Tensor> = {
      direction: end.d,
      before: end.before,
      changes: end.changes,
      steps: end.steps,
      ro: end.ro,
      numbers,
      ...(state.slots.master ? { master: end.x } : {}),
    }
    const next = apart(moved, end.x)
    const put = Object.fromEntries(
      moved.map(({ name, p, site }): [string, Tensor] => {
        if (p.dtype !== 'bfloat16' || rounding !== 'stochastic') return [name, assign(p, cast(next[name], p.dtype))]
        return [name, roundStochastically(who, { p, args, key: context.key ?? objective.key, site }, next[name])]
      }),
    )
    return {
      params: withTensors(params, put),
      state: {
        step: assign(state.step, add(state.step, 1)),
        slots: Object.fromEntries(Object.entries(slots).map(([k, t]) => [k, { [ALL]: assign(held(k), t) }])),
      },
      loss: start.f,
    }
  }
  return {
    ...base,
    hyper: { maxIter, maxEval, toleranceGrad, toleranceChange, historySize: history },
    init,
    update: () => needsObjective('lbfgs'),
    step,
    stateBytes: (params) =>
      Object.fromEntries(
        Object.entries(init(params).slots).map(([slot, { [ALL]: t }]) => [slot, t.size * bytesOf(t.dtype)]),
      ),
  }
}
