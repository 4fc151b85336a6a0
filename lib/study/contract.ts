/** A number that a claim stands or falls with, and its bound; one of `atMost` and `atLeast`. */
export interface Criterion {
  /** Key in the numbers of an outcome. */
  number: string
  /** What the number is, in words, with its unit. */
  what: string
  atMost?: number
  atLeast?: number
  /** What is held against the bound: the mean over the seeds (default), their median, or the number of every single seed. */
  over?: 'mean' | 'median' | 'every'
}

/** What a paper says, and what of it is measured here. */
export interface Claim {
  title: string
  /** Authors and year. */
  by: string
  /** Where it can be read: an arXiv number, a journal. */
  source: string
  /** What the paper claims, in one to three sentences. */
  says: string
  criteria: readonly Criterion[]
  /** Numbers that are printed and kept but decide nothing, by key, in words. */
  reports?: Readonly<Record<string, string>>
  /** What the paper shows and a laptop does not. */
  notShown: string
  /** What was found where the measurement differs from what was expected of it, and which was wrong. */
  found?: string
}

/** One repetition of an experiment. */
export interface Trial {
  seed: number
  /** Whether only the path is walked: sizes are small and nothing is concluded. */
  quick: boolean
  /** The first value, or, where the trial is quick, the second. */
  pick<T>(full: T, quick: T): T
}

/** A point of a curve. */
export interface CurvePoint {
  x: number
  y: number
}

/** What one repetition gives: numbers by key, and curves by name. */
export interface Outcome {
  numbers: Readonly<Record<string, number>>
  curves?: Readonly<Record<string, readonly CurvePoint[]>>
}

/** A measurement; everything random in it comes from the seed. */
export type Experiment = (trial: Trial) => Outcome | Promise<Outcome>

/** The experiment without the ingredient that the claim is about: a check that passes here too has no teeth. */
export interface Control {
  /** What was taken away. */
  what: string
  /** Numbers of criteria that must not be met. */
  fails: readonly string[]
  experiment: Experiment
}

/** How curves are drawn: each is the mean over the seeds. */
export interface Plot {
  x: string
  y: string
  logX?: boolean
  logY?: boolean
  /** Names of the curves to draw, in this order; all by default. */
  curves?: readonly string[]
}

/** What a file of `papers/` exports. */
export interface Paper {
  claim: Claim
  experiment: Experiment
  control: Control | readonly Control[]
  plot: Plot
}
