import type { Lowered } from '../graph/instruction.js'
import type { Packed } from '../graph/recompute-pack.js'
import { ends, fitted, leastArena, type Tradeoff, tradeoffs } from '../graph/recompute.js'
import type { Optimizer } from '../optim/index.js'
import type { StepData } from './data.js'
import type { Batch } from './host.js'
import { type HeldMemory, heldMemory, programBytes } from './memory.js'
import { splitBatches } from './split.js'
import { Trainer, type Trainable } from './trainer.js'

/** What the memory of a run depends on. */
export interface Setup {
  readonly model: Trainable
  readonly optimizer: Optimizer
  readonly clip?: number | null
  readonly seed?: number
  /** Parts that every micro-batch is cut into. */
  readonly split: number
  /** What activations may be kept in between the passes. */
  readonly activations?: Packed
  /** The run leaves files of the model. */
  readonly writes?: boolean
  /** What is left to be done when the run has ended. */
  readonly finish?: () => Promise<void>
}

/** What a run needs that does something about its memory. */
export interface Fit {
  /** Planned peak of the process above its start, in bytes. */
  readonly total: number
  readonly arenaBytes: number
  /** Milliseconds of a step by the cost model. */
  readonly milliseconds: number
  /** Instructions that compute a value again, in the largest of the step's programs. */
  readonly recomputed: number
  /** Values that are kept in fewer bits, likewise. */
  readonly packed: number
  /** Whether the backward pass is run twice: once for the norm of the gradients, once for the updates. */
  readonly twice: boolean
}

/** A point of the curve of time against memory. */
export type Point = Pick<Fit, 'total' | 'arenaBytes' | 'milliseconds' | 'twice'>

/** One way to set up a run: its programs, planned but not loaded, and what it holds beside them. */
export class Candidate {
  readonly held: HeldMemory
  /** The model has state that every micro-batch changes. */
  readonly stateful: boolean
  private traced: readonly { program: Lowered; times: number }[] | undefined
  private least: number | undefined
  private curves: readonly (readonly Tradeoff[])[] | undefined
  private endsFound: readonly (readonly Tradeoff[])[] | undefined

  constructor(
    readonly setup: Setup,
    /** What was done to come to this setup, for people. */
    readonly methods: readonly string[],
    private readonly data: StepData,
  ) {
    const { held, stateful } = this.using((trainer, microBatches) => ({
      held: heldMemory(trainer, microBatches, true),
      stateful: Object.keys(trainer.moduleState).length > 0,
    }))
    this.held = held
    this.stateful = stateful
  }

  private using<R>(f: (trainer: Trainer, microBatches: readonly Batch[]) => R): R {
    const { model, optimizer, clip, seed, split } = this.setup
    const trainer = new Trainer(model, { optimizer, clip, seed, device: 'null' })
    try {
      return f(trainer, splitBatches(this.data.microBatches, split))
    } finally {
      trainer.close()
    }
  }

  /** Traced when they are first looked at: what is held alone may be too much. */
  private get programs(): readonly { program: Lowered; times: number }[] {
    this.traced ??= this.using((trainer, batches) =>
      trainer.lowered(batches[0], batches.length, this.data.weight !== undefined),
    )
    return this.traced
  }

  /** Bytes that are there whatever the programs are. */
  private get besides(): number {
    const { weights, optimizer, gradients, other } = this.held
    return weights + optimizer + gradients + other
  }

  /** Bytes that are there whatever the arena is. */
  private get fixed(): number {
    return this.besides + programBytes(this.programs.map(({ program }) => program))
  }

  /** Within so many bytes in all; undefined where recomputation cannot make it. */
  within(budget: number): Fit | undefined {
    if (budget <= this.besides) return undefined
    const arena = budget - this.fixed
    if (arena <= 0) return undefined
    const { activations } = this.setup
    this.least ??= Math.max(...this.programs.map(({ program }) => leastArena(program, activations)))
    if (arena < this.least) return undefined
    let arenaBytes = 0
    let milliseconds = 0
    let recomputed = 0
    let packed = 0
    let twice = false
    for (const { program, times } of this.programs) {
      const fit = fitted(program, arena, activations)
      if (fit.arenaBytes > arena) {
        this.least = Math.max(this.least, fit.arenaBytes)
        return undefined
      }
      arenaBytes = Math.max(arenaBytes, fit.arenaBytes)
      milliseconds += times * fit.milliseconds
      recomputed = Math.max(recomputed, fit.recomputed)
      packed = Math.max(packed, fit.packed)
      twice ||= fit.twice
    }
    return { total: this.fixed + arenaBytes, arenaBytes, milliseconds, recomputed, packed, twice }
  }

  /** With nothing computed again. */
  get plain(): Fit {
    return this.within(Infinity)!
  }

  /** From nothing computed again to as little memory as can be. */
  curve(): Point[] {
    this.curves ??= this.programs.map(({ program }) => tradeoffs(program, this.setup.activations))
    return this.pointsOf(this.curves)
  }

  /** The first and about the last point of the curve, without and with a second backward pass, found in a fraction of the time. */
  ends(): Point[] {
    this.endsFound ??= this.programs.map(({ program }) => ends(program, this.setup.activations))
    return endsOf(this.pointsOf(this.curves ?? this.endsFound))
  }

  private pointsOf(curves: readonly (readonly Tradeoff[])[]): Point[] {
    const sizes = [...new Set(curves.flat().map((point) => point.arenaBytes))].sort((a, b) => b - a)
    return sizes.flatMap((arenaBytes) => {
      let milliseconds = 0
      let twice = false
      for (const [i, curve] of curves.entries()) {
        const fits = curve.filter((p) => p.arenaBytes <= arenaBytes)
        if (fits.length === 0) return []
        const quickest = fits.reduce((a, b) => (b.milliseconds < a.milliseconds ? b : a))
        milliseconds += this.programs[i].times * quickest.milliseconds
        twice ||= quickest.twice
      }
      return [{ total: this.fixed + arenaBytes, arenaBytes, milliseconds, twice }]
    })
  }
}

/** Of a curve the first point, and the least without and with a second backward pass. */
function endsOf(points: readonly Point[]): Point[] {
  const once = points.filter((p) => !p.twice)
  return [...once.slice(0, 1), ...once.slice(1).slice(-1), ...points.filter((p) => p.twice).slice(-1)]
}
