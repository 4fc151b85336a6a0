import { checkOptions, SteepestError } from '../errors.js'
import { parameters, withTensors } from '../nn/module.js'
import { add, cast, div, equal, lessEqual, minimum, mul, remainder, sub, where } from '../ops/elementwise.js'
import { contiguous, scalar } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { Optimizer } from './optimizer.js'
import { wideOf, wrapWeights } from './wrap.js'

/** Hyper-parameters of `averaged`. */
export interface AveragedOptions {
  /** Share of the old average that stays, in [0, 1). Default 0.999. */
  decay?: number
  /** Steps before the average begins; until then it is the weights. A whole number of 0 or more. Default 0. */
  start?: number
  /** The average takes in every such step, a whole number of 1 or more. Default 1. */
  every?: number
  /** Begin with a short memory: the share that stays is at most (1 + n) / (10 + n) after n steps. Default false. */
  warmup?: boolean
}

/** Hyper-parameters of `lookahead`. */
export interface LookaheadOptions {
  /** Steps of the fast weights between two of the slow ones, a whole number of 1 or more. Default 5. */
  k?: number
  /** How far the slow weights go to the fast ones, in [0, 1]. Default 0.5. */
  alpha?: number
}

function checkWhole(who: string, name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw new SteepestError('OPTION', {
      who,
      rule: `\`${name}\` must be a whole number of ${least} or more`,
      got: String(value),
    })
}

function checkShare(who: string, name: string, value: number, closed: boolean): void {
  if (!(value >= 0 && (closed ? value <= 1 : value < 1)))
    throw new SteepestError('OPTION', {
      who,
      rule: `\`${name}\` must be in [0, 1${closed ? ']' : ')'}`,
      got: String(value),
    })
}

/** A copy in memory of its own: steps write over it. */
const copy = (p: Tensor): Tensor => {
  const wide = cast(p, wideOf(p))
  return wide === p ? contiguous(p) : wide
}

/**
 * The exponential moving average of the weights that `base` trains: what is evaluated, used and saved (`evalParams`), while training goes on
 * from the weights themselves. Of a schedule-free optimizer it is the average of the weights that this one would evaluate. Source: Polyak, Juditsky 1992; Tarvainen, Valpola, arXiv 1703.01780.
 * State per parameter beside that of `base`: `average` (float32, or float64 for a float64 parameter).
 */
export function averaged(base: Optimizer, options: AveragedOptions = {}): Optimizer {
  const who = 'optim.averaged'
  checkOptions(who, options, ['decay', 'start', 'every', 'warmup'])
  const { decay = 0.999, start = 0, every = 1, warmup = false } = options
  checkShare(who, 'decay', decay, false)
  checkWhole(who, 'start', start, 0)
  checkWhole(who, 'every', every, 1)
  return wrapWeights(base, {
    who,
    name: 'averaged',
    hyper: { decay, start, every, warmup },
    names: ['average'],
    slots: (p) => ({ average: copy(p) }),
    after({ used, slots: { average }, t }) {
      const n = sub(t, start)
      const longest = warmup ? minimum(div(add(n, 1), add(n, 10)), decay) : scalar(decay, 'float64')
      // Before it begins the average is the weights; between two steps that it takes in it stays.
      const taken = sub(1, longest)
      const share = where(
        lessEqual(n, 0),
        scalar(1, 'float64'),
        every === 1 ? taken : where(equal(remainder(n, every), 0), taken, 0),
      )
      const w = cast(used, average.dtype)
      return { slots: { average: add(average, mul(sub(w, average), cast(share, average.dtype))) } }
    },
    evalParams: (params, state) =>
      withTensors(
        params,
        Object.fromEntries(
          Object.entries(parameters(params)).map(([name, p]): [string, Tensor] => {
            const average = state.slots.average?.[name]
            return [name, average ? cast(average, p.dtype) : p]
          }),
        ),
      ),
  })
}

/**
 * Look-ahead: after every `k` steps of `base` the slow weights go a part of the way to where the fast ones are, and the fast ones go on from
 * there. The states of `base` stay as they are. Source: Zhang, Lucas, Hinton, Ba, arXiv 1907.08610.
 * State per parameter beside that of `base`: `slow` (float32, or float64 for a float64 parameter).
 */
export function lookahead(base: Optimizer, options: LookaheadOptions = {}): Optimizer {
  const who = 'optim.lookahead'
  checkOptions(who, options, ['k', 'alpha'])
  const { k = 5, alpha = 0.5 } = options
  checkWhole(who, 'k', k, 1)
  checkShare(who, 'alpha', alpha, true)
  return wrapWeights(base, {
    who,
    name: 'lookahead',
    hyper: { k, alpha },
    names: ['slow'],
    slots: (p) => ({ slow: copy(p) }),
    after({ after, slots: { slow }, t }) {
      const when = equal(remainder(t, k), 0)
      const to = add(slow, mul(sub(cast(after, slow.dtype), slow), alpha))
      return { slots: { slow: where(when, to, slow) }, move: { when, to } }
    },
  })
}
