import { assign } from '../ops/control.js'
import { concat } from '../ops/assemble.js'
import {
  abs,
  add,
  cast,
  greater,
  isFinite,
  less,
  lessEqual,
  logicalAnd,
  maximum,
  mul,
  neg,
  sub,
  where,
} from '../ops/elementwise.js'
import { max } from '../ops/reduce.js'
import { full, reshape, scalar, slice } from '../ops/shape.js'
import type { Mover, Operands, Parts } from '../optim/base.js'
import { moverOf } from '../optim/from-rule.js'
import { ruleNamed } from '../ops/rules.js'
import type { Tensor } from '../tensor/tensor.js'
import { revise } from '../transform/revise.js'
import type { Decay } from './decay.js'

/** The dtype that small tensors are computed and kept in. */
export const wideOf = (p: Tensor): 'float32' | 'float64' => (p.dtype === 'float64' ? 'float64' : 'float32')

/** A tensor of two or more axes as the matrix [first, rest]. */
export function asMatrix(t: Tensor): Tensor {
  return t.rank === 2 ? t : reshape(t, [t.shape[0], t.size / t.shape[0]])
}

/** The arguments of a step with another learning rate or step count. */
export function argsWith(args: Tensor, { lr, t }: { lr?: Tensor; t?: Tensor }): Tensor {
  if (!lr && !t) return args
  const one = (x: Tensor | undefined, i: number) => (x ? reshape(cast(x, 'float64'), [1]) : slice(args, [[i, i + 1]]))
  const rest = args.shape[0] > 2 ? [slice(args, [[2, args.shape[0]]])] : []
  return concat([one(lr, 0), one(t, 1), ...rest], { axis: 0 })
}

/** The gradient as the small step wants it: a matrix in the dtype of the computation, with coupled decay in it. */
export function gradOf(
  { p, g, scale }: Pick<Operands, 'p' | 'g' | 'scale'>,
  decay: Decay,
): { g: Tensor; scale: Tensor | undefined } {
  const dtype = wideOf(p)
  const matrix = asMatrix(cast(g, dtype))
  if (decay.kind !== 'coupled' || decay.rate === 0) return { g: matrix, scale }
  const scaled = scale ? mul(matrix, cast(scale, dtype)) : matrix
  return { g: add(scaled, mul(asMatrix(cast(p, dtype)), decay.rate)), scale: undefined }
}

/** Moves a weight by a step that was found elsewhere, and decays it; the weight's own rounding and hidden bits are those of all rules. */
export function applier(who: string, { options }: Parts, decay: Decay): Mover {
  const decoupled = decay.kind === 'before' || decay.kind === 'after'
  const hyper = { weightDecay: decoupled ? decay.rate : 0, decayAfter: decay.kind === 'after' }
  return moverOf(who, ruleNamed('move'), hyper, options.rounding)
}

/** A key that a program holds as a constant. */
export const constantKey = (seed: number): Tensor =>
  concat([full([1], seed | 0, 'int32'), full([1], Math.floor(seed / 2 ** 32), 'int32')], { axis: 0 })

/** How often a space is chosen anew. */
export interface Refresh {
  /** Steps between two choices. */
  readonly gap: number
  /** Whether tensors take turns, or all choose on one step. */
  readonly stagger: boolean
}

/** Steps from the first choice to the second: with turns they differ between tensors, by steps of the golden ratio. */
export function firstGap({ gap, stagger }: Refresh, site: number): number {
  if (!stagger) return gap
  const turn = (site * 0.6180339887498949) % 1
  return Math.max(1, Math.ceil(gap / 2) + Math.floor(turn * gap))
}

/** The slot that counts the steps to the next choice; negative where that is late. */
export const DUE = 'due'
/** The count of a choice that has never been made, on its first step. */
const FIRST = -(2 ** 30)
/** The slot that counts the steps since the states were reset. */
export const AGE = 'age'

export const firstDue = (): Tensor => scalar(FIRST, 'int32')

/** True where every element is finite and one is not zero: only then a gradient says anything about a space. */
const tells = (g: Tensor): Tensor => {
  const most = max(abs(g))
  return logicalAnd(isFinite(most), greater(most, 0))
}

/**
 * `f` in the place of the states on the steps when it is due; where the gradient is not finite or all zero it stays due, and the choice after it
 * comes when it would have come. Gives the new states and the new count.
 */
export function refreshed(
  refresh: Refresh,
  { site }: Operands,
  g: Tensor | undefined,
  due: Tensor,
  states: readonly Tensor[],
  f: (first: Tensor, ...states: Tensor[]) => readonly Tensor[],
  gapOf?: (states: readonly Tensor[]) => Tensor,
): { states: Tensor[]; due: Tensor } {
  const isFirst = (count: Tensor) => less(count, FIRST / 2)
  const first = isFirst(due)
  const renew = (count: Tensor, ...old: Tensor[]): Tensor[] => {
    const next = f(first, ...old)
    const gap = gapOf ? gapOf(next) : scalar(refresh.gap, 'int32')
    const late = where(isFirst(count), sub(FIRST, count), neg(count))
    return [maximum(sub(where(isFirst(count), firstGap(refresh, site), gap), late), 1), ...next]
  }
  const [count, ...next] = revise(lessEqual(due, 0), [due, ...states], (...all) =>
    g ? revise(tells(g), all, (c, ...old) => renew(c, ...old)) : renew(...(all as [Tensor, ...Tensor[]])),
  )
  return { states: next, due: assign(count, sub(count, 1)) }
}
