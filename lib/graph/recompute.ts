import { millisecondsOf } from './cost.js'
import { type Buf, type Instruction, type Lowered, newBuf, type Operand } from './instruction.js'
import { placed } from './place.js'
import { unheld } from './two-pass.js'
import { type Model, modelOf } from './recompute-model.js'
import type { Packed } from './recompute-pack.js'
import { type SecondPass, secondPass } from './recompute-second.js'
import { allPacked, boundOf, frontier, frontierTwice, search } from './recompute-search.js'
import { type Choice, NOTHING, type Outcome, phaseAt, simulate, turnsOf } from './recompute-simulate.js'

/** The program that an outcome stands for. */
export function rewritten(lowered: Lowered, model: Model, choice: Choice): Lowered {
  const { drops } = choice
  const numbers = new Map(model.bufs.map((buf, v) => [buf, v]))
  /** What stands for a value now, by phase. */
  const places = new Map<number, Buf[]>()
  const instructions = turnsOf(model, choice).map(({ step, time, again }): Instruction => {
    const { instruction } = step
    const read = (o: Operand): Operand => {
      const value = numbers.get(o.buf)
      const phase = value === undefined ? 0 : phaseAt(drops.get(value), time)
      return phase === 0 ? o : { ...o, buf: places.get(value!)![phase] }
    }
    const inputs = instruction.inputs.map(read)
    if (again === undefined) return { ...instruction, inputs }
    const outputs = instruction.outputs.map((o): Operand => {
      const buf = newBuf('arena', o.buf.bytes, o.buf.label)
      if (o.buf !== model.bufs[again]) return { ...o, buf }
      const at = places.get(again) ?? []
      at[phaseAt(drops.get(again), time)] = buf
      places.set(again, at)
      return { ...o, buf }
    })
    const { bytes, label } = instruction.workspace
    return { ...instruction, inputs, outputs, workspace: newBuf('arena', bytes, label) }
  })
  return { ...lowered, instructions }
}

/** What a round of a hasty search leaves of the peak. */
const HASTY = 0.75

/** Times that a target is lowered by what the places in the arena need beyond what lives. */
const ROUNDS = 4

/** What is this much more than a target may still come down to it on another way. */
const NEAR = 1.15

/** Part of a program's time that computing again may cost before a second backward pass is thought of, which costs more. */
const DEAR = 0.15

/** What a program with some of its values computed again comes to. */
interface Found {
  readonly outcome: Outcome
  readonly bytes: number
  readonly milliseconds: number
}

/** A program that is to need less memory, as it is or with a second backward pass, and what is known of it. */
class Variant {
  private readonly curves = new Map<number | undefined, readonly Found[]>()

  constructor(
    readonly lowered: Lowered,
    readonly model: Model,
    readonly second?: SecondPass,
    /** What needs more is of no use. */
    private readonly below?: () => number,
  ) {}

  found(outcome: Outcome): Found {
    const { arenaBytes } = placed(this.program(outcome))
    return { outcome, bytes: arenaBytes, milliseconds: this.model.milliseconds + outcome.milliseconds }
  }

  program(outcome: Outcome): Lowered {
    return rewritten(this.lowered, this.model, outcome)
  }

  /** From much memory to little. */
  curve(round?: number): readonly Found[] {
    const { model, second } = this
    const key = second ? undefined : round
    let known = this.curves.get(key)
    if (!known) {
      const outcomes = second ? frontierTwice(model, second, this.below!()) : frontier(model, round, round === HASTY)
      known = [...outcomes].map((outcome) => this.found(outcome))
      this.curves.set(key, known)
    }
    return known
  }

  private quickest(arena: number): Found | undefined {
    const all = [...this.curves.values()].flat().filter((f) => f.bytes <= arena)
    return all.length > 0 ? all.reduce((a, b) => (b.milliseconds < a.milliseconds ? b : a)) : undefined
  }

  /** The quickest way that is found to fit. */
  within(arena: number): Found | undefined {
    let target = arena
    for (let round = 0; round < ROUNDS && target > 0; round++) {
      const outcome = search(this.model, target, this.second)
      if (!outcome) break
      const found = this.found(outcome)
      if (found.bytes <= arena) return found
      target -= found.bytes - arena
    }
    // Neither way down is always the better one.
    for (const round of [HASTY, undefined]) {
      const found = this.quickest(arena)
      if (found) return found
      const least = Math.min(...this.curve(round).map((f) => f.bytes))
      if (least > NEAR * arena) return undefined
    }
    return this.quickest(arena)
  }

  /** As little memory as is known to do; undefined where a second pass does not do with less than the first alone. */
  least(): Found | undefined {
    this.curve(HASTY)
    const [first, ...others] = [...this.curves.values()].flat()
    return first && others.reduce((a, b) => (b.bytes < a.bytes ? b : a), first)
  }
}

interface Variants {
  readonly once: Variant
  readonly twice?: Variant
}

const known = new WeakMap<Lowered, Map<Packed | undefined, Variants>>()

function variantsOf(lowered: Lowered, packed?: Packed): Variants {
  const by = known.get(lowered) ?? new Map<Packed | undefined, Variants>()
  known.set(lowered, by)
  let found = by.get(packed)
  if (!found) {
    const once = new Variant(lowered, modelOf(lowered, packed))
    const apart = unheld(lowered)
    const model = apart && modelOf(apart.lowered, packed)
    const second = model && secondPass(model, apart.norm)
    const below = () => once.least()!.bytes
    found = { once, twice: second && new Variant(apart!.lowered, model!, second, below) }
    by.set(packed, found)
  }
  return found
}

/**
 * Recomputation: gives up values after a reader and computes them again before the next, until the arena fits into `arena` bytes (or needs
 * as little as was found). Chosen by time lost for bytes saved at the fullest moment, under the liveness of the whole program: forward,
 * backward and update together. What is computed again is the same instruction on the same operands, so no number changes. Where a norm of all
 * gradients holds them, the whole backward pass may be run again: once for the norm, once for the updates.
 *
 * Where `packed` allows it, activations are kept in fewer bits between the passes too: the gradients are then others.
 *
 * The problem is that of Checkmate (Jain et al. 2020); the search is greedy with re-simulation, as thousands of instructions are to be
 * planned in well under a second.
 */
export function recompute(lowered: Lowered, arena: number, packed?: Packed): Lowered {
  return wayWithin(lowered, arena, packed)?.program ?? lowered
}

/** A program that needs less memory. */
interface Way {
  readonly program: Lowered
  readonly twice: boolean
}

/** Undefined where nothing has to be done. */
function wayWithin(lowered: Lowered, arena: number, packed?: Packed): Way | undefined {
  if (placed(lowered).arenaBytes <= arena) return undefined
  const { once, twice } = variantsOf(lowered, packed)
  const first = once.within(arena)
  const wayOf = (variant: Variant, { outcome }: Found): Way => {
    return { program: variant.program(outcome), twice: variant === twice }
  }
  if (first && (!twice || first.milliseconds <= (1 + DEAR) * once.model.milliseconds)) return wayOf(once, first)
  const second = twice?.within(arena)
  if (second && !(first && first.milliseconds <= second.milliseconds)) return wayOf(twice!, second)
  if (first) return wayOf(once, first)
  const [a, b] = [once.least()!, twice?.least()]
  return b && b.bytes < a.bytes ? wayOf(twice!, b) : wayOf(once, a)
}

/** Keeps everything that may be kept in fewer bits between the passes so, whether or not there is memory for more. */
export function packAll(lowered: Lowered, packed: Packed): Lowered {
  const model = modelOf(lowered, packed)
  return model.packs.size > 0 ? rewritten(lowered, model, allPacked(model)) : lowered
}

/** Bytes that no choice of what is given up gets below. */
export function leastArena(lowered: Lowered, packed?: Packed): number {
  const { once, twice } = variantsOf(lowered, packed)
  return Math.min(boundOf(once.model), twice ? boundOf(twice.model) : Infinity)
}

/** A point of the curve of time against memory. */
export interface Tradeoff {
  readonly arenaBytes: number
  /** Time that the program is expected to take, what is computed again included. */
  readonly milliseconds: number
  /** Whether the backward pass is run twice, so that gradients are not held for their norm. */
  readonly twice: boolean
}

const millisecondsIn = (lowered: Lowered): number => lowered.instructions.reduce((n, i) => n + millisecondsOf(i), 0)

const tradeoffOf = ({ bytes, milliseconds }: Found, twice: boolean): Tradeoff => {
  return { arenaBytes: bytes, milliseconds, twice }
}

/** What recomputation can buy: from nothing computed again to as little memory as can be. */
export function tradeoffs(lowered: Lowered, packed?: Packed): Tradeoff[] {
  const { once, twice } = variantsOf(lowered, packed)
  const first = once.curve().map((f) => tradeoffOf(f, false))
  const rest = twice?.curve().map((f) => tradeoffOf(f, true)) ?? []
  const all = [...first, ...rest]
  return all.filter((p) => !all.some((q) => q.arenaBytes <= p.arenaBytes && q.milliseconds < p.milliseconds))
}

/** The ends of the curve: nothing computed again, and about as little memory as can be, without and with a second backward pass. */
export function ends(lowered: Lowered, packed?: Packed): Tradeoff[] {
  const { once, twice } = variantsOf(lowered, packed)
  const least = once.least()!
  const first = once.found(simulate(once.model, NOTHING, Infinity)!)
  const second = twice?.least()
  return [
    tradeoffOf(first, false),
    ...(least.bytes < first.bytes ? [tradeoffOf(least, false)] : []),
    ...(second && second.bytes < least.bytes ? [tradeoffOf(second, true)] : []),
  ]
}

/** What a program comes to that is to fit into `arena` bytes; more than those where it cannot. */
export function fitted(
  lowered: Lowered,
  arena: number,
  packed?: Packed,
): Tradeoff & { recomputed: number; packed: number } {
  const way = wayWithin(lowered, arena, packed)
  const program = way?.program ?? lowered
  const plan = placed(program)
  const { arenaBytes, recomputed } = plan
  return {
    arenaBytes,
    milliseconds: millisecondsIn(program),
    twice: way?.twice ?? false,
    recomputed,
    packed: plan.packed,
  }
}
