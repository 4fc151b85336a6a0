import { checkOptions, SteepestError } from '../errors.js'
import { quantizeBlockwise } from '../ops/blockwise.js'
import { assign, guard } from '../ops/control.js'
import { cast, mul } from '../ops/elementwise.js'
import { contiguous, full } from '../ops/shape.js'
import { sameShape, showAval } from '../tensor/shape.js'
import type { HyperInfo } from '../ops/rules.js'
import type { Tensor } from '../tensor/tensor.js'
import {
  argument,
  COMMON,
  makeOptimizer,
  type Mover,
  type Operands,
  roundStochastically,
  slotsInOrder,
} from './base.js'
import {
  eightBitsFrom,
  type FusedOptions,
  isBlockwise,
  opened,
  type StateSign,
  STORAGE,
  unitsOf,
} from './eight-bits.js'
import { checkHyper } from './options.js'
import type { Optimizer, RuleOptions } from './optimizer.js'

/** Hyper-parameters of an own rule with their defaults. */
export type OwnHyper = Readonly<Record<string, number | boolean>>

/**
 * First value of a state: a number for every element, or a tensor of any shape made from the (float32 or float64) parameter; null: this
 * parameter has none.
 */
export type Initial = number | ((p: Tensor) => Tensor | null)

/** Numbers of this step that are the same for all elements, as float64 scalars. */
export interface OwnStep<H> {
  lr: Tensor
  /** The step, counted from 1. */
  t: Tensor
  hyper: H
}

/** What the formula of an own rule gets; all tensors are float32, or float64 for a float64 parameter. */
export interface OwnOperands<S extends string, C, H> {
  p: Tensor
  g: Tensor
  slots: Record<S, Tensor>
  /** Scalars. */
  lr: Tensor
  t: Tensor
  /** What `prepare` gave. */
  c: C
  hyper: H
  /** The parameter's name. */
  name: string
}

/** An optimizer of one's own. */
export interface OwnRule<H extends OwnHyper, S extends string, C extends Record<string, Tensor>> {
  name: string
  /** Default learning rate; 1e-3 where there is none. */
  lr?: number
  /** Hyper-parameters with their defaults: they become options, and may differ between groups. */
  hyper?: H
  /** Ranges of hyper-parameters that are numbers, as intervals are written: `[0, 1)`, `(0, inf)`; any finite number where there is none. */
  ranges?: Partial<Record<keyof H, string>>
  /** States of each parameter. */
  slots?: Record<S, Initial>
  /**
   * States of the parameter's shape that may be kept in eight bits, and whether their numbers have either sign or are never negative. Where
   * some are named, the optimizer takes `states` and `min8bitSize`, as the built-in ones do.
   */
  moments?: Partial<Record<S, StateSign>>
  /** Coefficients: computed once a step in float64 (bias corrections lose digits in float32). */
  prepare?: (step: OwnStep<H>) => C
  /** New parameter and states, by name (those that the parameter has). */
  step: (operands: OwnOperands<S, C, H>) => Record<'p', Tensor> & Partial<Record<S, Tensor>>
  /** What all gradients are multiplied by before anything else, from their norm together. */
  normalize?: (norm: Tensor, hyper: H) => Tensor
}

function rangeOf(who: string, interval: string): NonNullable<HyperInfo['range']> {
  const parts = /^([[(])\s*(\S+)\s*,\s*(\S+)\s*([\])])$/.exec(interval)
  const bound = (x: string) => Number(x.replace('inf', 'Infinity'))
  if (!parts || Number.isNaN(bound(parts[2])) || Number.isNaN(bound(parts[3])))
    throw new SteepestError('OPTION', { who, rule: 'a range must be an interval like [0, 1)', got: interval })
  return { min: bound(parts[2]), max: bound(parts[3]), openMin: parts[1] === '(', openMax: parts[4] === ')' }
}

/** The float32 weight that a bfloat16 weight is rounded from. */
const MASTER = 'master'

function checkRule(
  who: string,
  { hyper, slots, moments = {}, step }: OwnRule<OwnHyper, string, Record<string, Tensor>>,
): void {
  const unit = Object.keys(slots ?? {}).find((k) => Object.keys(moments).some((m) => unitsOf(m) === k))
  const taken = [
    ...(unit ? [unit] : []),
    ...Object.keys(hyper ?? {}).filter((k) => ([...COMMON, ...STORAGE] as readonly string[]).includes(k)),
    ...Object.keys(slots ?? {}).filter((k) => ['p', MASTER].includes(k)),
  ]
  if (taken.length > 0)
    throw new SteepestError('OPTION', {
      who,
      rule: 'this name has a meaning already',
      got: taken.join(', '),
      fix: 'Call it something else',
    })
  if (typeof step !== 'function')
    throw new SteepestError('OPTION', { who, rule: '`step` must be a function', got: typeof step })
}

/**
 * Makes an optimizer of a formula in tensors. What it gives is called like a built-in one, with the same options (`lr`, `groups`, `clip`) and
 * the rule's own; its elementwise part runs as one pass over memory, in place within a compiled step. Shapes of any kind of op may occur.
 *
 * @example
 * const signum = defineOptimizer({
 *   name: 'signum',
 *   hyper: { beta: 0.9 },
 *   slots: { m: 0 },
 *   step: ({ p, g, slots: { m }, lr, hyper: { beta } }) => {
 *     const next = add(mul(m, beta), mul(g, 1 - beta))
 *     return { p: sub(p, mul(sign(next), lr)), m: next }
 *   },
 * })
 * const optimizer = signum({ lr: 1e-3, groups: [optim.noDecay] })
 *
 * @throws SteepestError where the formula leaves out a state or gives another shape
 */
export function defineOptimizer<
  H extends OwnHyper = Record<never, never>,
  S extends string = never,
  C extends Record<string, Tensor> = Record<never, never>,
>(rule: OwnRule<H, S, C>): (options?: FusedOptions & Partial<Record<keyof H, number | boolean>>) => Optimizer {
  const who = `optim.${rule.name}`
  const slots = Object.entries(rule.slots ?? {}) as [S, Initial][]
  const defaults = rule.hyper ?? ({} as H)
  checkRule(who, rule as unknown as OwnRule<OwnHyper, string, Record<string, Tensor>>)
  const moments = (rule.moments ?? {}) as Readonly<Record<string, StateSign | undefined>>
  const storage = Object.keys(moments).length > 0 ? STORAGE : []
  const keys = Object.keys(defaults)
  const ranges = Object.fromEntries(keys.map((key) => [key, rangeOf(who, rule.ranges?.[key] ?? '(-inf, inf)')]))

  const withDefaults = (given: Readonly<Record<string, unknown>>): H => {
    const all: Record<string, number | boolean> = { ...defaults }
    for (const key of keys) {
      const value = given[key]
      if (value === undefined) continue
      if (typeof value !== typeof defaults[key] || Number.isNaN(value)) {
        throw new SteepestError('OPTION', {
          who,
          rule: `\`${key}\` must be a ${typeof defaults[key]}`,
          got: String(value),
        })
      }
      all[key] = checkHyper(who, { name: key, value: defaults[key], range: ranges[key], doc: '' }, value)
    }
    return all as unknown as H
  }

  const make = (options: FusedOptions & Partial<Record<keyof H, number | boolean>> = {}): Optimizer => {
    checkOptions(who, options, [...COMMON, ...storage, ...keys])
    const {
      lr: _lr,
      groups: _groups,
      clip: _clip,
      rounding = 'master',
      ...given
    } = options as RuleOptions & Record<string, unknown>
    const keepsMaster = (p: Tensor) => p.dtype === 'bfloat16' && rounding === 'master'
    const wide = (p: Tensor) => cast(p, p.dtype === 'float64' ? 'float64' : 'float32')

    const mover = (group: Readonly<Record<string, unknown>>): Mover => {
      const merged = { ...given, ...group }
      const hyper = withDefaults(merged)
      const from = eightBitsFrom(who, merged)
      /** How a state of a parameter is kept where it is in eight bits. */
      const signOf = (p: Tensor, name: string) => (isBlockwise(p, from) ? moments[name] : undefined)
      return {
        init(p) {
          const p32 = wide(p)
          const out: Record<string, Tensor> = keepsMaster(p) ? { [MASTER]: p32 } : {}
          for (const [name, initial] of slots) {
            const sign = signOf(p, name)
            const first = typeof initial === 'number' ? full(p.shape, initial, p32.dtype) : initial(p32)
            if (first && sign) {
              const { codes, units } = quantizeBlockwise(first, { signed: sign === 'either' })
              out[name] = codes
              out[unitsOf(name)] = units
            } else if (first) {
              // A state has memory of its own: a step writes over it, and over the float32 weight.
              out[name] = first === p || first === p32 ? contiguous(first) : first
            }
          }
          return out
        },
        step(operands) {
          const names = slots
            .filter(
              ([name, initial]) => typeof initial === 'number' || name in operands.slots || initial(wide(operands.p)),
            )
            .map(([name]) => name)
          const [master] = slotsInOrder(who, operands, keepsMaster(operands.p) ? [MASTER] : [])
          const signs = names.map((name) => signOf(operands.p, name))
          const held = slotsInOrder(who, operands, names)
          const units = names.map((name, i) => (signs[i] ? slotsInOrder(who, operands, [unitsOf(name)])[0] : undefined))
          const old = held.map((t, i) => (units[i] ? opened({ codes: t, units: units[i] }, signs[i]!) : t))
          const p = master ?? wide(operands.p)
          const next = formula(
            operands,
            p,
            Object.fromEntries(names.map((name, i) => [name, old[i]])) as Record<S, Tensor>,
            hyper,
          )
          const checked = (before: Tensor, after: Tensor | undefined, name: string): Tensor => {
            if (after && sameShape(before.shape, after.shape)) return after
            throw new SteepestError('SHAPE', {
              who: `${who}: ${operands.name}`,
              rule: `step must give \`${name}\` in the shape it had, ${showAval(before)}`,
              got: after ? showAval(after) : 'nothing',
            })
          }
          const put = (before: Tensor, after: Tensor | undefined, name: string): Tensor =>
            assign(before, cast(checked(before, after, name), before.dtype))
          const kept = (name: S, i: number): Record<string, Tensor> => {
            if (!units[i]) return { [name]: put(held[i], next[name], name) }
            const wide = cast(checked(held[i], next[name], name), 'float32')
            const blocks = quantizeBlockwise(wide, { signed: signs[i] === 'either' })
            return { [name]: assign(held[i], blocks.codes), [unitsOf(name)]: assign(units[i], blocks.units) }
          }
          const stochastic = rounding === 'stochastic' && operands.p.dtype === 'bfloat16'
          return {
            p: stochastic
              ? roundStochastically(who, operands, checked(operands.p, next.p, 'p'))
              : put(operands.p, next.p, 'p'),
            slots: {
              ...(master ? { [MASTER]: put(master, next.p, 'p') } : {}),
              ...Object.assign({}, ...names.map(kept)),
            },
          }
        },
      }
    }

    const formula = (
      { g: given, args, scale, check, lrScale, name }: Operands,
      p: Tensor,
      states: Record<S, Tensor>,
      hyper: H,
    ): Record<'p', Tensor> & Partial<Record<S, Tensor>> => {
      const [lr, t] = [mul(argument(args, 0), lrScale), argument(args, 1)]
      const g = check ? guard(cast(given, p.dtype)) : cast(given, p.dtype)
      const wideC: Record<string, Tensor> = rule.prepare?.({ lr, t, hyper }) ?? {}
      const c = Object.fromEntries(Object.entries(wideC).map(([k, x]) => [k, cast(x, p.dtype)])) as C
      return rule.step({
        p,
        g: scale ? mul(g, cast(scale, p.dtype)) : g,
        slots: states,
        lr: cast(lr, p.dtype),
        t: cast(t, p.dtype),
        c,
        hyper,
        name,
      })
    }

    const hyper = withDefaults(given)
    const normalize = rule.normalize && ((norm: Tensor) => rule.normalize!(norm, hyper))
    return makeOptimizer({
      who,
      name: rule.name,
      rule: rule.name,
      hyper,
      options,
      defaultLr: rule.lr ?? 1e-3,
      groupKeys: [...storage, ...keys],
      normalize,
      mover,
      in8bits: storage.length > 0 && options.states !== '8bit' ? () => make({ ...options, states: '8bit' }) : undefined,
    })
  }
  return make
}
