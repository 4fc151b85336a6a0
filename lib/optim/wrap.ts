import { SteepestError } from '../errors.js'
import { namedTensors, withTensors } from '../nn/module.js'
import { arange, concat } from '../ops/assemble.js'
import { assign, guard } from '../ops/control.js'
import { cast, equal, mul, where } from '../ops/elementwise.js'
import { reshape, scalar, slice } from '../ops/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import { argsOf, argument, gradsByName } from './base.js'
import { clipped, clipScale, globalNorm } from './clip.js'
import { type Objective, withGradient } from './objective.js'
import type { Optimizer, OptimizerState, StepContext, Stepped, UpdateContext, Updated } from './optimizer.js'
import { smaller } from './through.js'

type Named<T> = Readonly<Record<string, T>>
type Slots = Named<Named<Tensor>>

/** A parameter that the wrapped optimizer moves. */
export interface Moved {
  readonly name: string
  readonly p: Tensor
  /** Tells parameters apart where something is random. */
  readonly site: number
}

/** What is known of a step, beside the parameters. */
export interface StepNumbers {
  /** float64 scalars. */
  readonly lr: Tensor
  /** Counted from 1. */
  readonly t: Tensor
  /** int32 [2] */
  readonly key?: Tensor
}

/** The parameters that an optimizer moves, by name. */
export function movedOf(optimizer: Optimizer, params: unknown): Moved[] {
  const moves = new Set(optimizer.moved(params))
  return Object.entries(namedTensors(params).parameters).flatMap(([name, p], site) =>
    moves.has(name) ? [{ name, p, site }] : [],
  )
}

/** The key of a seed, as a part of the graph. */
export const seedKey = (seed: number): Tensor =>
  where(equal(arange(2), 0), scalar(seed | 0, 'int32'), scalar(Math.floor(seed / 2 ** 32) | 0, 'int32'))

/** The dtype that a parameter is computed in. */
export const wideOf = (p: Tensor): 'float32' | 'float64' => (p.dtype === 'float64' ? 'float64' : 'float32')

/** Gradients by name, in the dtype that is computed in, multiplied and clipped as the optimizer would. */
export function clippedGrads(
  who: string,
  base: Optimizer,
  params: unknown,
  grads: unknown,
  context: Pick<UpdateContext, 'scale' | 'clipped'>,
): { grads: Record<string, Tensor>; norm?: Tensor } {
  const moved = movedOf(base, params)
  const byName = gradsByName(who, params, grads, new Map(moved.map(({ p, name }) => [p, name])))
  const given = Object.fromEntries(
    moved.map(({ name, p }) => {
      const g = byName.get(name)
      if (!g)
        throw new SteepestError('ARGUMENT', { who: `${who}: ${name}`, rule: 'there is no gradient for this parameter' })
      return [name, cast(g, wideOf(p))]
    }),
  )
  const clips = clipped(given, context.clipped ? undefined : base.clip, context.scale)
  const scaled = Object.entries(clips.grads).map(([name, g]): [string, Tensor] => {
    const scale = clips.scale(name)
    return [name, scale ? mul(g, cast(scale, g.dtype)) : g]
  })
  return { grads: Object.fromEntries(scaled), norm: clips.norm }
}

/** The clip of a training loop, of gradients that it is not told of. */
export function clipOf(grads: unknown, { clipNorm }: StepContext): Tensor | undefined {
  if (clipNorm === undefined) return undefined
  return clipScale(guard(globalNorm(flatten(grads).tensors)), clipNorm)
}

/** The state without some slots, which the wrapped optimizer does not know. */
function without(state: OptimizerState, own: readonly string[]): OptimizerState {
  return {
    step: state.step,
    slots: Object.fromEntries(Object.entries(state.slots).filter(([slot]) => !own.includes(slot))),
  }
}

/** States of a wrapper: those of what it wraps, and its own. */
export interface OwnSlots {
  readonly names: readonly string[]
  init(params: unknown): Slots
}

/** The error of a wrapper around one of its own kind. */
export const stateTwice = (who: string, slot: string): SteepestError =>
  new SteepestError('ARGUMENT', {
    who,
    rule: 'what it wraps has a state of this name already',
    got: slot,
    fix: 'Use one of these wrappers only',
  })

function withSlots(who: string, base: Optimizer, own: OwnSlots): Pick<Optimizer, 'init' | 'stateBytes'> {
  const init = (params: unknown): OptimizerState => {
    const { step, slots } = base.init(params)
    const twice = own.names.find((slot) => slot in slots)
    if (twice) throw stateTwice(who, twice)
    return { step, slots: { ...slots, ...own.init(params) } }
  }
  return {
    init,
    stateBytes: (params) =>
      Object.fromEntries(
        Object.entries(init(params).slots).map(([slot, by]) => [
          slot,
          Object.values(by).reduce((n, t) => n + t.size * bytesOf(t.dtype), 0),
        ]),
      ),
  }
}

const NONE: OwnSlots = { names: [], init: () => ({}) }

interface Wrapper {
  readonly who: string
  readonly name: string
  readonly hyper: Named<number | boolean>
  readonly own?: OwnSlots
}

/**
 * An optimizer that gives `base` other gradients: `change` gets them clipped, by name, and gives them back with its states.
 * Around an optimizer that evaluates the objective, every gradient that this one takes is changed.
 */
export function wrapGradients(
  base: Optimizer,
  wrapper: Wrapper & {
    change(
      grads: Record<string, Tensor>,
      moved: readonly Moved[],
      step: StepNumbers,
      slots: Slots,
    ): { grads: Record<string, Tensor>; slots?: Slots }
  },
): Optimizer {
  const { who, name, hyper, own = NONE, change } = wrapper
  const changed = (params: unknown, grads: unknown, state: OptimizerState, context: UpdateContext) => {
    const clip = clippedGrads(who, base, params, grads, context)
    const args = argsOf(who, base.lr, state, context)
    const numbers = { lr: argument(args, 0), t: argument(args, 1), key: context.key }
    const slots = Object.fromEntries(own.names.map((slot) => [slot, state.slots[slot] ?? {}]))
    return { ...change(clip.grads, movedOf(base, params), numbers, slots), norm: clip.norm, args }
  }
  const join = (state: OptimizerState, slots: Slots = {}): OptimizerState => ({
    step: state.step,
    slots: { ...state.slots, ...slots },
  })
  const update = <P>(params: P, grads: unknown, state: OptimizerState, context: UpdateContext = {}): Updated<P> => {
    const other = changed(params, grads, state, context)
    const next = base.update(params, other.grads, without(state, own.names), {
      ...context,
      args: other.args,
      scale: undefined,
      clipped: true,
    })
    return { ...next, state: join(next.state, other.slots), norm: other.norm ?? next.norm }
  }
  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const { scaleOf, ...rest } = context
    let norm: Tensor | undefined
    let fresh = true
    const other = withGradient(objective, (inner) => (at) => {
      const { loss, grads } = inner.valueAndGrad(at)
      // Whoever trains is told of the first gradient; those that follow may be taken within a loop of the program.
      const first = fresh && !inner.silent
      if (first) fresh = false
      const own = changed(at, grads, state, { ...rest, scale: first ? scaleOf?.(grads) : clipOf(grads, context) })
      if (first) norm = own.norm
      return { loss, grads: withTensors(grads, own.grads) }
    })
    const next = base.step!(other, params, without(state, own.names), { ...rest, clipped: true })
    return { ...next, state: join(next.state), norm: norm ?? next.norm }
  }
  return {
    ...base,
    name: `${name}(${base.name})`,
    hyper: { ...base.hyper, ...hyper },
    clip: undefined,
    ...withSlots(who, base, own),
    ...smaller(base, (o) => wrapGradients(o, wrapper)),
    update,
    ...(base.step ? { step } : {}),
  }
}

/** A parameter before and after the step of the wrapped optimizer, with the wrapper's states of it. */
export interface After extends StepNumbers {
  readonly name: string
  readonly before: Tensor
  /** As the optimizer holds it: float32 where it keeps that of a bfloat16 weight. */
  readonly after: Tensor
  /** What the wrapped optimizer would evaluate and save: the same, but for schedule-free ones and averages. */
  readonly used: Tensor
  readonly slots: Named<Tensor>
}

/** The float32 weight that an own rule keeps beside a bfloat16 one, and the low bits that a native rule keeps. */
const [MASTER, LOW] = ['master', 'low']
/** The name of a state that is of all parameters together. */
const JOINT = 'all'

/**
 * An optimizer that does something with the weights when `base` has moved them: `after` gives the states of one parameter, and where
 * it puts the weight when `when` (a scalar) holds.
 */
export function wrapWeights(
  base: Optimizer,
  wrapper: Omit<Wrapper, 'own'> & {
    /** Names of its states. */
    names: readonly string[]
    /** First states of one parameter. */
    slots(p: Tensor): Named<Tensor>
    after(parameter: After): { slots: Named<Tensor>; move?: { when: Tensor; to: Tensor } }
    evalParams?: Optimizer['evalParams']
  },
): Optimizer {
  const { who, name, hyper, names, after, evalParams } = wrapper
  const own: OwnSlots = {
    names,
    init(params) {
      const slots: Record<string, Record<string, Tensor>> = Object.fromEntries(names.map((slot) => [slot, {}]))
      for (const { name: path, p } of movedOf(base, params))
        for (const [slot, t] of Object.entries(wrapper.slots(p))) slots[slot][path] = t
      return slots
    },
  }
  const finish = <P, U extends Updated<P>>(
    next: U,
    params: P,
    state: OptimizerState,
    context: StepContext | UpdateContext,
  ): U => {
    const args = argsOf(who, base.lr, state, context)
    const numbers = { lr: argument(args, 0), t: argument(args, 1), key: context.key }
    const now = namedTensors(next.params).parameters
    const used = namedTensors(base.evalParams(next.params, next.state)).parameters
    const slots: Record<string, Record<string, Tensor>> = {}
    for (const [slot, by] of Object.entries(next.state.slots)) slots[slot] = { ...by }
    const put: Record<string, Tensor> = {}
    const all = movedOf(base, params)
    // One for all parameters, one after the other, where they have a state together.
    const joint = all.some(({ name: path }) => path === JOINT) ? undefined : slots[MASTER]?.[JOINT]
    const pieces: Tensor[] = []
    let from = 0
    for (const { name: path, p: before } of all) {
      const own = joint && reshape(slice(joint, [[from, (from += before.size)]]), before.shape)
      const master = own ?? slots[MASTER]?.[path]
      const p = now[path]
      const mine = Object.fromEntries(names.map((slot) => [slot, state.slots[slot][path]]))
      const held = used[path] === p ? (master ?? p) : used[path]
      const { slots: changed, move } = after({
        ...numbers,
        name: path,
        before,
        after: master ?? p,
        used: held,
        slots: mine,
      })
      for (const [slot, t] of Object.entries(changed)) (slots[slot] ??= {})[path] = assign(mine[slot], t)
      if (!move) continue
      const { when, to } = move
      put[path] = assign(p, where(when, cast(to, p.dtype), p))
      if (own) pieces.push(reshape(where(when, cast(to, own.dtype), own), [own.size]))
      else if (master) slots[MASTER][path] = assign(master, where(when, cast(to, 'float32'), master))
      const low = slots[LOW]?.[path]
      if (low) slots[LOW][path] = assign(low, where(when, 0, low))
    }
    if (joint && pieces.length > 0) slots[MASTER][JOINT] = assign(joint, concat(pieces))
    return { ...next, params: withTensors(next.params, put), state: { step: next.state.step, slots } }
  }
  return {
    ...base,
    name: `${name}(${base.name})`,
    hyper: { ...base.hyper, ...hyper },
    ...withSlots(who, base, own),
    ...smaller(base, (o) => wrapWeights(o, wrapper)),
    ...(evalParams ? { evalParams } : {}),
    update: (params, grads, state, context = {}) =>
      finish(base.update(params, grads, without(state, names), context), params, state, context),
    ...(base.step
      ? {
          step: (objective, params, state, context = {}) =>
            finish(base.step!(objective, params, without(state, names), context), params, state, context),
        }
      : {}),
  }
}
