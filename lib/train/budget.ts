import { nearest, SteepestError } from '../errors.js'
import { ALLOWED, type Allowed, combinations, type MemoryMethod, METHODS, sampling } from './budget-methods.js'
import { Candidate, type Fit, type Point, type Setup } from './budget-setup.js'
import { budgetLines } from './budget-table.js'
import type { StepData } from './data.js'
import type { MemoryReport, MemoryRow } from './events.js'
import { bytes, quantity } from './plot-numbers.js'
import { splitsOf } from './split.js'

/** How a run was made to fit. */
export interface BudgetChoice {
  /** What a setup becomes by it. */
  readonly apply: (setup: Setup) => Setup
  /** The setup that was given, so changed. */
  readonly setup: Setup
  readonly arenaBytes: number
  /** What it does, for people: `recompute 37 values`. */
  readonly methods: readonly string[]
  readonly total: number
  /** Time that is expected beside a run that does nothing about its memory: 1.08 is 8 % more. */
  readonly slowdown: number
  readonly exact: boolean
}

/** A run that fits into no plan. `table` has every way that was looked at. */
export class MemoryError extends SteepestError {
  constructor(
    who: string,
    readonly budget: number,
    readonly table: readonly MemoryRow[],
  ) {
    const least = table.filter((row) => row.allowed).reduce((a, b) => (b.total < a.total ? b : a))
    const other = table.filter((row) => !row.allowed && row.total <= budget).sort((a, b) => b.speed - a.speed)[0]
    const fix = other
      ? `Allow what changes the numbers (${other.method}), give more memory, or take a smaller batch`
      : 'Give more memory, or take a smaller batch, context or model'
    super('OUT_OF_MEMORY', {
      who,
      rule: `the run must fit into ${bytes(budget)}`,
      got: `${bytes(least.total)} with ${least.method}`,
      fix: `${fix}:\n${budgetLines(table, budget).join('\n')}`,
    })
  }
}

/**
 * What may be done, checked.
 * @throws SteepestError OPTION for a name that is not known
 */
export function allowedFrom(who: string, names: readonly string[]): Allowed[] {
  return names.map((name) => {
    if ((ALLOWED as readonly string[]).includes(name)) return name as Allowed
    const near = nearest(name, ALLOWED)
    throw new SteepestError('OPTION', {
      who,
      rule: `must name methods: ${ALLOWED.join(', ')}`,
      got: `"${name}"`,
      fix: near ? `Did you mean ${near}?` : '',
    })
  })
}

/** What a second backward pass is called. */
const TWICE = 'backward pass twice, first for the norm'

const labelOf = (methods: readonly string[], recomputes: boolean, twice: boolean): string =>
  [...methods, ...(recomputes ? ['recomputation'] : []), ...(twice ? [TWICE] : [])].join(' + ') || 'as it is'

/** Time lost below which nothing better is looked for. */
const NEGLIGIBLE = 1.03
/** Numbers of parts of a micro-batch that are looked at. */
const SPLITS = 4
/** Parts of the rows that are tried in the place of one that fits, the largest first. */
const LARGER: Readonly<Record<string, readonly number[]>> = { 0.5: [0.8, 0.65], 0.3: [0.4], 0.1: [0.2] }

/** A way to run that leaves more of the memory of the way before it is no line of the table. */
const WORTH = 0.995

interface Found {
  readonly methods: readonly MemoryMethod[]
  readonly candidate: Candidate
  readonly fit: Fit
}

/** Looks for ways to run within a memory, and tells what each comes to. */
export class Budget {
  private readonly plain: Candidate
  private readonly base: number
  private readonly splits: readonly number[]
  private readonly known = new Map<string, Candidate | undefined>()

  constructor(
    private readonly setup: Setup,
    private readonly data: StepData,
  ) {
    this.plain = new Candidate(setup, [], data)
    this.base = this.plain.plain.milliseconds
    const splits = this.plain.stateful ? [1] : splitsOf(data)
    // Of many divisors the first and the last, and some between.
    this.splits = splits.filter((_, i) => i < SPLITS - 1 || i === splits.length - 1)
  }

  private candidate(methods: readonly MemoryMethod[], split: number): Candidate | undefined {
    const key = `${split} ${methods.map((m) => m.label).join()}`
    if (!this.known.has(key)) {
      const same = methods.length === 0 && split === 1
      this.known.set(key, same ? this.plain : this.made(methods, split))
    }
    return this.known.get(key)
  }

  private made(methods: readonly MemoryMethod[], split: number): Candidate | undefined {
    const names = [...methods.map((m) => m.label), ...(split > 1 ? [`micro-batches in ${split} parts`] : [])]
    let setup: Setup | undefined = { ...this.setup, split }
    try {
      for (const method of methods) setup = setup && method.apply(setup)
      return setup && new Candidate(setup, names, this.data)
    } catch (error) {
      // A method that finds nothing in this model to act on is none for it.
      if (methods.length > 0 && error instanceof SteepestError) return undefined
      throw error
    }
  }

  private quickest(methods: readonly MemoryMethod[], budget: number): Found | undefined {
    let best: Found | undefined
    for (const split of this.splits) {
      const candidate = this.candidate(methods, split)
      const fit = candidate?.within(budget)
      if (!candidate || !fit || (best && best.fit.milliseconds <= fit.milliseconds)) continue
      best = { methods, candidate, fit }
      if (fit.milliseconds <= NEGLIGIBLE * this.base) break
    }
    return best
  }

  /** The same with as many rows as fit, where it samples. */
  private withMoreRows(found: Found, budget: number): Found {
    const at = found.methods.findIndex((m) => m.ratio !== undefined)
    const { ratio = 0, strength } = found.methods[at] ?? {}
    for (const larger of LARGER[ratio] ?? []) {
      const more = this.quickest(found.methods.with(at, sampling(larger, strength!)), budget)
      if (more) return more
    }
    return found
  }

  /**
   * The quickest way that is found to run within so many bytes: with exact means where they do, else with as few of the allowed methods as
   * possible.
   * @throws MemoryError where there is none
   */
  choose(budget: number, allow: readonly Allowed[] = [], who = 'train'): BudgetChoice {
    const allowed = METHODS.filter((m) => allow.includes(m.kind))
    for (const methods of combinations(allowed)) {
      const first = this.quickest(methods, budget)
      if (!first) continue
      const found = this.withMoreRows(first, budget)
      const { candidate, fit } = found
      const { split } = candidate.setup
      const again = fit.recomputed > 0 ? [`recompute ${fit.recomputed} values`] : []
      // Not everything that may be kept in fewer bits has to be.
      const done = candidate.setup.activations && fit.packed > 0 ? [`${fit.packed} values so`] : []
      return {
        setup: candidate.setup,
        apply: (setup) => {
          return found.methods.reduce((at: Setup, method) => method.apply(at) ?? at, { ...setup, split })
        },
        arenaBytes: fit.arenaBytes,
        methods: [...candidate.methods, ...done, ...(fit.twice ? [TWICE] : []), ...again],
        total: fit.total,
        slowdown: fit.milliseconds / this.base,
        exact: methods.length === 0,
      }
    }
    throw new MemoryError(who, budget, this.table(allow))
  }

  /** Every method: as much memory as it takes with nothing computed again, and as little as it can do with. */
  table(allow: readonly Allowed[] = []): MemoryRow[] {
    const sets = [[], ...METHODS.map((m) => [m])]
    const most = this.splits[this.splits.length - 1]
    return sets.flatMap((methods) =>
      (methods.length === 0 && most > 1 ? [1, most] : [1]).flatMap((split): MemoryRow[] => {
        const candidate = this.candidate(methods, split)
        if (!candidate) return []
        const [plain, ...less] = candidate.ends()
        const row = (point: Point): MemoryRow => ({
          method: labelOf(candidate.methods, point !== plain, point.twice),
          total: point.total,
          speed: this.base / point.milliseconds,
          exact: methods.length === 0,
          allowed: methods.every((m) => allow.includes(m.kind)),
        })
        // With everything in its place there is nothing to be kept in fewer bits.
        const first = candidate.setup.activations ? [] : [row(plain)]
        const worth = less.filter((point, i) => point.total < WORTH * (less[i - 1] ?? plain).total)
        return [...first, ...worth.map(row)]
      }),
    )
  }

  /** All that is known before a budget is given. */
  report(allow: readonly Allowed[] = []): MemoryReport {
    return { rows: this.table(allow), curve: this.curve() }
  }

  /** Time against memory with exact means and micro-batches as they are: each point needs less memory than the one before. */
  curve(): { total: number; slowdown: number }[] {
    return this.plain.curve().map(({ total, milliseconds }) => ({ total, slowdown: milliseconds / this.base }))
  }
}

/** What a budget leaves for the arena of a run that is set up so. */
export const arenaWithin = (budget: number, { total, arenaBytes }: BudgetChoice): number =>
  budget - (total - arenaBytes)

/**
 * One line about what was chosen: `2.41 GB of 3 GB: recompute 37 values; about 4% more time`.
 * @param noise expected error of a sampled gradient beside its norm
 */
export function choiceLine(budget: number, choice: BudgetChoice, noise?: number): string {
  const { methods, total, slowdown, exact } = choice
  const what = methods.length > 0 ? methods.join(', ') : 'nothing had to be done'
  const more = slowdown > 1.0005 ? `; about ${((slowdown - 1) * 100).toFixed(slowdown < 1.1 ? 1 : 0)}% more time` : ''
  const numbers = exact ? '' : '; the numbers are not those of the exact run'
  const error = noise === undefined ? '' : `; gradient noise of about ${(100 * noise).toFixed(noise < 0.1 ? 1 : 0)}%`
  return `${quantity(total, 'B')} of ${bytes(budget)}: ${what}${more}${numbers}${error}`
}
