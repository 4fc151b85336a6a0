import {
  abs,
  add,
  div,
  equal,
  greater,
  greaterEqual,
  less,
  lessEqual,
  logicalAnd,
  logicalNot,
  logicalOr,
  maximum,
  minimum,
  mul,
  sqrt,
  square,
  sub,
  where,
} from '../ops/elementwise.js'
import { scalar } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { whileLoop } from '../transform/loop.js'

/** A point of a line: where, the loss (float64 scalars), the gradient, and its product with the direction. */
export interface LinePoint {
  readonly t: Tensor
  readonly f: Tensor
  readonly g: Tensor
  readonly slope: Tensor
}

export interface WolfeOptions {
  /** Rounds at most, a float64 scalar of 1 or more. */
  readonly most: Tensor
  /** Share of the expected decrease that there must be. */
  readonly c1?: number
  /** Share of the slope that may be left. */
  readonly c2?: number
  /** The bracket is not cut further when the weights differ by less. */
  readonly tolerance: number
  /** Largest number of the direction. */
  readonly reach: Tensor
}

const f64 = (x: number): Tensor => scalar(x, 'float64')
const choose = (first: Tensor, a: LinePoint, b: LinePoint): LinePoint => ({
  t: where(first, a.t, b.t),
  f: where(first, a.f, b.f),
  g: where(first, a.g, b.g),
  slope: where(first, a.slope, b.slope),
})

/** Where the cubic through two points with their slopes is least, within bounds; their middle where it has no minimum. */
function cubic(a: LinePoint, b: LinePoint, low: Tensor, high: Tensor): Tensor {
  const d1 = sub(add(a.slope, b.slope), div(mul(sub(a.f, b.f), 3), sub(a.t, b.t)))
  const square2 = sub(square(d1), mul(a.slope, b.slope))
  const d2 = sqrt(maximum(square2, 0))
  const from = (x: LinePoint, y: LinePoint): Tensor =>
    sub(y.t, mul(sub(y.t, x.t), div(sub(add(y.slope, d2), d1), add(sub(y.slope, x.slope), mul(d2, 2)))))
  const place = where(lessEqual(a.t, b.t), from(a, b), from(b, a))
  const within = minimum(maximum(place, low), high)
  return where(greaterEqual(square2, 0), within, mul(add(low, high), 0.5))
}

interface Search {
  /** 0 while the bracket is sought, 1 while it is cut, 2 when done; float64. */
  phase: Tensor
  /** The next place to look at. */
  t: Tensor
  /** Rounds so far. */
  round: Tensor
  /** Before there is a bracket, `a` is the place before. */
  a: LinePoint
  b: LinePoint
  /** 1 where the last place was near an end of the bracket. */
  stuck: Tensor
}

/**
 * The line search of More and Thuente's conditions (strong Wolfe) by cubic interpolation, as `torch.optim.LBFGS` runs it: first a bracket,
 * which is then cut. One evaluation a round, all within the program.
 * @param at the loss and its gradient at a place of the line
 * @param start the place 0
 * @param first the first place to look at
 * @returns the best place, and how many evaluations there were
 */
export function strongWolfe(
  at: (t: Tensor) => LinePoint,
  start: LinePoint,
  first: Tensor,
  { most, c1 = 1e-4, c2 = 0.9, tolerance, reach }: WolfeOptions,
): { point: LinePoint; evaluations: Tensor } {
  const tooHigh = (p: LinePoint) => greater(p.f, add(start.f, mul(mul(p.t, c1), start.slope)))
  const flat = (p: LinePoint) => lessEqual(abs(p.slope), mul(start.slope, -c2))

  /** The next place within the bracket, away from its ends where two in a row were near one. */
  const cut = ({ a, b, stuck }: Pick<Search, 'a' | 'b' | 'stuck'>): { t: Tensor; stuck: Tensor } => {
    const [low, high] = [minimum(a.t, b.t), maximum(a.t, b.t)]
    const t = cubic(a, b, low, high)
    const margin = mul(sub(high, low), 0.1)
    const near = less(minimum(sub(high, t), sub(t, low)), margin)
    const again = logicalOr(greater(stuck, 0), logicalOr(greaterEqual(t, high), lessEqual(t, low)))
    const away = where(less(abs(sub(t, high)), abs(sub(t, low))), sub(high, margin), add(low, margin))
    return {
      t: where(logicalAnd(near, again), away, t),
      stuck: where(logicalAnd(near, logicalNot(again)), f64(1), f64(0)),
    }
  }

  const next = ({ phase, t, round, a, b, stuck }: Search): Search => {
    const p = at(t)
    const seeking = equal(phase, 0)
    const exhausted = greaterEqual(round, most)

    // Seeking: is there a bracket between the place before and this one?
    const over = logicalOr(tooHigh(p), logicalAnd(greater(round, 1), greaterEqual(p.f, a.f)))
    const enough = logicalAnd(logicalNot(over), flat(p))
    const bracketed = logicalAnd(logicalNot(enough), logicalOr(over, greaterEqual(p.slope, 0)))
    const found = {
      a: choose(exhausted, start, choose(enough, p, choose(bracketed, a, p))),
      b: p,
    }

    // Cutting: the new place takes that of one end.
    const aLow = lessEqual(a.f, b.f)
    const [low, high] = [choose(aLow, a, b), choose(aLow, b, a)]
    const worse = logicalOr(tooHigh(p), greaterEqual(p.f, low.f))
    const right = logicalAnd(logicalNot(worse), flat(p))
    const turned = logicalAnd(logicalNot(logicalOr(worse, right)), greaterEqual(mul(p.slope, sub(high.t, low.t)), 0))
    const newLow = choose(worse, low, p)
    const newHigh = choose(worse, p, choose(turned, low, high))
    const shrunk = { a: choose(aLow, newLow, newHigh), b: choose(aLow, newHigh, newLow) }

    const ends = { a: choose(seeking, found.a, shrunk.a), b: choose(seeking, found.b, shrunk.b) }
    const small = less(mul(abs(sub(ends.b.t, ends.a.t)), reach), tolerance)
    const done = where(
      seeking,
      logicalOr(exhausted, logicalOr(enough, logicalAnd(bracketed, small))),
      logicalOr(exhausted, logicalOr(right, small)),
    )
    const onward = logicalAnd(seeking, logicalNot(bracketed))
    const inner = cut({ ...ends, stuck: where(seeking, 0, stuck) })
    const farther = cubic(a, p, add(t, mul(sub(t, a.t), 0.01)), mul(t, 10))
    return {
      phase: where(done, f64(2), where(onward, f64(0), f64(1))),
      t: where(onward, farther, inner.t),
      round: add(round, 1),
      ...ends,
      stuck: where(onward, f64(0), inner.stuck),
    }
  }
  const end = whileLoop(({ phase }: Search) => less(phase, 2), next, {
    phase: f64(0),
    t: first,
    round: f64(0),
    a: start,
    b: start,
    stuck: f64(0),
  })
  return { point: choose(lessEqual(end.a.f, end.b.f), end.a, end.b), evaluations: end.round }
}
