import { type Model, type Recipe, type Step, wayBack } from './recompute-model.js'

/**
 * Which values are given up, and when: by number of the value, the steps after which it is gone until a later one reads it, which
 * finds it computed again. In order.
 */
export type Drops = ReadonlyMap<number, readonly number[]>

/** What is done about a program's memory. */
export interface Choice {
  readonly drops: Drops
  /** Those of the values given up that are kept in fewer bits; the others are computed again. */
  readonly packed: ReadonlySet<number>
}

export const NOTHING: Choice = { drops: new Map(), packed: new Set() }

/** The place of a value among those that take turns for it: 0 is the one that the program makes. */
export const phaseAt = (cuts: readonly number[] | undefined, time: number): number => {
  let phase = 0
  if (cuts) while (phase < cuts.length && cuts[phase] < time) phase++
  return phase
}

/** One instruction of a program with recomputation. */
export interface Turn {
  readonly step: Step
  /** The step of the program that it is, or before which it is run. */
  readonly time: number
  /** The value that is computed again. */
  readonly again?: number
}

/** What a choice of drops comes to. */
export interface Outcome extends Choice {
  /** Most bytes that live at once. */
  readonly peak: number
  /** The step at which they do. */
  readonly peakTime: number
  /** Bytes above the target, summed over instructions. */
  readonly excess: number
  /** Milliseconds that are computed again. */
  readonly milliseconds: number
  /** Reads of dropped values' operands by recomputations, by value. */
  readonly extra: ReadonlyMap<number, readonly number[]>
  /** What is computed again, in order. */
  readonly list: readonly Again[]
}

interface Again {
  readonly value: number
  /** The step before which it is run. */
  readonly time: number
  readonly phase: number
  readonly recipe: Recipe
}

/** The recomputations that drops need, in the order in which they are run; undefined where one comes too late. */
function recomputations(
  model: Model,
  { drops, packed }: Choice,
): { list: Again[]; extra: Map<number, number[]> } | undefined {
  const extra = new Map<number, number[]>()
  const list: Again[] = []
  const dropped: { value: number; cuts: readonly number[]; recipe: Recipe }[] = []
  for (const [value, cuts] of drops) dropped.push({ value, cuts, recipe: wayBack(model, packed, value)! })
  // From the last made to the first: what computes a value again reads only earlier ones.
  dropped.sort((a, b) => b.recipe.rank - a.recipe.rank)
  for (const { value, cuts, recipe } of dropped) {
    const own = model.readAt[value]
    const others = extra.get(value)
    for (let phase = 1; phase <= cuts.length; phase++) {
      const from = cuts[phase - 1]
      const to = phase < cuts.length ? cuts[phase] : Infinity
      let first = Infinity
      for (let i = 0; i < own.length; i++) if (own[i] > from && own[i] <= to && own[i] < first) first = own[i]
      if (others)
        for (let i = 0; i < others.length; i++)
          if (others[i] > from && others[i] <= to && others[i] < first) first = others[i]
      if (first === Infinity) continue
      // Before it is needed where what it is computed from is overwritten by then.
      const time = Math.min(first, recipe.until)
      // The forward pass reads no approximation.
      if (time <= from || (packed.has(value) && time <= model.forwardEnd)) return undefined
      list.push({ value, time, phase, recipe })
      for (const u of recipe.step.reads) {
        const known = extra.get(u)
        if (known) known.push(time)
        else extra.set(u, [time])
      }
    }
  }
  list.sort((a, b) => a.time - b.time || a.recipe.rank - b.recipe.rank)
  return { list, extra }
}

/** What is run in the place of steps that make what is not read before it is computed again, by step; null for nothing. */
function restsOf(model: Model, { drops, packed }: Choice): Map<number, Step | null> {
  const rests = new Map<number, Step | null>()
  for (const [value, cuts] of drops) {
    if (packed.has(value)) continue
    const { rest } = model.recipes[value]!
    const time = model.madeAt[value]
    if (rest !== undefined && cuts[0] === time && !rests.has(time)) rests.set(time, rest)
  }
  return rests
}

/** Values to be packed after a step. */
function packingOf({ drops, packed }: Choice): Map<number, number[]> {
  const packing = new Map<number, number[]>()
  for (const value of packed) {
    const at = drops.get(value)![0]
    packing.set(at, [...(packing.get(at) ?? []), value])
  }
  return packing
}

/** The program with the values of a choice computed again, whose outcome there is. */
export function turnsOf(model: Model, choice: Choice): Turn[] {
  const { list } = recomputations(model, choice)!
  const rests = restsOf(model, choice)
  const packing = packingOf(choice)
  const turns: Turn[] = []
  let next = 0
  model.steps.forEach((step, time) => {
    for (; next < list.length && list[next].time === time; next++) {
      turns.push({ step: list[next].recipe.step, time, again: list[next].value })
    }
    const own = rests.has(time) ? rests.get(time) : step
    if (own) turns.push({ step: own, time })
    for (const value of packing.get(time) ?? []) turns.push({ step: model.packs.get(value)!.pack, time })
  })
  return turns
}

/** Arrays for a simulation, of which there are thousands: made once, and larger when they have to be. */
class Scratch {
  /** By value; those that are computed again come after the program's own. */
  bytes = new Float64Array(0)
  first = new Int32Array(0)
  last = new Int32Array(0)
  into = new Int32Array(0)
  used = new Int32Array(0)
  /** By value of the program: where its places begin among `places`; −1 where it is not given up. */
  dropAt = new Int32Array(0)
  places = new Int32Array(0)
  /** By turn. */
  times = new Int32Array(0)
  scratch = new Float64Array(0)
  change = new Float64Array(0)

  fit(model: Model, places: number, again: number): void {
    const values = model.bytes.length + again
    const turns = model.steps.length + again + model.packs.size + 1
    if (this.bytes.length < values) {
      this.bytes = new Float64Array(2 * values)
      for (const name of ['first', 'last', 'into', 'used', 'dropAt'] as const) this[name] = new Int32Array(2 * values)
    }
    if (this.places.length < places) this.places = new Int32Array(2 * places)
    if (this.times.length < turns) {
      this.times = new Int32Array(2 * turns)
      this.scratch = new Float64Array(2 * turns)
      this.change = new Float64Array(2 * turns)
    }
    for (const a of [this.first, this.last, this.into, this.used]) a.fill(-1, 0, values)
    this.dropAt.fill(-1, 0, model.bytes.length)
  }
}

const scratch = new Scratch()

/**
 * Runs through the program with the values of `drops` computed again, under the rules of the plan: what lives when, in place where the
 * last reader writes. Undefined where something would be computed again from what is overwritten.
 */
export function simulate(model: Model, choice: Choice, target: number): Outcome | undefined {
  const { drops, packed } = choice
  const needed = recomputations(model, choice)
  if (!needed) return undefined
  const { list, extra } = needed
  const rests = restsOf(model, choice)
  const packing = packingOf(choice)
  let places = 0
  for (const cuts of drops.values()) places += cuts.length + 1
  let made = 0
  for (const { recipe } of list) made += recipe.step.writes.length
  scratch.fit(model, places, Math.max(made, list.length))
  const { bytes, first, last, into, used, dropAt, times, change } = scratch
  for (let v = 0; v < model.bytes.length; v++) bytes[v] = model.bytes[v]
  places = 0
  for (const [v, cuts] of drops) {
    dropAt[v] = places
    scratch.places[places] = v
    places += cuts.length + 1
  }
  let values = model.bytes.length
  let turns = 0
  let milliseconds = 0
  /** Three numbers each: the turn, and two values of which the one may take the place of the other. */
  const pairs: number[] = []
  const placeOf = (v: number, time: number): number => {
    const at = dropAt[v]
    return at < 0 ? v : scratch.places[at + phaseAt(drops.get(v), time)]
  }
  /** @param own number of what the step writes first, where that is made anew; the others follow */
  const push = (step: Step, time: number, own: number): void => {
    const { reads, writes } = step
    for (let i = 0; i < writes.length; i++) {
      const v = own < 0 ? writes[i] : own + i
      if (first[v] < 0) first[v] = turns
      last[v] = turns
    }
    for (let i = 0; i < reads.length; i++) last[placeOf(reads[i], time)] = turns
    for (const [o, i] of step.pairs) pairs.push(turns, own < 0 ? o : own + writes.indexOf(o), placeOf(i, time))
    times[turns] = time
    scratch.scratch[turns++] = step.scratch
  }
  let next = 0
  for (let time = 0; time < model.steps.length; time++) {
    for (; next < list.length && list[next].time === time; next++) {
      const { value, phase, recipe } = list[next]
      const { writes, milliseconds: takes } = recipe.step
      const own = values
      for (const v of writes) {
        if (v === value) scratch.places[dropAt[value] + phase] = values
        bytes[values++] = model.bytes[v]
      }
      milliseconds += takes
      push(recipe.step, time, own)
    }
    const rest = rests.get(time)
    if (rest === undefined) push(model.steps[time], time, -1)
    else {
      milliseconds += (rest?.milliseconds ?? 0) - model.steps[time].milliseconds
      if (rest) push(rest, time, -1)
    }
    const packs = packing.get(time)
    if (!packs) continue
    for (const value of packs) {
      const { pack } = model.packs.get(value)!
      milliseconds += pack.milliseconds
      push(pack, time, -1)
    }
  }

  const root = (v: number): number => {
    let at = v
    while (into[at] >= 0) at = into[at]
    return at
  }
  for (let p = 0; p < pairs.length; p += 3) {
    const at = pairs[p]
    const to = root(pairs[p + 1])
    const from = root(pairs[p + 2])
    if (from === to || first[to] !== at || last[from] !== at || used[from] === at || used[to] === at) continue
    into[to] = from
    last[from] = Math.max(last[from], last[to])
    used[from] = at
    used[to] = at
  }
  change.fill(0, 0, turns + 1)
  for (let v = 0; v < values; v++) {
    if (first[v] < 0 || into[v] >= 0) continue
    change[first[v]] += bytes[v]
    change[last[v] + 1] -= bytes[v]
  }
  let live = 0
  let peak = -1
  let peakAt = 0
  let excess = 0
  for (let at = 0; at < turns; at++) {
    live += change[at]
    const now = live + scratch.scratch[at]
    if (now > peak) {
      peak = now
      peakAt = at
    }
    if (now > target) excess += now - target
  }
  return { drops, packed, peak, peakTime: times[peakAt], excess, milliseconds, extra, list }
}
