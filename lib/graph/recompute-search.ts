import { type Model, wayBack } from './recompute-model.js'
import { holdingSome, type SecondPass } from './recompute-second.js'
import { type Choice, type Drops, NOTHING, type Outcome, phaseAt, simulate } from './recompute-simulate.js'

/** A change of the choice, with a name by which what it is worth is remembered. */
interface Move {
  readonly key: string
  /** The same for moves that can be expected to be worth about the same: those of the same value in another layer. */
  readonly like: string
  /** The choice after it; undefined where another move is the same. */
  readonly choice: () => Choice | undefined
}

const withCut = (drops: Drops, value: number, cuts: readonly number[]): Drops => new Map(drops).set(value, cuts)

/** The cuts of a value with one more; undefined where the value is touched at `time`, or is not needed after it. */
function cutAt(model: Model, state: Outcome, value: number, time: number): readonly number[] | undefined {
  const recipe = wayBack(model, state.packed, value)
  if (!recipe) return undefined
  const made = model.madeAt[value]
  let before = made <= time ? made : -1
  let after = made > time ? made : Infinity
  // The step that makes it may be able to do without.
  let touched = made === time && recipe.rest === undefined
  const see = (t: number) => {
    if (t === time) touched = true
    else if (t < time && t > before) before = t
    else if (t > time && t < after) after = t
  }
  for (const t of model.readAt[value]) see(t)
  for (const t of state.extra.get(value) ?? []) see(t)
  if (touched || before < 0 || after === Infinity) return undefined
  const cuts = state.drops.get(value)
  if (!cuts) return [before]
  // What is computed again for a reader after `time` does not live there.
  if (phaseAt(cuts, before) !== phaseAt(cuts, after)) return undefined
  return [...cuts, before].sort((a, b) => a - b)
}

/** Whether a value is touched at `time` or later; and when it is last touched before. */
function around(model: Model, { extra }: Outcome, value: number, time: number): { later: boolean; before: number } {
  let before = model.madeAt[value]
  let later = before >= time
  const see = (t: number) => {
    if (t >= time) later = true
    else if (t > before) before = t
  }
  for (const t of model.readAt[value]) see(t)
  for (const t of extra.get(value) ?? []) see(t)
  return { later, before }
}

/**
 * Drops also what `value` is computed from, where nothing but that would keep it over `time`; and so on, back to what lives there anyway.
 * Undefined where there is nothing of the kind.
 */
function closed(model: Model, state: Outcome, start: Drops, value: number, time: number): Drops | undefined {
  const drops = new Map(start)
  const stack = [value]
  let changed = false
  const back = (v: number) => wayBack(model, state.packed, v)
  while (stack.length > 0) {
    for (const u of back(stack.pop()!)!.step.reads) {
      if (!back(u)) continue
      const { later, before } = around(model, state, u, time)
      const cuts = drops.get(u) ?? []
      if (later || cuts.includes(before)) continue
      drops.set(
        u,
        [...cuts, before].sort((a, b) => a - b),
      )
      changed = true
      stack.push(u)
    }
  }
  return changed ? drops : undefined
}

/** The choice with one more value kept in fewer bits from the end of its use in the forward pass; undefined where that is not within `time`. */
function packedAt(
  model: Model,
  state: Pick<Outcome, 'drops' | 'packed' | 'extra'>,
  value: number,
  time: number,
): Choice | undefined {
  if (!model.packs.has(value) || state.drops.has(value)) return undefined
  const touches = [model.madeAt[value], ...model.readAt[value], ...(state.extra.get(value) ?? [])]
  const before = Math.max(...touches.filter((t) => t <= model.forwardEnd))
  const after = Math.min(...touches.filter((t) => t > model.forwardEnd))
  if (before >= time || after <= time) return undefined
  return { drops: new Map(state.drops).set(value, [before]), packed: new Set(state.packed).add(value) }
}

/**
 * Every value that lives at the fullest moment without being touched, given up there: alone, and with what it is computed from; and kept in fewer
 * bits, where that is allowed.
 */
function movesFrom(model: Model, state: Outcome): Move[] {
  const moves: Move[] = []
  for (let value = 0; value < model.recipes.length; value++) {
    const { packed, peakTime } = state
    const narrow = packedAt(model, state, value, peakTime)
    if (narrow) {
      const like = `packed ${model.bytes[value]}`
      moves.push({ key: `${value} packed`, like, choice: () => narrow })
    }
    const cuts = cutAt(model, state, value, peakTime)
    if (!cuts) continue
    const key = `${value}:${cuts.join()}`
    const { instruction, milliseconds } = wayBack(model, packed, value)!.step
    const like = `${instruction.op.name} ${model.bytes[value]} ${milliseconds}`
    moves.push({ key, like, choice: () => ({ drops: withCut(state.drops, value, cuts), packed }) })
    const whole = () => {
      const drops = closed(model, state, withCut(state.drops, value, cuts), value, peakTime)
      return drops && { drops, packed }
    }
    moves.push({ key: `${key} and its own`, like: `${like} and its own`, choice: whole })
  }
  return moves
}

/** Milliseconds that count for nothing: of two free moves the larger is taken. */
const FREE = 1e-3

/** Simulations of a search for one target, and of one round of many, beside one for each value: what is not found by then is not found. */
const SEARCH = 1000
const ROUND_SEARCH = 400
/** Computing more than this share of the program again, beyond what is asked for at the start, is no use. */
const MOST = 1

interface Priced {
  readonly move: Move
  readonly price: number
}

/**
 * Takes the moves that cost the least for what they take off above the target, until nothing is above it. Undefined where no move helps
 * any more.
 */
function descend(model: Model, from: Choice, target: number, simulations: number): Outcome | undefined {
  let state = simulate(model, from, target)
  let left = simulations + model.recipes.length
  const most = (state?.milliseconds ?? 0) + MOST * model.milliseconds
  // What moves cost when they were last looked at, which the moves before them change little; at first, what their like cost.
  const worth = new Map<string, number>()
  const worthOf = ({ key, like }: Move): number => worth.get(key) ?? worth.get(like) ?? -1
  while (state && state.peak > target) {
    const { excess, milliseconds } = state
    if (milliseconds > most) return undefined
    const moves = movesFrom(model, state)
    const priced: Priced[] = []
    let next = 0
    let best: Outcome | undefined
    let least = Infinity
    const look = (move: Move): boolean => {
      const choice = move.choice()
      if (choice && left-- === 0) return false
      const outcome = choice && simulate(model, choice, target)
      const gain = outcome ? excess - outcome.excess : 0
      const price = outcome && gain > 0 ? (outcome.milliseconds - milliseconds + FREE) / gain : Infinity
      worth.set(move.key, price).set(move.like, Math.min(price, worth.get(move.like) ?? Infinity))
      if (price < least) [best, least] = [outcome, price]
      return true
    }
    for (const move of moves) {
      const price = worthOf(move)
      if (price < 0 ? !look(move) : !priced.push({ move, price })) return undefined
    }
    priced.sort((a, b) => a.price - b.price)
    while (next < priced.length && priced[next].price < least) if (!look(priced[next++].move)) return undefined
    state = best
  }
  return state
}

/** The choice without some of its drops. */
function holding({ drops, packed }: Choice, values: Iterable<number>): Choice {
  const fewer = new Map(drops)
  const wide = new Set(packed)
  for (const v of values) {
    fewer.delete(v)
    wide.delete(v)
  }
  return { drops: fewer, packed: wide }
}

/** Takes back what is not needed for the target any more: of a second pass as much as there is room for, then the dearest first. */
function polished(model: Model, outcome: Outcome, target: number, gradients: readonly number[] = []): Outcome {
  let state = outcome
  const tried = (values: readonly number[]): boolean => {
    const without = simulate(model, holding(state, values), target)
    if (!without || without.peak > target || without.milliseconds > state.milliseconds) return false
    state = without
    return true
  }
  for (let at = 0, count = gradients.length; count >= 1; ) {
    count = Math.min(count, gradients.length - at)
    if (count > 0 && tried(gradients.slice(at, at + count))) at += count
    else count = count >> 1
  }
  const price = (v: number) => wayBack(model, outcome.packed, v)!.step.milliseconds
  for (const value of [...state.drops.keys()].sort((a, b) => price(b) - price(a))) {
    // What is given up for good costs nothing.
    if (state.list.some((again) => again.value === value)) tried([value])
  }
  return state
}

/** A bound that no drops get below: what an instruction touches, and what cannot be computed again. */
export function boundOf(model: Model): number {
  const change = new Float64Array(model.steps.length + 1)
  const goes = (v: number) => model.recipes[v] !== undefined || model.packs.has(v)
  model.madeAt.forEach((_, v) => {
    if (goes(v)) return
    change[model.madeAt[v]] += model.bytes[v]
    change[Math.max(model.madeAt[v], ...model.readAt[v]) + 1] -= model.bytes[v]
  })
  let kept = 0
  return model.steps.reduce((most, { reads, writes, pairs, scratch }, at) => {
    kept += change[at]
    const own = new Set([...reads, ...writes].filter(goes))
    const shared = [...new Set(pairs.map(([o]) => o))].reduce((n, v) => n + model.bytes[v], 0)
    return Math.max(most, kept + scratch + [...own].reduce((n, v) => n + model.bytes[v], 0) - shared)
  }, 0)
}

/**
 * Parts of the room above what every choice needs that are tried for gradients which are held, where the backward pass is run a second time for
 * the others: with more of them held, less of the pass is needed.
 */
const HELD = [0.75, 0.5, 0.25, 0]

/** The cheapest choice that is found with a second backward pass. */
function reach(model: Model, target: number, second: SecondPass, simulations: number): Outcome | undefined {
  const room = target - boundOf(model)
  let tried = -1
  for (const part of room < 0 ? [] : HELD) {
    const choice = holdingSome(model, second, part * room)
    if (choice.drops.size === tried) continue
    tried = choice.drops.size
    const outcome = descend(model, choice, target, simulations)
    if (outcome)
      return polished(
        model,
        outcome,
        target,
        second.gradients.filter((v) => outcome.drops.has(v)),
      )
  }
  return undefined
}

/** What one round leaves of the peak where as little as possible is asked for. */
const ROUND = { once: 0.93, twice: 0.85 }
/** The least that a round may leave is this near to all. */
const LAST = 0.98

/**
 * From nothing computed again to as little memory as can be, in rounds; each needs less memory and more time than the one before.
 * @param round share of the peak that one leaves, in (0, 1): where it is small, there are few of them
 * @param last only the first and the last of them are wanted
 */
export function* frontier(model: Model, round = ROUND.once, last = false): Generator<Outcome> {
  let state = simulate(model, NOTHING, Infinity)!
  yield state
  const bound = boundOf(model)
  let reached = Infinity
  for (let share = round; share < LAST; ) {
    const target = Math.max(bound, Math.floor(state.peak * share))
    if (target >= state.peak) break
    const next = descend(model, state, target, ROUND_SEARCH)
    if (next && next.peak < state.peak) {
      reached = target
      state = last ? next : polished(model, next, target)
      if (!last) yield state
    } else share = 1 - (1 - share) / 2
  }
  if (last && reached < Infinity) yield polished(model, state, reached)
}

/** The same with a second backward pass, from what needs less than `most` bytes on. */
export function* frontierTwice(model: Model, second: SecondPass, most: number): Generator<Outcome> {
  let peak = most
  const bound = boundOf(model)
  for (let share = ROUND.twice; share < LAST && bound < peak; ) {
    const next = reach(model, Math.max(bound, Math.floor(peak * share)), second, ROUND_SEARCH)
    if (next) {
      peak = next.peak
      yield next
    } else share = 1 - (1 - share) / 2
  }
}

/** The cheapest choice that is found whose peak is at most `target`; undefined where none is found. */
export function search(model: Model, target: number, second?: SecondPass): Outcome | undefined {
  if (target < boundOf(model)) return undefined
  if (second) return reach(model, target, second, SEARCH)
  const outcome = descend(model, NOTHING, target, SEARCH)
  return outcome && polished(model, outcome, target)
}

/** Everything that may be kept in fewer bits between the passes, kept so. */
export function allPacked(model: Model): Outcome {
  let choice = NOTHING
  for (const value of model.packs.keys()) {
    const next = packedAt(model, { ...choice, extra: new Map() }, value, model.forwardEnd + 0.5)
    if (next) choice = next
  }
  return simulate(model, choice, Infinity)!
}
