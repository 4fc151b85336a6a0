import { type Model, wayBack } from './recompute-model.js'
import { type Choice, type Drops, NOTHING, type Outcome, phaseAt, simulate } from './recompute-simulate.js'

/** A change of the choice, with a name by which what it is worth is remembered. */
interface Move {
  readonly key: string
  /** The same for moves that can be expected to be worth about the same: those of the same value in another layer. */
  readonly like: string
  /** The choice after it; undefined where another move is the same. */
  readonly choice: () => Choice | undefined
}

/** The drops with one more cut; undefined where the value is touched at `time`, or is not needed after it. */
function cutAt(model: Model, state: Outcome, drops: Drops, value: number, time: number): Drops | undefined {
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
    const alone = cutAt(model, state, state.drops, value, peakTime)
    if (!alone) continue
    const key = `${value}:${alone.get(value)!.join()}`
    const { instruction, milliseconds } = wayBack(model, packed, value)!.step
    const like = `${instruction.op.name} ${model.bytes[value]} ${milliseconds}`
    moves.push({ key, like, choice: () => ({ drops: alone, packed }) })
    const whole = () => {
      const drops = closed(model, state, alone, value, peakTime)
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
/** Computing more than this share of the program again is no use. */
const MOST = 1

/**
 * Takes the moves that cost the least for what they take off above the target, until nothing is above it. Undefined where no move helps
 * any more.
 */
function descend(model: Model, from: Choice, target: number, simulations: number): Outcome | undefined {
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
      const choice = move.choice()
      if (choice && left-- === 0) return undefined
      const outcome = choice && simulate(model, choice, target)
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
  const price = (v: number) => wayBack(model, outcome.packed, v)!.step.milliseconds
  for (const value of [...state.drops.keys()].sort((a, b) => price(b) - price(a))) {
    const drops = new Map(state.drops)
    drops.delete(value)
    const packed = new Set(state.packed)
    packed.delete(value)
    const without = simulate(model, { drops, packed }, target)
    if (without && without.peak <= target && without.milliseconds <= state.milliseconds) state = without
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

/** What one round leaves of the peak where as little as possible is asked for. */
const ROUND = 0.93

/**
 * From nothing computed again to as little memory as can be, in rounds; each needs less memory and more time than the one before.
 * @param round share of the peak that one leaves, in (0, 1): where it is small, there are few of them
 */
export function* frontier(model: Model, round = ROUND): Generator<Outcome> {
  let state = simulate(model, NOTHING, Infinity)!
  yield state
  const bound = boundOf(model)
  for (let share = round; share < 0.98; ) {
    const target = Math.max(bound, Math.floor(state.peak * share))
    if (target >= state.peak) return
    const next = descend(model, state, target, ROUND_SEARCH)
    if (next && next.peak < state.peak) {
      state = polished(model, next, target)
      yield state
    } else share = 1 - (1 - share) / 2
  }
}

/** The cheapest choice that is found whose peak is at most `target`; undefined where none is found. */
export function search(model: Model, target: number): Outcome | undefined {
  if (target < boundOf(model)) return undefined
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
