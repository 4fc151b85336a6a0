import { SteepestError } from '../errors.js'
import type { Control, CurvePoint, Experiment, Outcome, Paper, Trial } from './contract.js'
import { type Judged, judge, judgeControl, type Summary, summaries } from './judge.js'

/** How a study is run. */
export interface StudyOptions {
  /** One repetition each; three or more, unless `quick`. */
  seeds: readonly number[]
  /** Small sizes, and no conclusion. Default false. */
  quick?: boolean
  /** Told before each repetition. */
  onTrial?: (what: 'experiment' | 'control', seed: number, control: string | undefined) => void
  /** Ends the study after the repetition that is under way. */
  signal?: AbortSignal
}

/** What a control gave. */
export interface ControlVerdict {
  what: string
  numbers: Readonly<Record<string, Summary>>
  /** The criteria that it must not meet. */
  criteria: readonly Judged[]
  /** Whether it met none of them, as it must. */
  fails: boolean
}

/** What a study gave. */
export interface Verdict {
  /** `walked`: it was quick, so that nothing was concluded. */
  verdict: 'holds' | 'does not hold' | 'control passes' | 'walked'
  seeds: readonly number[]
  numbers: Readonly<Record<string, Summary>>
  criteria: readonly Judged[]
  controls: readonly ControlVerdict[]
  /** Curves by name, one per seed. */
  curves: Readonly<Record<string, readonly (readonly CurvePoint[])[]>>
  seconds: number
}

/** Fewest repetitions that a conclusion is drawn from. */
export const LEAST_SEEDS = 3

const controlsOf = ({ control }: Paper): readonly Control[] =>
  Array.isArray(control) ? (control as readonly Control[]) : [control as Control]

function checked(paper: Paper, { seeds, quick = false }: StudyOptions): void {
  const who = 'study'
  if (seeds.length === 0 || new Set(seeds).size < seeds.length || !seeds.every(Number.isSafeInteger)) {
    throw new SteepestError('OPTION', { who, rule: 'seeds must be different whole numbers', got: seeds.join(', ') })
  }
  if (!quick && seeds.length < LEAST_SEEDS) {
    throw new SteepestError('OPTION', {
      who,
      rule: `a conclusion needs ${LEAST_SEEDS} seeds or more`,
      got: String(seeds.length),
    })
  }
  const controls = controlsOf(paper)
  if (paper.claim.criteria.length === 0 || controls.length === 0 || controls.some((c) => c.fails.length === 0)) {
    throw new SteepestError('ARGUMENT', { who, rule: 'there must be a criterion, and a control that fails one' })
  }
}

function curvesOf(outcomes: readonly Outcome[], prefix = ''): Record<string, (readonly CurvePoint[])[]> {
  const curves: Record<string, (readonly CurvePoint[])[]> = {}
  for (const outcome of outcomes) {
    for (const [name, points] of Object.entries(outcome.curves ?? {})) (curves[prefix + name] ??= []).push(points)
  }
  return curves
}

/**
 * Measures what a paper claims, once per seed, then the same for each control, and judges: the claim holds where every criterion is met
 * and every control fails those that it must fail.
 * @throws SteepestError OPTION for fewer than three seeds, ARGUMENT for a paper without control or criterion, ABORTED
 */
export async function runStudy(paper: Paper, options: StudyOptions): Promise<Verdict> {
  checked(paper, options)
  const { seeds, quick = false, onTrial, signal } = options
  const began = performance.now()
  const repeat = async (experiment: Experiment, control?: string): Promise<Outcome[]> => {
    const outcomes: Outcome[] = []
    for (const seed of seeds) {
      if (signal?.aborted) throw new SteepestError('ABORTED', { who: 'study', rule: 'was interrupted' })
      onTrial?.(control === undefined ? 'experiment' : 'control', seed, control)
      const trial: Trial = { seed, quick, pick: (full, small) => (quick ? small : full) }
      outcomes.push(await experiment(trial))
    }
    return outcomes
  }
  const outcomes = await repeat(paper.experiment)
  const numbers = summaries(outcomes)
  const criteria = paper.claim.criteria.map((c) => judge(c, numbers))
  const curves = curvesOf(outcomes)
  const controls: ControlVerdict[] = []
  for (const control of controlsOf(paper)) {
    const without = await repeat(control.experiment, control.what)
    const own = summaries(without)
    const judged = judgeControl(control, paper.claim.criteria, own)
    controls.push({ what: control.what, numbers: own, criteria: judged, fails: judged.every((c) => !c.holds) })
    Object.assign(curves, curvesOf(without, 'control: '))
  }
  const verdict = quick
    ? 'walked'
    : !criteria.every((c) => c.holds)
      ? 'does not hold'
      : controls.every((c) => c.fails)
        ? 'holds'
        : 'control passes'
  return { verdict, seeds, numbers, criteria, controls, curves, seconds: (performance.now() - began) / 1000 }
}
