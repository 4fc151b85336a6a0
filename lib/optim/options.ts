import { checkOptions, SteepestError } from '../errors.js'
import type { HyperInfo } from '../ops/rules.js'
import type { Tensor } from '../tensor/tensor.js'
import type { LearningRate, ParameterGroup } from './optimizer.js'

/** A number within its range, or an error that says it. */
export function checkHyper(who: string, info: HyperInfo, value: unknown): number | boolean {
  if (typeof info.value === 'boolean') {
    if (typeof value === 'boolean') return value
    throw new SteepestError('OPTION', { who, rule: `\`${info.name}\` must be true or false`, got: String(value) })
  }
  const { min, max, openMin, openMax } = info.range ?? { min: -Infinity, max: Infinity, openMin: true, openMax: true }
  const inside =
    typeof value === 'number' && (openMin ? value > min : value >= min) && (openMax ? value < max : value <= max)
  if (inside) return value
  const show = (x: number) => String(x).replace('Infinity', '∞')
  const range = `${openMin ? '(' : '['}${show(min)}, ${show(max)}${openMax ? ')' : ']'}`
  throw new SteepestError('OPTION', { who, rule: `\`${info.name}\` must be in ${range}`, got: String(value) })
}

/** A positive number. */
export function checkPositive(who: string, name: string, value: unknown): number {
  if (typeof value === 'number' && value > 0) return value
  throw new SteepestError('OPTION', { who, rule: `\`${name}\` must be above 0`, got: String(value) })
}

const isRate = (x: unknown): x is number => typeof x === 'number' && x >= 0 && x < Infinity

/** The learning rate of the option, checked. */
export function checkLr(who: string, lr: LearningRate): LearningRate {
  if (typeof lr === 'function' || isRate(lr)) return lr
  throw new SteepestError('OPTION', { who, rule: '`lr` must be a number of 0 or more, or a schedule', got: String(lr) })
}

/** The rate of the 0-based step. */
export function rateAt(who: string, lr: LearningRate, step: number): number {
  if (typeof lr === 'number') return lr
  const rate = lr(step)
  if (isRate(rate)) return rate
  throw new SteepestError('OPTION', {
    who,
    rule: 'a schedule must give a number of 0 or more',
    got: `${String(rate)} at step ${step}`,
  })
}

/** The highest rate of a schedule; of a bare function the one that it begins with. */
export function peakOf(lr: LearningRate): number {
  if (typeof lr === 'number') return lr
  const top = 'spec' in lr ? lr.spec.lr : undefined
  return typeof top === 'number' ? top : lr(0)
}

const matches = ({ match }: ParameterGroup, name: string, p: Tensor): boolean => {
  if (match instanceof RegExp) return new RegExp(match.source, match.flags.replace(/[gy]/g, '')).test(name)
  return typeof match === 'function' ? match(name, p) : match.includes(name)
}

/** Throws unless groups are well formed; `known` are the options that may differ in one. */
export function checkGroups(who: string, groups: readonly ParameterGroup[], known: readonly string[]): void {
  groups.forEach((group, i) => {
    const at = `${who}: groups[${i}]`
    checkOptions(at, group, ['match', 'lrScale', 'frozen', ...known])
    const { match, lrScale = 1, frozen = false } = group
    if (!(match instanceof RegExp) && typeof match !== 'function' && !Array.isArray(match)) {
      throw new SteepestError('OPTION', {
        who: at,
        rule: '`match` must be a pattern, a list of names or a function',
        got: typeof match,
      })
    }
    if (!isRate(lrScale))
      throw new SteepestError('OPTION', { who: at, rule: '`lrScale` must be in [0, ∞)', got: String(lrScale) })
    if (typeof frozen !== 'boolean')
      throw new SteepestError('OPTION', { who: at, rule: '`frozen` must be true or false', got: String(frozen) })
  })
}

/** What holds for one parameter: the options of all groups that match it, later ones first. */
export function groupOf(
  groups: readonly ParameterGroup[],
  name: string,
  p: Tensor,
): { lrScale: number; frozen: boolean; hyper: Record<string, unknown> } {
  const merged: Record<string, unknown> = Object.assign({}, ...groups.filter((g) => matches(g, name, p)))
  const { match: _, lrScale = 1, frozen = false, ...hyper } = merged
  return { lrScale: lrScale as number, frozen: frozen as boolean, hyper }
}

/** A group for what is customarily not decayed: biases, norms and everything else with fewer than two axes. */
export const noDecay: ParameterGroup = { match: (_, p) => p.rank < 2, weightDecay: 0 }
