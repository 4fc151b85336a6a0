import { SteepestError } from '../errors.js'
import type { Control, Criterion, Outcome } from './contract.js'

/** A number over the seeds. */
export interface Summary {
  bySeed: readonly number[]
  mean: number
  median: number
  /** Standard deviation over the seeds (n − 1 in the divisor); 0 for one. */
  spread: number
}

/** A criterion with what was measured. */
export interface Judged extends Criterion {
  over: 'mean' | 'median' | 'every'
  /** What was held against the bound: a mean, a median, or the worst of all seeds. */
  measured: number
  holds: boolean
}

/** Mean, median and spread of some numbers. */
export function summarize(values: readonly number[]): Summary {
  const n = values.length
  const mean = values.reduce((a, b) => a + b, 0) / n
  const sorted = [...values].sort((a, b) => a - b)
  const middle = n >> 1
  const median = n % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  const spread = n < 2 ? 0 : Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / (n - 1))
  return { bySeed: values, mean, median, spread }
}

/** Every number of the outcomes, by key. */
export function summaries(outcomes: readonly Outcome[]): Record<string, Summary> {
  const keys = new Set(outcomes.flatMap((o) => Object.keys(o.numbers)))
  return Object.fromEntries([...keys].map((key) => [key, summarize(outcomes.map((o) => o.numbers[key]))]))
}

function boundOf(criterion: Criterion): { bound: number; most: boolean } {
  const { atMost, atLeast } = criterion
  if ((atMost === undefined) === (atLeast === undefined)) {
    throw new SteepestError('ARGUMENT', {
      who: `criterion ${criterion.number}`,
      rule: 'must have one of `atMost` and `atLeast`',
    })
  }
  return atMost === undefined ? { bound: atLeast as number, most: false } : { bound: atMost, most: true }
}

/** Whether one number is within the bound; one that is not finite never is. */
function within(criterion: Criterion, value: number): boolean {
  const { bound, most } = boundOf(criterion)
  return Number.isFinite(value) && (most ? value <= bound : value >= bound)
}

function valuesOf(criterion: Criterion, numbers: Readonly<Record<string, Summary>>): readonly number[] {
  const found = numbers[criterion.number]?.bySeed
  if (found === undefined || found.includes(undefined as never)) {
    throw new SteepestError('ARGUMENT', {
      who: `criterion ${criterion.number}`,
      rule: 'every outcome must have its number',
      got: Object.keys(numbers).join(', '),
    })
  }
  return found
}

/** Holds a criterion against what was measured. */
export function judge(criterion: Criterion, numbers: Readonly<Record<string, Summary>>): Judged {
  const { over = 'mean' } = criterion
  const values = valuesOf(criterion, numbers)
  const { most } = boundOf(criterion)
  const worst = values.some((v) => Number.isNaN(v)) ? Number.NaN : most ? Math.max(...values) : Math.min(...values)
  const measured = over === 'every' ? worst : numbers[criterion.number][over]
  return { ...criterion, over, measured, holds: within(criterion, measured) }
}

/**
 * The criteria that a control must not meet, held against its numbers. One over every seed counts as met as soon as one seed meets it, so
 * that a control has failed on all of them.
 */
export function judgeControl(
  control: Control,
  criteria: readonly Criterion[],
  numbers: Readonly<Record<string, Summary>>,
): Judged[] {
  return control.fails.map((key) => {
    const criterion = criteria.find((c) => c.number === key)
    if (!criterion) {
      throw new SteepestError('ARGUMENT', {
        who: 'control',
        rule: '`fails` must name numbers of criteria',
        got: key,
        fix: `There are ${criteria.map((c) => c.number).join(', ')}`,
      })
    }
    const judged = judge(criterion, numbers)
    if (judged.over !== 'every') return judged
    const values = valuesOf(criterion, numbers)
    const met = values.find((v) => within(criterion, v))
    return { ...judged, measured: met ?? judged.measured, holds: met !== undefined }
  })
}
