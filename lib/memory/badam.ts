import { checkOptions, SteepestError } from '../errors.js'
import { namedTensors } from '../nn/module.js'
import { cast, div, equal, floor, maximum, mul, sub } from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { random } from '../ops/random.js'
import { reshape, scalar } from '../ops/shape.js'
import { argument, type Entry, makeOptimizer, type Together } from '../optim/base.js'
import type { Optimizer } from '../optim/optimizer.js'
import type { Tensor } from '../tensor/tensor.js'
import { revise } from '../transform/revise.js'
import { checkChoice, checkWhole, type Match, matcher, numbered } from './options.js'
import { Pool } from './pool.js'
import { argsWith, constantKey } from './small.js'
import { requireParts } from './wrap.js'

/** Options of `badam`. */
export interface BadamOptions {
  /**
   * What is moved together, in turn: patterns or names of parameters, or functions. Default: a block is what stands under one number in the names
   * (`h.0.…`, `layers.3.…`). Parameters in no block never move.
   */
  blocks?: readonly Match[]
  /** Steps that a block is moved for (K). Default 100. */
  switchEvery?: number
  /** The order of blocks; `random` is another order in each round. Default `random`. */
  order?: 'ascending' | 'descending' | 'random'
  /** Seed of the order. Default 0. */
  seed?: number
}

/** @internal The block of a step, and how often it has been moved in a row, this step included, as int32 scalars. */
export type Turn = (t: Tensor) => { block: Tensor; age: Tensor }

const int = (t: Tensor): Tensor => cast(t, 'int32')

/** Whose turn it is. The first block has a step less where `short`, as in the authors' code. */
function turns(
  order: NonNullable<BadamOptions['order']>,
  every: number,
  blocks: number,
  seed: number,
  short = false,
): Turn {
  return (t) => {
    const before = sub(t, short ? 0 : 1)
    const n = floor(div(before, every))
    const start = maximum(sub(mul(n, every), short ? 1 : 0), 0)
    const age = int(sub(t, start))
    const round = floor(div(n, blocks))
    const place = int(sub(n, mul(round, blocks)))
    if (order === 'ascending') return { block: place, age }
    if (order === 'descending') return { block: sub(blocks - 1, place), age }
    const orderOf = random.permutation(random.foldIn(constantKey(seed), int(round)), blocks)
    return { block: reshape(take(orderOf, reshape(place, [1])), []), age }
  }
}

/** @internal BAdam with given turns where a test has some. */
export function badamWith(base: Optimizer, options: BadamOptions, given?: Turn): Optimizer {
  const who = 'memory.badam'
  checkOptions(who, options, ['blocks', 'switchEvery', 'order', 'seed'])
  const { switchEvery = 100, order = 'random', seed = 0 } = options
  checkWhole(who, 'switchEvery', switchEvery)
  checkChoice(who, 'order', order, ['ascending', 'descending', 'random'])
  checkWhole(who, 'seed', seed, 0)
  const matches = options.blocks?.map((match) => matcher(who, match))
  const parts = requireParts(who, base)

  const keyOf = (name: string, p: Tensor): string | undefined => {
    if (!matches) return numbered(name)
    const i = matches.findIndex((fits) => fits(name, p))
    return i < 0 ? undefined : String(i)
  }
  /** Parameters by block, blocks in the order that they are named in or occur in. */
  const blocksOf = <E extends Entry>(entries: readonly E[]): E[][] => {
    const blocks = new Map<string, E[]>(matches?.map((_, i) => [String(i), []]))
    for (const entry of entries) {
      const key = keyOf(entry.name, entry.p)!
      blocks.set(key, [...(blocks.get(key) ?? []), entry])
    }
    return [...blocks.values()].filter((block) => block.length > 0)
  }
  const poolOf = (entries: readonly Entry[]) => new Pool(entries, ({ mover, p, name }) => mover.init(p, name))
  /** Where the states of each parameter begin: one after the other within a block. */
  const offsets = (pool: Pool, block: readonly Entry[]): Map<string, Record<string, number>> => {
    const next: Record<string, number> = {}
    return new Map(
      block.map(({ name }) => {
        const own = Object.entries(pool.sizes(name)).map(([key, size]): [string, number] => {
          const at = next[key] ?? 0
          next[key] = at + size
          return [key, at]
        })
        return [name, Object.fromEntries(own)]
      }),
    )
  }

  const together: Together = {
    moves: (name, p) => keyOf(name, p) !== undefined,
    init(entries) {
      const blocks = blocksOf(entries)
      const sum = (block: readonly Entry[], sizes: ReadonlyMap<string, number>) =>
        block.reduce((n, { name }) => n + sizes.get(name)!, 0)
      return poolOf(entries).init((sizes) => Math.max(...blocks.map((block) => sum(block, sizes))))
    },
    step(all, before) {
      const blocks = blocksOf(all)
      const pool = poolOf(all)
      const turn = given ?? turns(order, switchEvery, blocks.length, seed)
      const slots = { ...before }
      const params: Record<string, Tensor> = {}
      if (all.length === 0) return { params, slots }
      const { block: active, age } = turn(argument(all[0].args, 1))
      const fresh = equal(age, 1)
      // The gradients of the last parameters are complete first.
      for (const [b, block] of [...blocks.entries()].reverse()) {
        const at = offsets(pool, block)
        const mine = equal(active, b)
        for (const o of [...block].reverse()) {
          const windows = pool.windows(o.name, slots, (key) => scalar(at.get(o.name)![key], 'int32'))
          const [p, ...pools] = revise(mine, [o.p, ...windows], (held, ...states) => {
            const own = pool.states(o.name, states, fresh)
            const next = o.mover.step({ ...o, p: held, slots: own, args: argsWith(o.args, { t: age }) })
            return [next.p, ...pool.slotsOf(o.name).map((slot) => next.slots[slot])]
          })
          params[o.name] = p
          pool.put(o.name, slots, pools)
        }
      }
      return { params, slots }
    },
  }
  const made = makeOptimizer({
    ...parts,
    who,
    name: `badam(${parts.name})`,
    hyper: { ...parts.hyper, switchEvery },
    together,
    in8bits: base.in8bits && (() => badamWith(base.in8bits!(), options, given)),
  })
  const init: Optimizer['init'] = (params) => {
    if (made.moved(params).length > 0) return made.init(params)
    throw new SteepestError('ARGUMENT', {
      who,
      rule: 'none of these parameters is in a block',
      got: Object.keys(namedTensors(params).parameters).slice(0, 8).join(', '),
      fix: 'Say which belong together: { blocks: [/^first\\./, /^second\\./] }',
    })
  }
  return { ...made, init }
}

/** @internal The authors' order of turns, in which the first block has a step less. */
export const authorsTurns = (order: 'ascending' | 'descending', every: number, blocks: number): Turn =>
  turns(order, every, blocks, 0, true)

/**
 * BAdam: any optimizer, for one block of the model (a layer) at a time, with states for that block only; after `switchEvery` steps another has
 * its turn, and states begin anew. What is in no block, embeddings and heads by default, never moves. bfloat16 weights keep their low bits
 * only while it is their turn.
 *
 * State: the rule's states of the largest block. Source: Luo, Yu, Li, "BAdam", arXiv 2404.02827.
 *
 * @example memory.badam(optim.adamw({ lr: 1e-5 }), { switchEvery: 100 })
 * @throws SteepestError for a wrong option, an optimizer that needs more than gradients, and where no parameter is in a block
 */
export function badam(optimizer: Optimizer, options: BadamOptions = {}): Optimizer {
  return badamWith(optimizer, options)
}
