import { millisecondsOf } from './cost.js'
import { type Buf, type Instruction, type Lowered, newBuf, type Operand } from './instruction.js'
import { placed } from './place.js'
import { type Model, modelOf } from './recompute-model.js'
import type { Packed } from './recompute-pack.js'
import { allPacked, boundOf, frontier, search } from './recompute-search.js'
import { type Outcome, phaseAt } from './recompute-simulate.js'

/** The program that an outcome stands for. */
export function rewritten(lowered: Lowered, model: Model, { drops, turns }: Outcome): Lowered {
  const numbers = new Map(model.bufs.map((buf, v) => [buf, v]))
  /** What stands for a value now, by phase. */
  const places = new Map<number, Buf[]>()
  const instructions = turns.map(({ step, time, again }): Instruction => {
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

/**
 * Recomputation: gives up values after a reader and computes them again before the next, until the arena fits into `arena` bytes (or needs
 * as little as was found). Chosen by time lost for bytes saved at the fullest moment, under the liveness of the whole program: forward,
 * backward and update together. What is computed again is the same instruction on the same operands, so no number changes.
 *
 * Where `packed` allows it, activations are kept in fewer bits between the passes too: the gradients are then others.
 *
 * The problem is that of Checkmate (Jain et al. 2020); the search is greedy with re-simulation, as thousands of instructions are to be
 * planned in well under a second.
 */
export function recompute(lowered: Lowered, arena: number, packed?: Packed): Lowered {
  if (placed(lowered).arenaBytes <= arena) return lowered
  const model = modelOf(lowered, packed)
  let best: { bytes: number; program: Lowered } | undefined
  const fits = (outcome: Outcome): boolean => {
    const program = rewritten(lowered, model, outcome)
    const bytes = placed(program).arenaBytes
    if (!best || bytes < best.bytes) best = { bytes, program }
    return bytes <= arena
  }
  let target = arena
  for (let round = 0; round < ROUNDS && target > 0; round++) {
    const outcome = search(model, target)
    if (!outcome) break
    if (fits(outcome)) return best!.program
    target -= best!.bytes - arena
  }
  // Neither way down is always the better one.
  for (const round of [undefined, HASTY]) {
    for (const outcome of frontier(model, round)) if (fits(outcome)) return best!.program
  }
  return best!.program
}

/** Keeps everything that may be kept in fewer bits between the passes so, whether or not there is memory for more. */
export function packAll(lowered: Lowered, packed: Packed): Lowered {
  const model = modelOf(lowered, packed)
  return model.packs.size > 0 ? rewritten(lowered, model, allPacked(model)) : lowered
}

/** Bytes that no choice of what is given up gets below. */
export const leastArena = (lowered: Lowered, packed?: Packed): number => boundOf(modelOf(lowered, packed))

/** A point of the curve of time against memory. */
export interface Tradeoff {
  readonly arenaBytes: number
  /** Time that the program is expected to take, what is computed again included. */
  readonly milliseconds: number
}

const millisecondsIn = (lowered: Lowered): number => lowered.instructions.reduce((n, i) => n + millisecondsOf(i), 0)

const tradeoffOf = (lowered: Lowered, model: Model, outcome: Outcome): Tradeoff => ({
  arenaBytes: placed(rewritten(lowered, model, outcome)).arenaBytes,
  milliseconds: model.milliseconds + outcome.milliseconds,
})

/** What recomputation can buy: from nothing computed again to as little memory as can be. */
export function tradeoffs(lowered: Lowered, packed?: Packed): Tradeoff[] {
  const model = modelOf(lowered, packed)
  return [...frontier(model)].map((outcome) => tradeoffOf(lowered, model, outcome))
}

/** The two ends of the curve: nothing computed again, and about as little memory as can be. */
export function ends(lowered: Lowered, packed?: Packed): Tradeoff[] {
  const model = modelOf(lowered, packed)
  const all = [...frontier(model, HASTY)]
  return [all[0], ...all.slice(1).slice(-1)].map((outcome) => tradeoffOf(lowered, model, outcome))
}

/** What a program comes to that is to fit into `arena` bytes; more than those where it cannot. */
export function fitted(
  lowered: Lowered,
  arena: number,
  packed?: Packed,
): Tradeoff & { recomputed: number; packed: number } {
  const program = recompute(lowered, arena, packed)
  const plan = placed(program)
  const { arenaBytes, recomputed } = plan
  return { arenaBytes, milliseconds: millisecondsIn(program), recomputed, packed: plan.packed }
}
