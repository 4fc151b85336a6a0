import {
  add,
  cast,
  div,
  equal,
  floor,
  less,
  logicalNot,
  logicalOr,
  minimum,
  mul,
  sub,
  where,
} from '../ops/elementwise.js'
import { arange, concat } from '../ops/assemble.js'
import { cumsum } from '../ops/reduce.js'
import { random } from '../ops/random.js'
import { argsort } from '../ops/sort.js'
import { full, reshape, scalar, slice, zeros } from '../ops/shape.js'
import {
  argument,
  type Entry,
  makeOptimizer,
  type Mover,
  type Operands,
  oneByOne,
  type Parts,
  type Slots,
  slotsInOrder,
  type Together,
} from '../optim/base.js'
import type { Optimizer } from '../optim/optimizer.js'
import type { Tensor } from '../tensor/tensor.js'
import { revise } from '../transform/revise.js'
import { roundEven, stateless } from './frugal-rest.js'
import { taker, type Match } from './options.js'
import { Pool } from './pool.js'
import { AGE, applier, argsWith, constantKey, gradOf, wideOf } from './small.js'
import { type Inner, innerOf, wrapped } from './wrap.js'

/** In which order tensors have their turn: at random, by their place among the parameters, or there and back. */
export type BlockOrder = 'random' | 'ascending' | 'descending' | 'mirror'

/** @internal Options of FRUGAL by blocks, complete and checked. */
export interface BlockOptions {
  readonly density: number
  readonly updateGap: number
  readonly order: BlockOrder
  readonly outside: 'signSgd' | 'sgd' | 'none'
  readonly lrScale: number
  readonly outsideLrScale: number
  readonly reset: boolean
  readonly match: Match | undefined
  readonly seed: number
}

/** @internal Which tensors are active, uint8 [tensors], in the place of those that the order says. */
export type GivenActive = (names: readonly string[]) => Tensor

interface BlockMover extends Mover {
  readonly inner: Inner
  readonly apply: Mover
}

const int = (t: Tensor): Tensor => cast(t, 'int32')
const modulo = (a: Tensor, n: number): Tensor => sub(a, mul(floor(div(a, n)), n))

/** Which of `n` tensors are active at the choice number `choice` (a float64 scalar from 0), uint8 [n]. */
export function activeOf(order: BlockOrder, n: number, count: number, choice: Tensor, seed: number): Tensor {
  const place = cast(arange(n), 'float64')
  if (order === 'random') {
    const ranks = argsort(random.permutation(random.foldIn(constantKey(seed), int(choice)), n))
    return less(ranks, count)
  }
  const within = (start: Tensor, at: Tensor) => less(modulo(sub(at, start), n), count)
  const back = sub(n - 1, place)
  const window = modulo(mul(choice, count), n)
  if (order !== 'mirror') return within(window, order === 'ascending' ? place : back)
  // There and back; the last window of a pass ends with the last tensor.
  const windows = Math.ceil(n / count)
  const turn = modulo(choice, 2 * windows)
  const start = (k: Tensor) => minimum(mul(k, count), n - count)
  return where(less(turn, windows), within(start(turn), place), within(start(sub(turn, windows)), back))
}

/** Numbers that a program holds as constants, int32. */
const constants = (list: readonly number[]): Tensor =>
  concat(
    list.map((x) => full([1], x, 'int32')),
    { axis: 0 },
  )

/** The sum of the `count` largest. */
const most = (sizes: Iterable<number>, count: number): number =>
  [...sizes]
    .sort((a, b) => b - a)
    .slice(0, count)
    .reduce((a, b) => a + b, 0)

/** @internal FRUGAL whose parts are whole tensors, of which some are moved by the rule. */
export function frugalBlocks(base: Optimizer, who: string, options: BlockOptions, given?: GivenActive): Optimizer {
  const { density, updateGap, order, outside, lrScale, outsideLrScale, reset, match, seed } = options
  const takes = taker(who, match)
  const blockMover = (parts: Parts, group: Readonly<Record<string, unknown>>): BlockMover => {
    const inner = innerOf(parts, group)
    return { ...parts.mover(group), inner, apply: applier(who, parts, inner.decay) }
  }
  const blocksOf = <E extends Entry>(entries: readonly E[]) => entries.filter(({ name, p }) => takes(name, p))
  const others = <E extends Entry>(entries: readonly E[]) => entries.filter(({ name, p }) => !takes(name, p))
  const moverOf = ({ mover }: Entry) => mover as BlockMover
  const firstOf = ({ p, name, mover }: Entry) => (mover as BlockMover).inner.mover.init(zeros(p.shape, wideOf(p)), name)
  // States that outlive a choice stay where they are, so that all tensors have a place.
  const capacity = (blocks: number) => (reset ? Math.min(roundEven(blocks * density), blocks) : blocks)

  const init = (entries: readonly Entry[]): Slots => {
    const blocks = blocksOf(entries)
    const slots: Slots = new Pool(blocks, firstOf).init((sizes) => most(sizes.values(), capacity(blocks.length)))
    const put = (name: string, states: Readonly<Record<string, Tensor>>) => {
      for (const [slot, t] of Object.entries(states)) (slots[slot] ??= {})[name] = t
    }
    for (const { name, p, mover } of others(entries)) put(name, mover.init(p, name))
    for (const entry of blocks) {
      put(entry.name, moverOf(entry).apply.init(entry.p, entry.name))
      put(entry.name, { [AGE]: scalar(0, 'int32') })
    }
    return slots
  }

  /** Where the states of each block begin, by slot: one active tensor's after the other's. */
  const placesOf = (pool: Pool, blocks: readonly Entry[], active: Tensor) => {
    const keys = new Set(blocks.flatMap(({ name }) => Object.keys(pool.sizes(name))))
    return new Map(
      [...keys].map((key) => {
        const sizes = constants(blocks.map(({ name }) => pool.sizes(name)[key] ?? 0))
        const taken = reset ? mul(sizes, int(active)) : sizes
        return [key, sub(cumsum(taken, { axis: 0 }), taken)]
      }),
    )
  }

  /** A block with its states: the rule on the whole tensor. */
  const moved = (
    o: Operands & Entry,
    p: Tensor,
    low: Readonly<Record<string, Tensor>>,
    states: Record<string, Tensor>,
    t: Tensor,
  ) => {
    const { inner, apply } = moverOf(o)
    const wide = wideOf(p)
    const { g, scale } = gradOf({ ...o, p }, inner.decay)
    const own = inner.decay.kind === 'own'
    const proxy = own ? cast(p, wide) : zeros(p.shape, wide)
    const args = argsWith(o.args, { t })
    const next = inner.mover.step({
      ...o,
      p: proxy,
      g: reshape(g, p.shape),
      scale,
      slots: states,
      args,
      lrScale: o.lrScale * lrScale,
    })
    const step = own ? sub(next.p, proxy) : next.p
    return { slots: next.slots, ...applied(apply, o, p, low, step) }
  }
  const applied = (apply: Mover, o: Operands, p: Tensor, low: Readonly<Record<string, Tensor>>, step: Tensor) => {
    const next = apply.step({ ...o, p, g: step, scale: undefined, slots: low })
    return { p: next.p, low: next.slots }
  }

  const step: Together['step'] = (all, before) => {
    const blocks = blocksOf(all)
    const count = Math.min(roundEven(blocks.length * density), blocks.length)
    const rest = oneByOne(others(all), before)
    const params = { ...rest.params }
    const slots: Slots = Object.fromEntries(
      Object.entries(before).map(([slot, by]) => [slot, { ...by, ...rest.slots[slot] }]),
    )
    const pool = new Pool(blocks, firstOf)
    const t = argument(all[0].args, 1)
    const choice = floor(div(sub(t, 1), updateGap))
    const chooses = equal(sub(sub(t, 1), mul(choice, updateGap)), 0)
    const active =
      given?.(blocks.map((o) => o.name)) ?? activeOf(order, blocks.length, Math.max(count, 1), choice, seed)
    const places = placesOf(pool, blocks, active)
    const at = (list: Tensor, i: number) => reshape(slice(list, [[i, i + 1]]), [])
    // The gradients of the last parameters are complete first.
    for (let i = blocks.length - 1; i >= 0; i--) {
      const o = blocks[i]
      const { apply, inner } = moverOf(o)
      const lows = Object.keys(apply.init(o.p, o.name))
      const pick = (list: readonly Tensor[]) => Object.fromEntries(lows.map((slot, k) => [slot, list[k]]))
      const held = { ...o, slots: Object.fromEntries([...lows, AGE].map((slot) => [slot, slots[slot][o.name]])) }
      const own = slotsInOrder(who, held, [AGE, ...lows])
      const isActive = at(active, i)
      const windows = pool.windows(o.name, slots, (key) => at(places.get(key)!, i))

      let states = [o.p, ...own]
      if (count > 0) {
        const done = revise(isActive, [...states, ...windows], (p, age, ...more) => {
          const fresh = reset ? logicalOr(chooses, equal(age, 0)) : equal(age, 0)
          const now = add(where(fresh, 0, age), 1)
          const next = moved(o, p, pick(more), pool.states(o.name, more.slice(lows.length), fresh), now)
          return [
            next.p,
            int(now),
            ...lows.map((slot) => next.low[slot]),
            ...pool.slotsOf(o.name).map((s) => next.slots[s]),
          ]
        })
        states = done.slice(0, states.length)
        pool.put(o.name, slots, done.slice(states.length))
      }
      const idle = revise(count > 0 ? logicalNot(isActive) : full([], 1, 'uint8'), states, (p, _, ...low) => {
        const { g, scale } = gradOf({ ...o, p }, inner.decay)
        const free = stateless(outside, { o, scale, args: o.args }, reshape(g, p.shape), lrScale * outsideLrScale)
        const next = applied(apply, o, p, pick(low), free ?? zeros(p.shape, wideOf(p)))
        return [next.p, scalar(0, 'int32'), ...lows.map((slot) => next.low[slot])]
      })
      params[o.name] = idle[0]
      slots[AGE] = { ...slots[AGE], [o.name]: idle[1] }
      lows.forEach((slot, k) => (slots[slot] = { ...slots[slot], [o.name]: idle[2 + k] }))
    }
    return { params, slots }
  }

  return wrapped(base, {
    name: 'frugal',
    match,
    make: (parts) =>
      makeOptimizer({
        ...parts,
        who,
        name: `frugal(${parts.name})`,
        hyper: { ...parts.hyper, density, updateGap, lrScale, outsideLrScale },
        mover: (group) => blockMover(parts, group),
        together: { moves: () => true, init, step },
      }),
  })
}
