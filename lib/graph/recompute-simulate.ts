import { type Model, type Step, wayBack } from './recompute-model.js'

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
  readonly turns: readonly Turn[]
  /** Reads of dropped values' operands by recomputations, by value. */
  readonly extra: ReadonlyMap<number, readonly number[]>
}

interface Again {
  value: number
  time: number
  phase: number
}

/** The recomputations that drops need, in the order in which they are run; undefined where one comes too late. */
function recomputations(
  model: Model,
  { drops, packed }: Choice,
): { list: Again[]; extra: Map<number, number[]> } | undefined {
  const extra = new Map<number, number[]>()
  const list: Again[] = []
  const back = (v: number) => wayBack(model, packed, v)!
  const rank = (v: number) => back(v).rank
  // From the last made to the first: what computes a value again reads only earlier ones.
  const values = [...drops.keys()].sort((a, b) => rank(b) - rank(a))
  for (const value of values) {
    const cuts = drops.get(value)!
    const first = new Array<number>(cuts.length + 1).fill(Infinity)
    const see = (time: number) => {
      const phase = phaseAt(cuts, time)
      if (time < first[phase]) first[phase] = time
    }
    model.readAt[value].forEach(see)
    extra.get(value)?.forEach(see)
    const recipe = back(value)
    for (let phase = 1; phase < first.length; phase++) {
      const time = first[phase]
      if (time === Infinity) continue
      // The forward pass reads no approximation.
      if (time > recipe.until || (packed.has(value) && time <= model.forwardEnd)) return undefined
      list.push({ value, time, phase })
      for (const u of recipe.step.reads) {
        const known = extra.get(u)
        if (known) known.push(time)
        else extra.set(u, [time])
      }
    }
  }
  list.sort((a, b) => a.time - b.time || rank(a.value) - rank(b.value))
  return { list, extra }
}

/**
 * Runs through the program with the values of `drops` computed again, under the rules of the plan: what lives when, in place where the
 * last reader writes. Undefined where something would be computed again from what is overwritten.
 */
export function simulate(model: Model, choice: Choice, target: number): Outcome | undefined {
  const { drops, packed } = choice
  const needed = recomputations(model, choice)
  if (!needed) return undefined
  const { list, extra } = needed
  const bytes: number[] = [...model.bytes]
  const places = new Map<number, number[]>()
  const placeOf = (value: number, time: number): number => {
    const cuts = drops.get(value)
    const phase = cuts ? phaseAt(cuts, time) : 0
    return phase === 0 ? value : places.get(value)![phase]
  }
  const turns: Turn[] = []
  const reads: (readonly number[])[] = []
  const writes: (readonly number[])[] = []
  const pairs: (readonly (readonly [number, number])[])[] = []
  let milliseconds = 0
  const push = (turn: Turn, own?: ReadonlyMap<number, number>) => {
    const { step, time } = turn
    turns.push(turn)
    const written = (v: number) => own?.get(v) ?? v
    // Most of a program is as it was: nothing is made for it, since this runs a thousand times.
    const same = own === undefined && !step.reads.some((v) => drops.has(v))
    const read = (v: number) => placeOf(v, time)
    reads.push(same ? step.reads : step.reads.map(read))
    writes.push(own ? step.writes.map(written) : step.writes)
    pairs.push(same ? step.pairs : step.pairs.map(([o, i]) => [written(o), read(i)] as const))
  }
  // What is not read before it is computed again is not made the first time, where the step that makes it can do without.
  const rests = new Map<number, Step | null>()
  /** Values to be packed after a step. */
  const packing = new Map<number, number[]>()
  for (const [value, cuts] of drops) {
    if (packed.has(value)) {
      packing.set(cuts[0], [...(packing.get(cuts[0]) ?? []), value])
      continue
    }
    const { rest } = model.recipes[value]!
    const time = model.madeAt[value]
    if (rest === undefined || cuts[0] !== time || rests.has(time)) continue
    rests.set(time, rest)
    milliseconds += (rest?.milliseconds ?? 0) - model.steps[time].milliseconds
  }
  let next = 0
  model.steps.forEach((step, time) => {
    for (; next < list.length && list[next].time === time; next++) {
      const { value, phase } = list[next]
      const own = new Map<number, number>()
      const recipe = wayBack(model, packed, value)!
      for (const v of recipe.step.writes) own.set(v, bytes.push(model.bytes[v]) - 1)
      let at = places.get(value)
      if (!at) places.set(value, (at = []))
      at[phase] = own.get(value)!
      milliseconds += recipe.step.milliseconds
      push({ step: recipe.step, time, again: value }, own)
    }
    const own = rests.has(time) ? rests.get(time) : step
    if (own) push({ step: own, time })
    for (const value of packing.get(time) ?? []) {
      const { pack } = model.packs.get(value)!
      milliseconds += pack.milliseconds
      push({ step: pack, time })
    }
  })
  const { peak, at, excess } = measure(turns, bytes, reads, writes, pairs, target)
  return { drops, packed, peak, peakTime: turns[at].time, excess, milliseconds, turns, extra }
}

function measure(
  turns: readonly Turn[],
  bytes: readonly number[],
  reads: readonly (readonly number[])[],
  writes: readonly (readonly number[])[],
  pairs: readonly (readonly (readonly [number, number])[])[],
  target: number,
): { peak: number; at: number; excess: number } {
  const count = bytes.length
  const first = new Int32Array(count).fill(-1)
  const last = new Int32Array(count).fill(-1)
  const into = new Int32Array(count).fill(-1)
  for (let at = 0; at < turns.length; at++) {
    for (const v of writes[at]) {
      if (first[v] < 0) first[v] = at
      last[v] = at
    }
    for (const v of reads[at]) last[v] = at
  }
  const root = (v: number): number => {
    let at = v
    while (into[at] >= 0) at = into[at]
    return at
  }
  for (let at = 0; at < turns.length; at++) {
    const used: number[] = []
    for (const [o, i] of pairs[at]) {
      const to = root(o)
      const from = root(i)
      if (from === to || first[to] !== at || last[from] !== at || used.includes(from) || used.includes(to)) continue
      into[to] = from
      last[from] = Math.max(last[from], last[to])
      used.push(from, to)
    }
  }
  const change = new Float64Array(turns.length + 1)
  for (let v = 0; v < count; v++) {
    if (first[v] < 0 || into[v] >= 0) continue
    change[first[v]] += bytes[v]
    change[last[v] + 1] -= bytes[v]
  }
  let live = 0
  let peak = -1
  let peakAt = 0
  let excess = 0
  for (let at = 0; at < turns.length; at++) {
    live += change[at]
    const now = live + turns[at].step.scratch
    if (now > peak) {
      peak = now
      peakAt = at
    }
    if (now > target) excess += now - target
  }
  return { peak, at: peakAt, excess }
}
