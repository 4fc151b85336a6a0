import { SteepestError } from '../errors.js'
import { namedTensors, withTensors } from '../nn/module.js'
import { arange } from '../ops/assemble.js'
import { assign } from '../ops/control.js'
import { add, cast, equal, sub, where } from '../ops/elementwise.js'
import { update as applyRule } from '../ops/update.js'
import { reshape, scalar, slice, tensor, zeros } from '../ops/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import { type Aval, sameShape, showAval, showShape } from '../tensor/shape.js'
import { Tensor } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import { checkClip, clipped, normalized } from './clip.js'
import { checkGroups, checkLr, groupOf, peakOf, rateAt } from './options.js'
import type { LearningRate, Optimizer, OptimizerState, RuleOptions, UpdateContext, Updated } from './optimizer.js'

/** What the step of one parameter gets. */
export interface Operands {
  readonly name: string
  readonly p: Tensor
  readonly g: Tensor
  /** float64 [k]: learning rate and step count first. */
  readonly args: Tensor
  readonly slots: Readonly<Record<string, Tensor>>
  readonly lrScale: number
  /** What the gradient is to be multiplied by. */
  readonly scale?: Tensor
  readonly key?: Tensor
  readonly check: boolean
  /** Tells the parameters apart where something is random. */
  readonly site: number
}

/** How the parameters of a group are moved. */
export interface Mover {
  /** First states, by slot. */
  init(p: Tensor, name: string): Record<string, Tensor>
  step(operands: Operands): { p: Tensor; slots: Record<string, Tensor> }
  /** What is summed over micro-batches in the place of the gradient, where less than that is needed. */
  small?(p: Tensor, name: string): SmallSum | undefined
}

/** A linear image of a gradient that is all a step needs. */
export interface SmallSum {
  readonly aval: Aval
  /** The image of the first micro-batch's gradient, and the states after that was looked at. */
  begin(operands: Operands): { low: Tensor; slots: Record<string, Tensor> }
  /** That of another's. */
  low(of: Pick<Operands, 'name' | 'p' | 'g' | 'slots'>): Tensor
  /** The step, with the sum of images as its gradient. */
  step(operands: Operands): { p: Tensor; slots: Record<string, Tensor> }
}

/** How the gradients of micro-batches are summed where an optimizer needs less than all of them. */
export interface GradientSums {
  /** What is summed, by parameter; of one that is not here, the gradient. */
  avals(params: unknown): Record<string, Aval>
  /** Images of the first micro-batch's gradients, by parameter, and the states that it changes. */
  begin(
    params: unknown,
    grads: Readonly<Record<string, Tensor>>,
    state: OptimizerState,
    context: UpdateContext,
  ): { sums: Record<string, Tensor>; state: OptimizerState }
  more(params: unknown, grads: Readonly<Record<string, Tensor>>, state: OptimizerState): Record<string, Tensor>
  /** The step, from what was summed of every parameter. */
  update<P>(
    params: P,
    sums: Readonly<Record<string, Tensor>>,
    state: OptimizerState,
    context: UpdateContext,
  ): Updated<P>
}

export interface Parts {
  /** As errors call it: `optim.adam`. */
  readonly who: string
  readonly name: string
  readonly rule: string
  readonly hyper: Readonly<Record<string, number | boolean>>
  readonly options: RuleOptions
  readonly defaultLr: number
  /** Options that may differ between groups. */
  readonly groupKeys: readonly string[]
  /** What all gradients are multiplied by before anything else, from their norm together. */
  readonly normalize?: (norm: Tensor) => Tensor
  /** The mover for a group that differs in these options. */
  readonly mover: (group: Readonly<Record<string, unknown>>) => Mover
  /** Moves all parameters together, where they share states. */
  readonly together?: Together
  /** The same optimizer with its states in eight bits. */
  readonly in8bits?: () => Optimizer
}

/** States by slot and parameter, or by whatever name a shared state has. */
export type Slots = Record<string, Record<string, Tensor>>

/** A parameter, and how its group is moved. */
export interface Entry {
  readonly name: string
  readonly p: Tensor
  readonly lrScale: number
  readonly mover: Mover
  readonly site: number
}

/** How parameters that share states are moved. */
export interface Together {
  /** Whether a parameter is moved at all; others are as if frozen. */
  moves(name: string, p: Tensor): boolean
  init(entries: readonly Entry[]): Slots
  /** Operands come without states of their own. */
  step(
    all: readonly (Operands & Entry)[],
    slots: OptimizerState['slots'],
  ): { params: Record<string, Tensor>; slots: Slots }
}

/** The options that every optimizer has. */
export const COMMON = ['lr', 'groups', 'clip', 'rounding'] as const

/** @internal Gradients by parameter name: those of a tensor that occurs several times in the tree are added up. */
export function gradsByName(
  who: string,
  params: unknown,
  grads: unknown,
  names: ReadonlyMap<Tensor, string>,
): Map<string, Tensor> {
  const given = flatten(grads)
  const byPath = new Map(given.paths.map((path, i) => [path, given.tensors[i]]))
  const out = new Map<string, Tensor>()
  const flat = flatten(params)
  flat.tensors.forEach((t, i) => {
    const name = names.get(t)
    const g = byPath.get(flat.paths[i])
    if (name === undefined || g === undefined) return
    if (!sameShape(g.shape, t.shape)) {
      throw new SteepestError('SHAPE', {
        who: `${who}: ${name}`,
        rule: 'the gradient must have the shape of the parameter',
        got: `${showShape(g.shape)} for ${showShape(t.shape)}`,
      })
    }
    const before = out.get(name)
    out.set(name, before ? add(before, g) : g)
  })
  return out
}

/** The error where stochastic rounding has no random numbers. */
const keyMissing = (who: string): SteepestError =>
  new SteepestError('ARGUMENT', {
    who,
    rule: 'stochastic rounding needs a key',
    fix: 'Pass { key: random.key(seed) } to update',
  })

/** @internal A bfloat16 weight with a new value, rounded up or down with the right mean: a plain step along the difference, by the native rule that can. */
export function roundStochastically(
  who: string,
  { p, args, key, site }: Pick<Operands, 'p' | 'args' | 'key' | 'site'>,
  next: Tensor,
): Tensor {
  if (!key) throw keyMissing(who)
  const whole = where(equal(arange(args.shape[0]), 0), 1, args)
  const grad = sub(cast(p, 'float32'), cast(next, 'float32'))
  return applyRule({ param: p, grad, args: whole, key, slots: [] }, { rule: 'sgd', hyper: [0], site }).param
}

/** @internal Learning rate and step of an update, float64 [k]: those that it is given, or its own. */
export function argsOf(who: string, lr: LearningRate, state: OptimizerState, context: UpdateContext): Tensor {
  if (context.args) return context.args
  const rate = context.lr ?? lr
  if (typeof rate === 'function') {
    throw new SteepestError('ARGUMENT', {
      who: `${who}.update`,
      rule: 'the learning rate follows a schedule, which is computed outside of the graph, so the update must be given it',
      fix: 'Pass { lr: tensor(optimizer.lrAt(step)) } with the step counted from 1, as an argument of the compiled function',
    })
  }
  const value = rate instanceof Tensor ? cast(rate, 'float64') : scalar(rate, 'float64')
  return where(tensor([1, 0], { dtype: 'uint8' }), value, cast(add(state.step, 1), 'float64'))
}

/** @internal One of the numbers of `argsOf`, a float64 scalar: 0 the learning rate, 1 the step. */
export const argument = (args: Tensor, i: number): Tensor => reshape(slice(args, [[i, i + 1]]), [])

const made = new WeakMap<Optimizer, Parts>()
const summed = new WeakMap<Optimizer, GradientSums>()

/** @internal How an optimizer wants micro-batches summed; undefined where it wants their gradients. */
export const sumsOf = (optimizer: Optimizer): GradientSums | undefined => summed.get(optimizer)

/** @internal `optimizer` sums as `like` does. */
export function sumLike(optimizer: Optimizer, like: Optimizer): Optimizer {
  const sums = summed.get(like)
  if (sums) summed.set(optimizer, sums)
  return optimizer
}

/** @internal What an optimizer of one step per parameter was made of; undefined for any other. */
export const partsOf = (optimizer: Optimizer): Parts | undefined => made.get(optimizer)

/** Everything that optimizers of one step per parameter share: names, groups, clipping, the arguments of a step and the state's tree. */
export function makeOptimizer(parts: Parts): Optimizer {
  const { who, name, rule, hyper, options, defaultLr, groupKeys, normalize, mover, together } = parts
  const { groups = [], rounding = 'master' } = options
  const lr = checkLr(who, options.lr ?? defaultLr)
  const clip = options.clip && checkClip(who, options.clip)
  checkGroups(who, groups, groupKeys)
  if (!['master', 'stochastic', 'nearest'].includes(rounding)) {
    throw new SteepestError('OPTION', {
      who,
      rule: '`rounding` must be master, stochastic or nearest',
      got: String(rounding),
    })
  }
  const movers = new Map<string, Mover>()
  const moverOf = (group: Record<string, unknown>): Mover => {
    const key = JSON.stringify(Object.entries(group).sort())
    let known = movers.get(key)
    if (!known) movers.set(key, (known = mover(group)))
    return known
  }
  // A wrong option of a group is told when the optimizer is made.
  for (const { match: _, lrScale: _scale, frozen: _frozen, ...group } of groups) moverOf(group)

  const entriesOf = (params: unknown): Entry[] =>
    Object.entries(namedTensors(params).parameters).flatMap(([path, p], site): Entry[] => {
      const { lrScale, frozen, hyper: group } = groupOf(groups, path, p)
      return frozen || together?.moves(path, p) === false
        ? []
        : [{ name: path, p, lrScale, mover: moverOf(group), site }]
    })

  const init = (params: unknown): OptimizerState => {
    if (together) return { step: zeros([], 'int32'), slots: together.init(entriesOf(params)) }
    const slots: Slots = {}
    for (const { name: path, p, mover: m } of entriesOf(params)) {
      for (const [slot, t] of Object.entries(m.init(p, path))) (slots[slot] ??= {})[path] = t
    }
    return { step: zeros([], 'int32'), slots }
  }

  const update = <P>(params: P, grads: unknown, state: OptimizerState, context: UpdateContext = {}): Updated<P> => {
    const entries = entriesOf(params)
    const named = gradsByName(who, params, grads, new Map(entries.map((e) => [e.p, e.name])))
    for (const { name: path } of entries) {
      if (!named.has(path))
        throw new SteepestError('ARGUMENT', {
          who: `${who}: ${path}`,
          rule: 'there is no gradient for this parameter',
          fix: 'Freeze it with a group, or give the gradient',
        })
    }
    return move(params, entries, Object.fromEntries(named), state, context)
  }

  const move = <P>(
    params: P,
    entries: readonly Entry[],
    all: Record<string, Tensor>,
    state: OptimizerState,
    context: UpdateContext,
  ): Updated<P> => {
    const clips = clipped(
      all,
      context.clipped ? undefined : clip,
      normalize ? normalized(all, context.scale, normalize) : context.scale,
    )
    const args = argsOf(who, lr, state, context)
    const operands = entries.map((entry) => ({
      ...entry,
      g: clips.grads[entry.name],
      args,
      slots: {},
      scale: clips.scale(entry.name),
      key: context.key,
      check: context.check ?? false,
    }))
    const { params: moved, slots } = together ? together.step(operands, state.slots) : oneByOne(operands, state.slots)
    return {
      params: withTensors(params, moved),
      state: { step: assign(state.step, add(state.step, 1)), slots },
      norm: clips.norm,
    }
  }

  const stateBytes = (params: unknown): Record<string, number> => {
    const sum = (by: Readonly<Record<string, Tensor>>) =>
      Object.values(by).reduce((n, t) => n + t.size * bytesOf(t.dtype), 0)
    return Object.fromEntries(Object.entries(init(params).slots).map(([slot, by]) => [slot, sum(by)]))
  }

  const schedule = typeof lr === 'number' ? 'constant' : 'spec' in lr ? lr.spec.kind : 'own'
  const optimizer: Optimizer = {
    name,
    rule,
    hyper,
    lr,
    schedule,
    peakLr: peakOf(lr),
    clip,
    lrAt: (step) => rateAt(who, lr, step - 1),
    moved: (params) => entriesOf(params).map((e) => e.name),
    init,
    update,
    evalParams: (params) => params,
    ...(parts.in8bits ? { in8bits: parts.in8bits } : {}),
    stateBytes,
  }
  made.set(optimizer, parts)
  // What a clip or a norm of its own says of gradients does not hold for images of them.
  if (!together && !clip && !normalize) summed.set(optimizer, smallSums({ who, lr, entriesOf, move }))
  return optimizer
}

/** Sums by what each parameter's mover needs. */
function smallSums(own: {
  who: string
  lr: LearningRate
  entriesOf: (params: unknown) => Entry[]
  move: <P>(
    params: P,
    entries: readonly Entry[],
    all: Record<string, Tensor>,
    state: OptimizerState,
    context: UpdateContext,
  ) => Updated<P>
}): GradientSums {
  const { who, lr, entriesOf, move } = own
  const smallOf = (params: unknown) =>
    entriesOf(params).flatMap((entry): [Entry, SmallSum][] => {
      const small = entry.mover.small?.(entry.p, entry.name)
      return small ? [[entry, small]] : []
    })
  const statesOf = ({ slots }: OptimizerState, name: string): Record<string, Tensor> =>
    Object.fromEntries(Object.entries(slots).flatMap(([slot, by]) => (name in by ? [[slot, by[name]]] : [])))
  return {
    avals: (params) => Object.fromEntries(smallOf(params).map(([{ name }, { aval }]) => [name, aval])),
    begin(params, grads, state, context) {
      const args = argsOf(who, lr, state, context)
      const slots: Slots = Object.fromEntries(Object.entries(state.slots).map(([slot, by]) => [slot, { ...by }]))
      const sums: Record<string, Tensor> = {}
      for (const [entry, small] of smallOf(params)) {
        const own = { g: grads[entry.name], args, slots: statesOf(state, entry.name), key: context.key, check: false }
        const begun = small.begin({ ...entry, ...own })
        sums[entry.name] = begun.low
        for (const [slot, t] of Object.entries(begun.slots)) slots[slot][entry.name] = t
      }
      return { sums, state: { step: state.step, slots } }
    },
    more: (params, grads, state) =>
      Object.fromEntries(
        smallOf(params).map(([{ name, p }, small]) => {
          return [name, small.low({ name, p, g: grads[name], slots: statesOf(state, name) })]
        }),
      ),
    update(params, sums, state, context) {
      const small = new Map(smallOf(params).map(([{ name }, s]) => [name, s]))
      const entries = entriesOf(params).map((entry): Entry => {
        const own = small.get(entry.name)
        return own ? { ...entry, mover: { ...entry.mover, step: (o) => own.step(o) } } : entry
      })
      return move(params, entries, { ...sums }, state, context)
    },
  }
}

/** @internal Moves each parameter by its mover. */
export function oneByOne(
  all: readonly (Operands & Entry)[],
  before: OptimizerState['slots'],
): { params: Record<string, Tensor>; slots: Slots } {
  const params: Record<string, Tensor> = {}
  const slots: Slots = Object.fromEntries(Object.keys(before).map((slot) => [slot, {}]))
  for (const operands of all) {
    const { name, mover } = operands
    const own = Object.fromEntries(
      Object.entries(before).flatMap(([slot, by]) => (name in by ? [[slot, by[name]]] : [])),
    )
    const next = mover.step({ ...operands, slots: own })
    params[name] = next.p
    for (const [slot, t] of Object.entries(next.slots)) slots[slot][name] = t
  }
  return { params, slots }
}

/** The states of a parameter in order, or an error that names the one that is missing or does not fit. */
export function slotsInOrder(
  who: string,
  { name, slots }: Pick<Operands, 'name' | 'slots'>,
  wanted: readonly string[],
): Tensor[] {
  return wanted.map((slot) => {
    const t = slots[slot]
    if (t) return t
    throw new SteepestError('ARGUMENT', {
      who: `${who}: ${name}`,
      rule: `the state has no \`${slot}\` for this parameter`,
      got:
        Object.entries(slots)
          .map(([s, x]) => `${s} ${showAval(x)}`)
          .join(', ') || 'no state',
      fix: 'Make the state with init of the same optimizer',
    })
  })
}
