import type { EvalEvent, SampleEvent, StartEvent, StepEvent, StopEvent, TrainEvent } from './events.js'

/** A number of a run at a step. */
export interface Point {
  step: number
  value: number
}

const MOST_POINTS = 2048

/**
 * The course of a number over a run of any length in bounded memory: when it is full, neighbours are averaged in pairs,
 * and from then on each point stands for twice as many values.
 */
export class History {
  readonly points: Point[] = []
  private stride = 1
  private count = 0
  private stepSum = 0
  private valueSum = 0

  /** Values that are not finite are left out. */
  add(step: number, value: number): void {
    if (!Number.isFinite(value)) return
    this.count++
    this.stepSum += step
    this.valueSum += value
    if (this.count < this.stride) return
    this.points.push({ step: this.stepSum / this.count, value: this.valueSum / this.count })
    this.count = this.stepSum = this.valueSum = 0
    if (this.points.length < MOST_POINTS) return
    for (let i = 0; i < MOST_POINTS / 2; i++) {
      const [a, b] = [this.points[2 * i], this.points[2 * i + 1]]
      this.points[i] = { step: (a.step + b.step) / 2, value: (a.value + b.value) / 2 }
    }
    this.points.length = MOST_POINTS / 2
    this.stride *= 2
  }
}

/** What is known of a run so far: all that a view of it needs. */
export interface Progress {
  start?: StartEvent
  step?: StepEvent
  eval?: EvalEvent
  best?: EvalEvent
  sample?: SampleEvent
  stop?: StopEvent
  train: History
  validation: History
  /** Training loss, averaged with weights that fall to 1/e over 10 events; without bias at the start. */
  smoothedLoss: number
  smoothing: { weight: number; sum: number }
}

export function newProgress(): Progress {
  return { train: new History(), validation: new History(), smoothedLoss: Number.NaN, smoothing: { weight: 0, sum: 0 } }
}

const DECAY = Math.exp(-1 / 10)

/** Takes an event into the state. */
export function follow(progress: Progress, event: TrainEvent): void {
  switch (event.type) {
    case 'start':
      progress.start = event
      break
    case 'step': {
      progress.step = event
      progress.train.add(event.step, event.loss)
      if (!Number.isFinite(event.loss)) break
      const smoothing = progress.smoothing
      smoothing.weight = DECAY * smoothing.weight + 1
      smoothing.sum = DECAY * smoothing.sum + event.loss
      progress.smoothedLoss = smoothing.sum / smoothing.weight
      break
    }
    case 'eval':
      progress.eval = event
      if (event.best) progress.best = event
      progress.validation.add(event.step, event.loss)
      break
    case 'sample':
      progress.sample = event
      break
    case 'stop':
      progress.stop = event
      break
  }
}

/** Seconds until the last step at the mean pace of this process (evaluations and saves included); NaN before a step. */
export function secondsLeft(progress: Progress): number {
  const { start, step } = progress
  if (!start || !step || step.step <= start.fromStep) return Number.NaN
  return ((start.steps - step.step) * step.seconds) / (step.step - start.fromStep)
}
