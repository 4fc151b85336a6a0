import { checkOptions, SteepestError } from '../errors.js'
import { withTensors } from '../nn/module.js'
import { concat, eye, oneHot } from '../ops/assemble.js'
import { assign } from '../ops/control.js'
import {
  abs,
  add,
  cast,
  clip as clamp,
  div,
  greater,
  less,
  logicalAnd,
  logicalOr,
  maximum,
  mul,
  neg,
  sub,
  where,
} from '../ops/elementwise.js'
import { scatterAdd, take } from '../ops/indexing.js'
import { random } from '../ops/random.js'
import { sum } from '../ops/reduce.js'
import { expandDims, reshape, scalar, slice, tensor, zeros } from '../ops/shape.js'
import { bytesOf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { hvp } from '../transform/grad.js'
import { whileLoop } from '../transform/loop.js'
import { vmap } from '../transform/vmap.js'
import { argsOf, argument, COMMON, gradsByName, roundStochastically } from './base.js'
import {
  type Block,
  type BlockRule,
  fixedBlock,
  largestOf,
  proximal,
  solved,
  type Surface,
  variableBlock,
  within,
} from './block-select.js'
import { defineOptimizer } from './define.js'
import type { Objective } from './objective.js'
import { checkPositive } from './options.js'
import type { Optimizer, OptimizerState, RuleOptions, StepContext, Stepped } from './optimizer.js'
import { needsObjective } from './sam.js'
import { type Moved, movedOf, seedKey } from './wrap.js'

/** Hyper-parameters of `blockCoordinate`. */
export interface BlockCoordinateOptions extends Omit<RuleOptions, 'clip'> {
  /**
   * Which block moves: `random`; `cyclic`; `lipschitz` (random, by the bounds); `gs` (largest gradient); `gsl` (over the bound of the block);
   * `gsd` (over `diagonal`); `gsq` (largest fall of the quadratic model; of free coordinates by iterative hard thresholding). Default `gs`.
   */
  rule?: BlockRule
  /** Coordinates that move in a step, a whole number of 1 or more. Default 1. */
  blockSize?: number
  /**
   * `variable`: any coordinates; `fixed`: blocks that are made once; or the blocks themselves, lists of coordinates (numbers of the flattened
   * parameters one after the other). Default `variable`.
   */
  blocks?: 'variable' | 'fixed' | readonly (readonly number[])[]
  /** How fixed blocks are made: neighbours, large and small bounds mixed, or large bounds with large ones. Default `order`. */
  partition?: 'order' | 'average' | 'sorted'
  /**
   * How a block moves: by its gradient over the largest eigenvalue of its part of `hessian` (or the sum of its bounds); by the inverse of that
   * part; or by the inverse of the Hessian where it is, shortened until the loss falls. Default `lipschitz`.
   */
  update?: 'lipschitz' | 'matrix' | 'newton'
  /** A bound on the Hessian, n × n, of all parameters flattened: rows, or row-major. */
  hessian?: readonly (readonly number[])[] | Float64Array
  /** Bounds on the second derivative along each coordinate. Default the diagonal of `hessian`, or 1. */
  lipschitz?: readonly number[] | Float64Array
  /** What `gsd` divides by: the bounds, or the sums of the absolute rows of `hessian`, which bound it. Default `lipschitz`. */
  diagonal?: 'lipschitz' | 'rowSums'
  /** Factor of an L1 penalty of all coordinates, in [0, ∞), that the loss does not have. Default 0. */
  l1?: number
  /** Least and largest value of every coordinate. */
  bounds?: readonly [number, number]
  /** Seed of random choices where the loop gives no key. Default 0. */
  seed?: number
}

const RULES: readonly BlockRule[] = ['random', 'cyclic', 'lipschitz', 'gs', 'gsl', 'gsd', 'gsq']
/** Halvings of a Newton step at most. */
const HALVINGS = 40
/** Everything is one vector; states stand under this name. */
const ALL = 'all'

function oneOf(who: string, name: string, value: unknown, choices: readonly string[]): void {
  if (!choices.includes(value as string))
    throw new SteepestError('OPTION', {
      who,
      rule: `\`${name}\` must be ${choices.join(', ')}`,
      got: String(value),
    })
}

/** Fixed blocks of the coordinates: neighbours in the order of `partition`. */
function partitioned(n: number, size: number, partition: string, lipschitz: Float64Array): number[][] {
  const order = Array.from({ length: n }, (_, i) => i)
  if (partition !== 'order') order.sort((a, b) => lipschitz[b] - lipschitz[a] || a - b)
  const count = Math.ceil(n / size)
  if (partition === 'average') {
    // Dealt out like cards, there and back, so that every block has large and small bounds.
    const blocks: number[][] = Array.from({ length: count }, () => [])
    order.forEach((i, k) => {
      const round = Math.floor(k / count)
      blocks[round % 2 === 0 ? k % count : count - 1 - (k % count)].push(i)
    })
    return blocks
  }
  return Array.from({ length: count }, (_, b) => order.slice(b * size, (b + 1) * size))
}

/** Blocks as one table; what fills up short ones does not count. */
function table(blocks: readonly (readonly number[])[]): { at: Int32Array; counts: Float64Array; shape: number[] } {
  const size = Math.max(...blocks.map((b) => b.length))
  const at = new Int32Array(blocks.length * size)
  const counts = new Float64Array(blocks.length * size)
  blocks.forEach((block, b) => {
    const free = Array.from({ length: size }, (_, i) => i).filter((i) => !block.includes(i))
    for (let k = 0; k < size; k++) {
      at[b * size + k] = k < block.length ? block[k] : free[k - block.length]
      counts[b * size + k] = k < block.length ? 1 : 0
    }
  })
  return { at, counts, shape: [blocks.length, size] }
}

/**
 * Block coordinate descent: each step moves a few coordinates of all parameters, chosen by what they promise, and leaves the others. For
 * functions whose curvature is known or bounded (least squares, logistic regression, with an L1 penalty or bounds).
 * Source: Nutini, Laradji, Schmidt, "Let's make block coordinate descent converge faster", arXiv 1712.08859.
 * Learning rate 1 where none is given (it multiplies every step). State: what is known of the function, and a copy of bfloat16 weights.
 * @throws SteepestError for options that do not fit together
 */
export function blockCoordinate(options: BlockCoordinateOptions = {}): Optimizer {
  const who = 'optim.blockCoordinate'
  checkOptions(who, options, [
    ...COMMON.filter((k) => k !== 'clip'),
    ...[
      'rule',
      'blockSize',
      'blocks',
      'partition',
      'update',
      'hessian',
      'lipschitz',
      'diagonal',
      'l1',
      'bounds',
      'seed',
    ],
  ])
  const { rule = 'gs', blockSize = 1, blocks = 'variable', partition = 'order', update = 'lipschitz' } = options
  const { hessian, diagonal = 'lipschitz', l1 = 0, bounds, seed = 0, lr, groups = [], rounding } = options
  oneOf(who, 'rule', rule, RULES)
  oneOf(who, 'partition', partition, ['order', 'average', 'sorted'])
  oneOf(who, 'update', update, ['lipschitz', 'matrix', 'newton'])
  oneOf(who, 'diagonal', diagonal, ['lipschitz', 'rowSums'])
  if (!Array.isArray(blocks)) oneOf(who, 'blocks', blocks, ['variable', 'fixed'])
  if (!Number.isSafeInteger(blockSize) || blockSize < 1)
    throw new SteepestError('OPTION', {
      who,
      rule: '`blockSize` must be a whole number of 1 or more',
      got: String(blockSize),
    })
  if (l1 !== 0) checkPositive(who, 'l1', l1)
  if (bounds && !(bounds[0] <= bounds[1]))
    throw new SteepestError('OPTION', { who, rule: '`bounds` must be two numbers in order', got: String(bounds) })
  if ((l1 > 0 || bounds) && update !== 'lipschitz')
    throw new SteepestError('OPTION', {
      who,
      rule: 'with a penalty or bounds a block moves by `lipschitz`',
      got: update,
    })
  const needs = (update === 'matrix' && 'update: matrix') || (rule === 'gsq' && !l1 && !bounds && 'rule: gsq')
  if (!hessian && (needs || diagonal === 'rowSums'))
    throw new SteepestError('OPTION', {
      who,
      rule: `\`${needs || 'diagonal: rowSums'}\` needs a \`hessian\``,
      fix: 'Give a bound on the Hessian, or take another rule',
    })
  if (groups.some((g) => g.lrScale !== undefined && g.lrScale !== 1))
    throw new SteepestError('OPTION', { who, rule: 'all parameters have one learning rate', got: 'lrScale' })
  const base = defineOptimizer({ name: 'blockCoordinate', lr: 1, step: ({ p }) => ({ p }) })({ lr, groups, rounding })

  const flat = hessian && (hessian instanceof Float64Array ? hessian : Float64Array.from(hessian.flat()))
  const boundsOf = (n: number): Float64Array => {
    const own = options.lipschitz
      ? Float64Array.from(options.lipschitz)
      : Float64Array.from({ length: n }, (_, i) => (flat ? flat[i * n + i] : 1))
    if (own.length !== n || (flat && flat.length !== n * n))
      throw new SteepestError('SHAPE', {
        who,
        rule: `there are ${n} coordinates, so \`lipschitz\` must have ${n} numbers and \`hessian\` ${n * n}`,
        got: `${own.length}${flat ? ` and ${flat.length}` : ''}`,
      })
    return own
  }
  const joined = (moved: readonly Moved[], of: (m: Moved) => Tensor): Tensor =>
    concat(moved.map((m) => reshape(cast(of(m), 'float64'), [m.p.size])))
  const apart = (moved: readonly Moved[], x: Tensor): Record<string, Tensor> => {
    let at = 0
    return Object.fromEntries(
      moved.map(({ name, p }): [string, Tensor] => {
        const own = reshape(slice(x, [[at, at + p.size]]), p.shape)
        at += p.size
        return [name, own]
      }),
    )
  }
  const keepsMaster = (moved: readonly Moved[]): boolean =>
    (rounding ?? 'master') === 'master' && moved.some(({ p }) => p.dtype === 'bfloat16')
  /** What is known of the function, and the blocks: states that never change, so that programs can read them. */
  const init = (params: unknown): OptimizerState => {
    const moved = movedOf(base, params)
    const n = moved.reduce((total, { p }) => total + p.size, 0)
    const lipschitz = boundsOf(n)
    const given = Array.isArray(blocks) ? (blocks as readonly (readonly number[])[]) : undefined
    if (given?.some((b) => b.length === 0 || b.some((i) => !(Number.isSafeInteger(i) && i >= 0 && i < n))))
      throw new SteepestError('OPTION', { who, rule: `\`blocks\` must be lists of coordinates in [0, ${n})` })
    const size = Math.min(blockSize, n)
    const lists = given ?? (blocks === 'fixed' ? partitioned(n, size, partition, lipschitz) : undefined)
    const fixed = lists && table(lists)
    const slots: Record<string, Tensor> = { lipschitz: tensor(lipschitz) }
    if (flat) slots.hessian = tensor(flat, { shape: [n, n] })
    if (diagonal === 'rowSums')
      slots.diagonal = tensor(
        Float64Array.from({ length: n }, (_, i) =>
          flat!.subarray(i * n, (i + 1) * n).reduce((total, v) => total + Math.abs(v), 0),
        ),
      )
    if (fixed) {
      slots.blocks = tensor(fixed.at, { shape: fixed.shape })
      slots.counts = tensor(fixed.counts, { shape: fixed.shape })
    }
    if (keepsMaster(moved)) slots.master = joined(moved, ({ p }) => p)
    return {
      step: zeros([], 'int32'),
      slots: Object.fromEntries(Object.entries(slots).map(([slot, t]) => [slot, { [ALL]: t }])),
    }
  }

  const step = <P>(
    objective: Objective<P>,
    params: P,
    state: OptimizerState,
    context: StepContext = {},
  ): Stepped<P> => {
    const moved = movedOf(base, params)
    const n = moved.reduce((s, { p }) => s + p.size, 0)
    const held = (slot: string): Tensor | undefined => state.slots[slot]?.[ALL]
    const [lipschitz, curvature, fixed] = [held('lipschitz')!, held('hessian'), held('blocks')]
    const size = Math.min(blockSize, n)
    const args = argsOf(who, base.lr, state, context)
    const [rate, t] = [argument(args, 0), argument(args, 1)]
    const at = (v: Tensor): P => {
      const own = apart(moved, v)
      return withTensors(params, Object.fromEntries(moved.map(({ name, p }) => [name, cast(own[name], p.dtype)])))
    }
    const { loss, grads } = objective.valueAndGrad(params)
    const named = gradsByName(who, params, grads, new Map(moved.map(({ p, name }) => [p, name])))
    const x = held('master') ?? joined(moved, ({ p }) => p)
    const g = joined(moved, ({ name }) => named.get(name)!)
    // The loop's clip is not for this optimizer; the norm is told all the same.
    context.scaleOf?.(Object.fromEntries(named))
    const surface: Surface = {
      x,
      g,
      lipschitz,
      hessian: curvature,
      diagonal: held('diagonal') ?? lipschitz,
      t,
      key: random.foldIn(context.key ?? objective.key ?? seedKey(seed), cast(t, 'int32')),
      l1,
      bounds,
    }
    const block = fixed
      ? fixedBlock(rule, surface, { at: fixed, counts: held('counts')! })
      : variableBlock(rule, surface, size)
    const part = (v: Tensor): Tensor => take(v, block.at)
    const own = mul(part(g), block.counts)
    const spread = (moves: Tensor): Tensor =>
      scatterAdd(zeros([n], 'float64'), block.at, mul(moves, block.counts), { axis: 0 })
    const reach = (): Tensor =>
      surface.hessian ? largestOf(within(surface.hessian, block)) : sum(mul(part(surface.lipschitz), block.counts))
    const moves = (): Tensor => {
      if (l1 > 0 || bounds) {
        // One coordinate has its own bound, several have one together.
        const bound = size === 1 && !fixed ? part(surface.lipschitz) : add(mul(part(x), 0), reach())
        return proximal({ x: part(x), g: part(g), l1, bounds }, bound)
      }
      if (update === 'matrix') return neg(solved(within(surface.hessian!, block), own))
      if (update === 'lipschitz') return neg(div(own, maximum(reach(), 1e-300)))
      return newton(objective, at, x, loss, block, own, spread)
    }
    const next = add(x, mul(spread(moves()), rate))
    const inside = bounds ? clamp(next, bounds[0], bounds[1]) : next
    const put = apart(moved, inside)
    const bits = { args, key: context.key ?? objective.key }
    const placed = moved.map(({ name, p, site }): [string, Tensor] => {
      if (p.dtype !== 'bfloat16' || rounding !== 'stochastic') return [name, assign(p, cast(put[name], p.dtype))]
      return [name, roundStochastically(who, { p, site, ...bits }, put[name])]
    })
    const master = held('master')
    return {
      params: withTensors(params, Object.fromEntries(placed)),
      state: {
        step: assign(state.step, add(state.step, 1)),
        slots: { ...state.slots, ...(master ? { master: { [ALL]: assign(master, inside) } } : {}) },
      },
      loss,
    }
  }
  /** The Newton step of a block, halved until the loss falls. */
  const newton = <P>(
    objective: Objective<P>,
    at: (x: Tensor) => P,
    x: Tensor,
    loss: Tensor,
    block: Block,
    own: Tensor,
    spread: (moves: Tensor) => Tensor,
  ): Tensor => {
    const columns = objective.total((p) => {
      const f = (v: Tensor): Tensor => cast(p.loss(at(v)), 'float64')
      const basis = oneHot(block.at, x.shape[0], { dtype: 'float64' })
      return take(vmap((v: Tensor) => hvp(f, x, v))(basis), block.at, { axis: 1 })
    })
    const both = mul(expandDims(block.counts, 0), expandDims(block.counts, 1))
    const part = add(mul(columns, both), mul(eye(block.at.shape[0], { dtype: 'float64' }), sub(1, block.counts)))
    const direct = neg(solved(part, own))
    const slope = sum(mul(direct, own))
    // Where the Hessian is not positive the gradient leads down.
    const d = where(less(slope, 0), direct, neg(own))
    const promise = mul(sum(mul(d, own)), 1e-4)
    const start = cast(loss, 'float64')
    const high = (s: Tensor): Tensor => {
      const there = cast(objective.loss(at(add(x, mul(spread(d), s)))), 'float64')
      const fine = less(there, add(add(start, mul(promise, s)), 1e-300))
      return sub(1, cast(logicalOr(fine, less(abs(promise), 1e-300)), 'float64'))
    }
    const one = scalar(1, 'float64')
    const end = whileLoop(
      ({ high: over, round }: { s: Tensor; high: Tensor; round: Tensor }) =>
        logicalAnd(greater(over, 0), less(round, HALVINGS)),
      ({ s, round }) => {
        const half = mul(s, 0.5)
        return { s: half, high: high(half), round: add(round, 1) }
      },
      { s: one, high: high(one), round: scalar(0, 'float64') },
    )
    return mul(d, mul(end.s, sub(1, end.high)))
  }
  return {
    ...base,
    hyper: { blockSize, l1 },
    init,
    stateBytes: (params) =>
      Object.fromEntries(
        Object.entries(init(params).slots).map(([slot, { [ALL]: t }]) => [slot, t.size * bytesOf(t.dtype)]),
      ),
    update: () => needsObjective('blockCoordinate'),
    step,
  }
}
