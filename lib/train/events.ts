import type { Profile } from './profile.js'
/** Bytes by what holds them, as planned before the first step; `total` is the planned peak of the process above its start. */
export interface MemoryByHolder {
  weights: number
  gradients: number
  optimizer: number
  activations: number
  /** Scratchpads of libraries and packed copies of weights. */
  workspace: number
  /** Loader, thread stacks and what else lies outside the arena. */
  other: number
  total: number
}

/** A way to run, as a row of a table. */
export interface MemoryRow {
  /** What is done, for people; `as it is` where nothing is. */
  readonly method: string
  /** Planned peak of the process above its start, in bytes. */
  readonly total: number
  /** Speed beside a run that does nothing about its memory, 1 for the same. */
  readonly speed: number
  /** Whether the numbers are those of that run, but for the order of sums. */
  readonly exact: boolean
  /** Whether everything that it does is allowed. */
  readonly allowed: boolean
}

/** What memory a run could do with, and what that costs. */
export interface MemoryReport {
  readonly rows: readonly MemoryRow[]
  /** With exact means: each point needs less memory and more time (a multiple of that of the first) than the one before. */
  readonly curve: readonly { readonly total: number; readonly slowdown: number }[]
}

/** What a run will do; everything in it is known before the first step. */
export interface Plan {
  /** One line about the model, for example `GPT: 6 layers, 6 heads, width 192`. */
  model: string
  /** Numbers that are trained. */
  parameters: number
  /** One line about the data, for example `book.txt: 1.2 MB, 301k tokens, 10% for validation`. */
  data: string
  /** One line about the tokenizer, for example `byte pairs, 2048 entries`. */
  tokenizer: string
  /** Sequences in one micro-batch. */
  batch: number
  /** Micro-batches in one step. */
  accumulate: number
  /** Tokens in one sequence. */
  context: number
  /** Tokens in one step: batch · accumulate · context; or so many of what `unit` says. */
  tokensPerStep: number
  /** What a step is counted in, where that is not tokens: rows, images. */
  unit?: string
  /** Steps of the whole run. */
  steps: number
  /** Steps that are done already: 0, or the step of the checkpoint that the run goes on from. */
  fromStep: number
  optimizer: string
  /** The peak of the schedule. */
  lr: number
  schedule: string
  dtype: string
  seed: number
  threads: number
  /** Processes that train together, where there are several. */
  processes?: number
  /** Floating-point operations of one step, from the costs in the op table. */
  flopsPerStep: number
  /** Floating-point operations a second that this machine was measured to reach on a large product in this dtype; 0 when not measured. */
  peakFlops: number
  memory: MemoryByHolder
  /** What was done to fit into the memory that the run was given, in one line; absent where none was given. */
  fitted?: string
  /** Seconds that the steps are expected to take on this machine, evaluations included; NaN when not known. */
  secondsExpected: number
  /** The run folder; empty when nothing is written. */
  out: string
  /** What steepest chose because the user did not say: name of the option → the value and why, for people. */
  chosen: Record<string, string>
}

/** The first event of a run. */
export interface StartEvent extends Plan {
  type: 'start'
}

/** One optimizer step, or, where steps are shorter than 50 ms, the last of those since the event before. */
export interface StepEvent {
  type: 'step'
  /** Steps done, counted from 1 over the whole run, resumed parts included. */
  step: number
  /** Mean loss per token of the step, in nats. */
  loss: number
  lr: number
  /** Norm of the whole gradient before clipping; NaN where the plan never holds it. */
  gradNorm: number
  /** What the model reports of itself (`ctx.report`), by name; absent where it reports nothing. */
  metrics?: Readonly<Record<string, number>>
  /** Tokens trained on since step 0. */
  tokens: number
  tokensPerSecond: number
  msPerStep: number
  /** Share of the machine's measured peak, 0 to 1; NaN when the peak is not known. */
  mfu: number
  /** Resident bytes of the process now, above its start. */
  memoryNow: number
  /** The planned peak. */
  memoryPlanned: number
  /** Seconds since this process began to train. */
  seconds: number
}

/** An evaluation on the validation data. */
export interface EvalEvent {
  type: 'eval'
  step: number
  loss: number
  /** exp(loss). */
  perplexity: number
  /** Whether no evaluation before it was better. */
  best: boolean
  /** Measures of the task: accuracy and the like. */
  metrics?: Readonly<Record<string, number>>
  seconds: number
}

/** Text that the model wrote. */
export interface SampleEvent {
  type: 'sample'
  step: number
  prompt: string
  text: string
}

/** A checkpoint is whole on disk. */
export interface SaveEvent {
  type: 'save'
  step: number
  path: string
  bytes: number
}

/** Where the time of the steps went. */
export interface ProfileEvent extends Profile {
  type: 'profile'
  /** The trace that was written. */
  path?: string
}

/** Something the user should know that does not stop the run. */
export interface WarningEvent {
  type: 'warning'
  step: number
  message: string
}

/**
 * Why a run ended: `done` all its steps; `stopAfter` where the user had asked; `interrupted` by the abort signal, after a
 * whole step; `earlyStopping` as the validation loss got no better; `nonFinite` at a loss or gradient that is not a number.
 */
export type StopReason = 'done' | 'stopAfter' | 'interrupted' | 'earlyStopping' | 'nonFinite'

/** The last event of a run that was not thrown out by an error. */
export interface StopEvent {
  type: 'stop'
  reason: StopReason
  step: number
  /** Validation loss of the last evaluation, and the best one; absent when there was none. */
  evalLoss?: number
  bestLoss?: number
  /** The last whole checkpoint; absent when none was saved. */
  path?: string
  /** The command that goes on from there; absent when the run is done. */
  resume?: string
  /** For `nonFinite`: the op and the module that produced the value. */
  message?: string
  seconds: number
}

/** An error, as `--json` and `run.jsonl` tell it; the iterator throws it afterwards. */
export interface ErrorEvent {
  type: 'error'
  code: string
  message: string
}

/** What a run tells, in order: one `start`; then the others; `stop` or `error` last. */
export type TrainEvent =
  | StartEvent
  | StepEvent
  | EvalEvent
  | SampleEvent
  | SaveEvent
  | ProfileEvent
  | WarningEvent
  | StopEvent
  | ErrorEvent

/** A run that is planned and has not begun. */
export interface PreparedRun {
  /** The ways in which the run could do with less memory, and the curve of time against memory; nothing is run for it. */
  memory?(): MemoryReport
  plan: Plan
  /**
   * Trains. When the signal is aborted the run finishes its step, saves, and ends with `stop`, reason `interrupted`.
   * The iterator throws what an `error` event tells.
   */
  run(options?: { signal?: AbortSignal }): AsyncIterable<TrainEvent>
}

/** One line of JSON for an event; numbers that JSON cannot hold become the strings "nan", "inf" and "-inf". */
export function eventLine(event: TrainEvent): string {
  return JSON.stringify(event, (_, value) => {
    if (typeof value !== 'number' || Number.isFinite(value)) return value
    return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  })
}
