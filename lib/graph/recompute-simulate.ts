import type { Model, Step } from './recompute-model.js'

/**
 * Which values are given up, and when: by number of the value, the steps after which it is gone until a later one reads it, which
 * finds it computed again. In order.
 */
export type Drops = ReadonlyMap<number, readonly number[]>

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
export interface Outcome {
  readonly drops: Drops
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
function recomputations(model: Model, drops: Drops): { list: Again[]; extra: Map<number, number[]> } | undefined {
  const extra = new Map<number, number[]>()
  const list: Again[] = []
  const rank = (v: number) => model.recipes[v]!.rank
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
    const recipe = model.recipes[value]!
    for (let phase = 1; phase < first.length; phase++) {
      const time = first[phase]
      if (time === Infinity) continue
      if (time > recipe.until) return undefined
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
export function simulate(model: Model, drops: Drops, target: number): Outcome | undefined {
  const needed = recomputations(model, drops)
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
  const reads: number[][] = []
  const writes: number[][] = []
  const pairs: (readonly [number, number])[][] = []
  let milliseconds = 0
  const push = (turn: Turn, written: (v: number) => number) => {
    turns.push(turn)
    const read = (v: number) => placeOf(v, turn.time)
    reads.push(drops.size === 0 ? (turn.step.reads as number[]) : turn.step.reads.map(read))
    writes.push(turn.step.writes.map(written))
    pairs.push(turn.step.pairs.map(([o, i]) => [written(o), read(i)] as const))
  }
  // What is not read before it is computed again is not made the first time, where the step that makes it can do without.
  const rests = new Map<number, Step | null>()
  for (const [value, cuts] of drops) {
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
      const recipe = model.recipes[value]!
      for (const v of recipe.step.writes) own.set(v, bytes.push(model.bytes[v]) - 1)
      let at = places.get(value)
      if (!at) places.set(value, (at = []))
      at[phase] = own.get(value)!
      milliseconds += recipe.step.milliseconds
      push({ step: recipe.step, time, again: value }, (v) => own.get(v)!)
    }
    const own = rests.has(time) ? rests.get(time) : step
    if (own) push({ step: own, time }, (v) => v)
  })
  const { peak, at, excess } = measure(turns, bytes, reads, writes, pairs, target)
  return { drops, peak, peakTime: turns[at].time, excess, milliseconds, turns, extra }
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
