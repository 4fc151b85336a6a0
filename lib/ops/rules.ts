import { RULES } from './rules.gen.js'

/** A state that a rule keeps for every element of a parameter. */
export interface SlotInfo {
  readonly name: string
  readonly initial: number
  /** True where it is never negative: its 8-bit form then uses the unsigned map. */
  readonly positive: boolean
  readonly doc: string
}

/** A hyper-parameter: a number with its range, or, where the value is a boolean, a flag. */
export interface HyperInfo {
  readonly name: string
  readonly value: number | boolean
  readonly range?: { readonly min: number; readonly max: number; readonly openMin: boolean; readonly openMax: boolean }
  readonly doc: string
}

/** What a rule header (native/rules) says about itself. */
export interface RuleInfo {
  readonly name: string
  readonly title: string
  /** Default learning rate. */
  readonly lr: number
  readonly paper: string
  readonly doc: string
  /** True where an element's step needs nothing but that element. */
  readonly perElement: boolean
  /** A part of other methods, no optimizer by itself. */
  readonly part?: boolean
  /** Set where the rule serves another's name, when that one's option `when` is on, or equals a value. */
  readonly variant?: { readonly of: string; readonly when: string; readonly equals?: string }
  readonly slots: readonly SlotInfo[]
  readonly hypers: readonly HyperInfo[]
}

const byName = new Map(RULES.map((rule) => [rule.name, rule]))

/** The rule of that name, as the native list has it. */
export function ruleNamed(name: string): RuleInfo {
  const rule = byName.get(name)
  if (!rule) throw new Error(`no update rule named ${name}`)
  return rule
}
