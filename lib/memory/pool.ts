import { cast, where } from '../ops/elementwise.js'
import { full } from '../ops/shape.js'
import type { Entry, Slots } from '../optim/base.js'
import type { OptimizerState } from '../optim/optimizer.js'
import { type Shape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Window } from '../transform/revise.js'

/** Windows begin at multiples of this many elements, so that vectors are aligned. */
const GRAIN = 64

/** Elements that a window of so many takes. */
export const grains = (size: number): number => Math.ceil(size / GRAIN) * GRAIN

/** A state that a parameter has while it is moved. */
interface Lodger {
  readonly slot: string
  /** The pool that it is in. */
  readonly pool: string
  readonly shape: Shape
  readonly first: Tensor
}

/** The name of the pool of a dtype among the parameters of a slot. */
const poolName = (dtype: string): string => `pool.${dtype}`

/**
 * Memory that parameters share for the states of their rule: only those that are moved at a step have theirs. A slot has a long tensor per dtype;
 * where a parameter's states begin is the business of the method.
 */
export class Pool {
  private readonly lodgers: Map<string, Lodger[]>

  /** @param states first states of a parameter, by slot */
  constructor(entries: readonly Entry[], states: (entry: Entry) => Readonly<Record<string, Tensor>>) {
    this.lodgers = new Map(
      entries.map((entry) => [
        entry.name,
        Object.entries(states(entry)).map(([slot, t]) => ({ slot, pool: poolName(t.dtype), shape: t.shape, first: t })),
      ]),
    )
  }

  /** Slots and pools that there are. */
  private get pools(): Map<string, Tensor> {
    const all = [...this.lodgers.values()].flat()
    return new Map(all.map(({ slot, pool, first }) => [`${slot} ${pool}`, first]))
  }

  /** Elements that the states of each parameter take, by slot and pool. */
  sizes(name: string): Record<string, number> {
    return Object.fromEntries(
      (this.lodgers.get(name) ?? []).map((l) => [`${l.slot} ${l.pool}`, grains(sizeOf(l.shape))]),
    )
  }

  /** Pools that are long enough: `capacity` of the sizes, by parameter, of one of them. */
  init(capacity: (sizes: ReadonlyMap<string, number>) => number): Slots {
    const slots: Slots = {}
    for (const [key, first] of this.pools) {
      const [slot, pool] = key.split(' ')
      const sizes = new Map([...this.lodgers.keys()].map((name) => [name, this.sizes(name)[key] ?? 0]))
      ;(slots[slot] ??= {})[pool] = full([capacity(sizes)], 0, first.dtype)
    }
    return slots
  }

  /** The states of a parameter as windows; `at` says where in a slot's pool they begin. */
  windows(name: string, slots: OptimizerState['slots'], at: (key: string) => Tensor): Window[] {
    return (this.lodgers.get(name) ?? []).map(({ slot, pool, shape }) => ({
      of: slots[slot][pool],
      at: at(`${slot} ${pool}`),
      shape,
    }))
  }

  /** The states of a parameter by slot, from their windows; first ones where `fresh` is not zero. */
  states(name: string, windows: readonly Tensor[], fresh: Tensor): Record<string, Tensor> {
    const own = this.lodgers.get(name) ?? []
    return Object.fromEntries(
      own.map(({ slot, first }, i) => [slot, where(fresh, cast(first, windows[i].dtype), windows[i])]),
    )
  }

  /** Slot names of a parameter, in the order of its windows. */
  slotsOf(name: string): string[] {
    return (this.lodgers.get(name) ?? []).map((l) => l.slot)
  }

  /** `slots` with pools in the place of those that the windows of a parameter are of. */
  put(name: string, slots: Slots, pools: readonly Tensor[]): void {
    ;(this.lodgers.get(name) ?? []).forEach(({ slot, pool }, i) => (slots[slot] = { ...slots[slot], [pool]: pools[i] }))
  }
}
