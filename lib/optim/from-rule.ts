import { checkOptions, SteepestError } from '../errors.js'
import { RULES } from '../ops/rules.gen.js'
import { type RuleInfo, ruleNamed } from '../ops/rules.js'
import { update } from '../ops/update.js'
import { cast, div, maximum, reciprocal } from '../ops/elementwise.js'
import { full, zeros } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { COMMON, makeOptimizer, type Mover, slotsInOrder } from './base.js'
import { blocksOf, eightBitsFrom, type FusedOptions, isBlockwise, STORAGE, unitsOf } from './eight-bits.js'
import { checkHyper } from './options.js'
import type { Optimizer, RuleOptions } from './optimizer.js'

/** The 16 low bits of the float32 weight that a bfloat16 weight stands for. */
const LOW = 'low'

type Given = Readonly<Record<string, unknown>>

/** A rule and the rules that take its place under some option. */
interface Family {
  readonly base: RuleInfo
  readonly variants: readonly RuleInfo[]
  /** Every option that is not common to all optimizers. */
  readonly keys: readonly string[]
}

function familyOf(name: string): Family {
  const base = ruleNamed(name)
  const variants = RULES.filter((r) => r.variant?.of === name)
  const all = [base, ...variants]
  const keys = new Set(all.flatMap((r) => [...r.hypers.map((h) => h.name), ...(r.variant ? [r.variant.when] : [])]))
  if (keys.has('beta1') && keys.has('beta2')) keys.add('betas')
  return { base, variants, keys: [...keys] }
}

/** Takes the pair `betas` apart. */
function spread(who: string, given: Given): Given {
  const { betas, ...rest } = given
  if (betas === undefined) return rest
  if (!Array.isArray(betas) || betas.length !== 2) {
    throw new SteepestError('OPTION', { who, rule: '`betas` must be two numbers', got: String(betas) })
  }
  if (rest.beta1 !== undefined || rest.beta2 !== undefined) {
    throw new SteepestError('OPTION', { who, rule: 'say `betas`, or `beta1` and `beta2`, not both' })
  }
  return { ...rest, beta1: betas[0] as unknown, beta2: betas[1] as unknown }
}

/** The rule that the options ask for. */
function choose(who: string, { base, variants }: Family, given: Given): RuleInfo {
  for (const { variant } of variants) {
    const value = variant && given[variant.when]
    if (
      !variant ||
      value === undefined ||
      [base, ...variants].some((r) => r.hypers.some((h) => h.name === variant.when))
    )
      continue
    const choices = variants.flatMap((r) =>
      r.variant?.when === variant.when && r.variant.equals !== undefined ? [r.variant.equals] : [],
    )
    const fits = choices.length > 0 ? choices.includes(value as string) : typeof value === 'boolean'
    if (!fits)
      throw new SteepestError('OPTION', {
        who,
        rule: `\`${variant.when}\` must be ${choices.join(', ') || 'true or false'}`,
        got: String(value),
      })
  }
  const on = (r: RuleInfo) => {
    const value = given[r.variant!.when]
    return r.variant!.equals === undefined ? Boolean(value) : value === r.variant!.equals
  }
  return variants.find(on) ?? base
}

/** Hyper-parameters of the chosen rule; one that only another rule of the family has must be at its default. */
function hyperOf(who: string, family: Family, rule: RuleInfo, given: Given): Record<string, number | boolean> {
  for (const other of [family.base, ...family.variants]) {
    for (const info of other.hypers) {
      const value = given[info.name]
      if (value === undefined) continue
      checkHyper(who, info, value)
      if (rule.hypers.some((h) => h.name === info.name) || value === info.value) continue
      const needed = other.variant ? `\`${other.variant.when}\`` : 'other options'
      throw new SteepestError('OPTION', {
        who,
        rule: `\`${info.name}\` has no meaning without ${needed}`,
        got: String(value),
      })
    }
  }
  return Object.fromEntries(
    rule.hypers.map((h) => [h.name, (given[h.name] as number | boolean | undefined) ?? h.value]),
  )
}

/** @internal Moves parameters by a native rule: one pass over memory each. States of `from8bit` elements or more are kept in eight bits. */
export function moverOf(
  who: string,
  rule: RuleInfo,
  hyper: Readonly<Record<string, number | boolean>>,
  rounding: RuleOptions['rounding'],
  from8bit = Infinity,
): Mover {
  const words = Object.values(hyper).map(Number)
  const blockwise = (p: Tensor) => isBlockwise(p, from8bit)
  const namesFor = (p: Tensor) => rule.slots.flatMap(({ name }) => (blockwise(p) ? [name, unitsOf(name)] : [name]))
  const keepsLow = (p: Tensor) => p.dtype === 'bfloat16' && (rounding ?? 'master') === 'master'
  return {
    init(p) {
      const dtype = p.dtype === 'float64' ? 'float64' : 'float32'
      const slots: Record<string, Tensor> = keepsLow(p) ? { [LOW]: zeros([2, ...p.shape], 'uint8') } : {}
      for (const { name, initial, positive } of rule.slots) {
        const own = hyper[`initial${name[0].toUpperCase()}${name.slice(1)}`]
        const value = typeof own === 'number' ? own : initial
        if (blockwise(p)) {
          const { codes, units } = blocksOf(p.shape, value, positive ? 'positive' : 'either')
          slots[name] = codes
          slots[unitsOf(name)] = units
        } else slots[name] = full(p.shape, value, dtype)
      }
      return slots
    },
    step(operands) {
      const { p, g, args, scale, check, site, lrScale } = operands
      const stochastic = p.dtype === 'bfloat16' && rounding === 'stochastic'
      if (stochastic && !operands.key) {
        throw new SteepestError('ARGUMENT', {
          who,
          rule: 'stochastic rounding needs a key',
          fix: 'Pass { key: random.key(seed) } to update',
        })
      }
      const names = namesFor(p)
      const [low] = slotsInOrder(who, operands, keepsLow(p) ? [LOW] : [])
      const next = update(
        {
          param: p,
          grad: p.dtype === 'bfloat16' && g.dtype === 'float32' ? g : cast(g, p.dtype),
          args,
          scale,
          key: stochastic ? operands.key : undefined,
          low,
          slots: slotsInOrder(who, operands, names),
        },
        { rule: rule.name, hyper: words, lrScale, check, states: blockwise(p) ? 'blockwise' : 'full', site },
      )
      return {
        p: next.param,
        slots: {
          ...(next.low ? { [LOW]: next.low } : {}),
          ...Object.fromEntries(names.map((name, i) => [name, next.slots[i]])),
        },
      }
    },
  }
}

/** @internal The optimizer of a rule, from the options that people write. */
export function fromRule(name: string, options: FusedOptions): Optimizer {
  const who = `optim.${name}`
  const family = familyOf(name)
  checkOptions(who, options, [...COMMON, ...STORAGE, ...family.keys])
  const { lr: _lr, groups: _groups, clip: _clip, rounding, ...rest } = options as FusedOptions & Given
  const given = spread(who, rest)
  const rule = choose(who, family, given)
  const hyper = hyperOf(who, family, rule, given)
  eightBitsFrom(who, given)
  const longest = Number(hyper.maxGradNorm ?? 0)
  const canBeSmall = given.states !== '8bit' && rule.slots.length > 0
  return makeOptimizer({
    who,
    name,
    rule: rule.name,
    hyper,
    options,
    defaultLr: family.base.lr,
    groupKeys: [...STORAGE, ...family.keys],
    normalize: longest > 0 ? (norm) => reciprocal(maximum(div(norm, longest), 1)) : undefined,
    mover(group) {
      const merged = { ...given, ...spread(who, group) }
      const own = choose(who, family, merged)
      return moverOf(who, own, hyperOf(who, family, own, merged), rounding, eightBitsFrom(who, merged))
    },
    in8bits: canBeSmall ? () => fromRule(name, { ...options, states: '8bit' }) : undefined,
  })
}
