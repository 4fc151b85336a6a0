import type { Model } from './recompute-model.js'
import { type Drops, type Outcome, phaseAt, simulate } from './recompute-simulate.js'

/** A change of the drops, with a name by which what it is worth is remembered. */
interface Move {
  readonly key: string
  /** The same for moves that can be expected to be worth about the same: those of the same value in another layer. */
  readonly like: string
  /** The drops after it; undefined where another move is the same. */
  readonly drops: () => Drops | undefined
}

/** The drops with one more cut; undefined where the value is touched at `time`, or is not needed after it. */
function cutAt(model: Model, state: Outcome, drops: Drops, value: number, time: number): Drops | undefined {
  const recipe = model.recipes[value]
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
  const cuts = drops.get(value)
  // What is computed again for a reader after `time` does not live there.
  if (cuts && phaseAt(cuts, before) !== phaseAt(cuts, after)) return undefined
  return new Map(drops).set(
    value,
    [...(cuts ?? []), before].sort((a, b) => a - b),
  )
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
  while (stack.length > 0) {
    for (const u of model.recipes[stack.pop()!]!.step.reads) {
      if (!model.recipes[u]) continue
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

/** Every value that lives at the fullest moment without being touched, given up there: alone, and with what it is computed from. */
function movesFrom(model: Model, state: Outcome): Move[] {
  const moves: Move[] = []
  for (let value = 0; value < model.recipes.length; value++) {
    const alone = cutAt(model, state, state.drops, value, state.peakTime)
    if (!alone) continue
    const key = `${value}:${alone.get(value)!.join()}`
    const { instruction, milliseconds } = model.recipes[value]!.step
    const like = `${instruction.op.name} ${model.bytes[value]} ${milliseconds}`
    moves.push({ key, like, drops: () => alone })
    const whole = () => closed(model, state, alone, value, state.peakTime)
    moves.push({ key: `${key} and its own`, like: `${like} and its own`, drops: whole })
  }
  return moves
}

/** Milliseconds that count for nothing: of two free moves the larger is taken. */
const FREE = 1e-3

/** Simulations of a search for one target, and of one round of many, beside one for each value: what is not found by then is not found. */
const SEARCH = 1000
const ROUND_SEARCH = 400
/** Computing more than this share of the program again is no use. */
const MOST = 1

/**
 * Takes the moves that cost the least for what they take off above the target, until nothing is above it. Undefined where no move helps
 * any more.
 */
function descend(model: Model, from: Drops, target: number, simulations: number): Outcome | undefined {
  let state = simulate(model, from, target)
  let left = simulations + model.recipes.length
  // What moves cost when they were last looked at, which the moves before them change little; at first, what their like cost.
  const worth = new Map<string, number>()
  const worthOf = ({ key, like }: Move): number => worth.get(key) ?? worth.get(like) ?? -1
  while (state && state.peak > target) {
    const { excess, milliseconds } = state
    if (milliseconds > MOST * model.milliseconds) return undefined
    const moves = new Set(movesFrom(model, state))
    let best: Outcome | undefined
    let least = Infinity
    while (moves.size > 0) {
      let move: Move | undefined
      for (const m of moves) if (!move || worthOf(m) < worthOf(move)) move = m
      if (!move || worthOf(move) >= least) break
      moves.delete(move)
      const drops = move.drops()
      if (drops && left-- === 0) return undefined
      const outcome = drops && simulate(model, drops, target)
      const gain = outcome ? excess - outcome.excess : 0
      const price = outcome && gain > 0 ? (outcome.milliseconds - milliseconds + FREE) / gain : Infinity
      worth.set(move.key, price).set(move.like, Math.min(price, worth.get(move.like) ?? Infinity))
      if (price < least) [best, least] = [outcome, price]
    }
    state = best
  }
  return state
}

/** Takes back what is not needed for the target any more, the dearest first. */
function polished(model: Model, outcome: Outcome, target: number): Outcome {
  let state = outcome
  const price = (v: number) => model.recipes[v]!.step.milliseconds
  for (const value of [...state.drops.keys()].sort((a, b) => price(b) - price(a))) {
    const drops = new Map(state.drops)
    drops.delete(value)
    const without = simulate(model, drops, target)
    if (without && without.peak <= target && without.milliseconds <= state.milliseconds) state = without
  }
  return state
}

/** A bound that no drops get below: what an instruction touches, and what cannot be computed again. */
function boundOf(model: Model): number {
  const change = new Float64Array(model.steps.length + 1)
  model.recipes.forEach((recipe, v) => {
    if (recipe) return
    change[model.madeAt[v]] += model.bytes[v]
    change[Math.max(model.madeAt[v], ...model.readAt[v]) + 1] -= model.bytes[v]
  })
  let kept = 0
  return model.steps.reduce((most, { reads, writes, pairs, scratch }, at) => {
    kept += change[at]
    const own = new Set([...reads, ...writes].filter((v) => model.recipes[v]))
    const shared = [...new Set(pairs.map(([o]) => o))].reduce((n, v) => n + model.bytes[v], 0)
    return Math.max(most, kept + scratch + [...own].reduce((n, v) => n + model.bytes[v], 0) - shared)
  }, 0)
}

/** Share of the peak that one round takes off where as little as possible is asked for. */
const ROUND = 0.93

/** From nothing computed again to as little memory as can be, in rounds; each needs less memory and more time than the one before. */
export function* frontier(model: Model): Generator<Outcome> {
  let state = simulate(model, new Map(), Infinity)!
  yield state
  const bound = boundOf(model)
  for (let share = ROUND; share < 0.98; ) {
    const target = Math.max(bound, Math.floor(state.peak * share))
    if (target >= state.peak) return
    const next = descend(model, state.drops, target, ROUND_SEARCH)
    if (next && next.peak < state.peak) {
      state = polished(model, next, target)
      yield state
    } else share = 1 - (1 - share) / 2
  }
}

/** The cheapest choice that is found whose peak is at most `target`; undefined where none is found. */
export function search(model: Model, target: number): Outcome | undefined {
  if (target < boundOf(model)) return undefined
  const outcome = descend(model, new Map(), target, SEARCH)
  return outcome && polished(model, outcome, target)
}
