import type { Lowered } from '../graph/instruction.js'
import { fitted, type Tradeoff, tradeoffs } from '../graph/recompute.js'
import type { Optimizer } from '../optim/index.js'
import type { StepData } from './data.js'
import { type HeldMemory, heldMemory } from './memory.js'
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
}

/** One way to set up a run: its programs, planned but not loaded, and what it holds beside them. */
export class Candidate {
  readonly held: HeldMemory
  /** The model has state that every micro-batch changes. */
  readonly stateful: boolean
  private readonly programs: readonly { program: Lowered; times: number }[]
  private curves: readonly (readonly Tradeoff[])[] | undefined

  constructor(
    readonly setup: Setup,
    /** What was done to come to this setup, for people. */
    readonly methods: readonly string[],
    data: StepData,
  ) {
    const { model, optimizer, clip, seed, split } = setup
    const trainer = new Trainer(model, { optimizer, clip, seed, device: 'null' })
    try {
      const microBatches = splitBatches(data.microBatches, split)
      this.held = heldMemory(trainer, microBatches, true)
      this.stateful = Object.keys(trainer.moduleState).length > 0
      this.programs = trainer.lowered(microBatches[0], microBatches.length, data.weight !== undefined)
    } finally {
      trainer.close()
    }
  }

  /** Bytes that are there whatever the arena is. */
  get fixed(): number {
    const { weights, optimizer, gradients, other } = this.held
    return weights + optimizer + gradients + other
  }

  /** With an arena of at most so many bytes; undefined where recomputation cannot make it. */
  within(arena: number): Fit | undefined {
    if (arena <= 0) return undefined
    let arenaBytes = 0
    let milliseconds = 0
    let recomputed = 0
    for (const { program, times } of this.programs) {
      const fit = fitted(program, arena)
      if (fit.arenaBytes > arena) return undefined
      arenaBytes = Math.max(arenaBytes, fit.arenaBytes)
      milliseconds += times * fit.milliseconds
      recomputed = Math.max(recomputed, fit.recomputed)
    }
    return { total: this.fixed + arenaBytes, arenaBytes, milliseconds, recomputed }
  }

  /** With nothing computed again. */
  get plain(): Fit {
    return this.within(Infinity)!
  }

  /** From nothing computed again to as little memory as can be. */
  curve(): Omit<Fit, 'recomputed'>[] {
    this.curves ??= this.programs.map(({ program }) => tradeoffs(program))
    const sizes = [...new Set(this.curves.flat().map((point) => point.arenaBytes))].sort((a, b) => b - a)
    return sizes.flatMap((arenaBytes) => {
      let milliseconds = 0
      for (const [i, curve] of this.curves!.entries()) {
        const times = curve.filter((p) => p.arenaBytes <= arenaBytes).map((p) => p.milliseconds)
        milliseconds += this.programs[i].times * Math.min(...times)
      }
      return Number.isFinite(milliseconds) ? [{ total: this.fixed + arenaBytes, arenaBytes, milliseconds }] : []
    })
  }
}
