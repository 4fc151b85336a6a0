import { checkOptions, SteepestError } from '../errors.js'
import { concat, eye, oneHot } from '../ops/assemble.js'
import {
  add,
  div,
  equal,
  greater,
  less,
  lessEqual,
  logicalAnd,
  maximum,
  minimum,
  mul,
  neg,
  sqrt,
  square,
  sub,
  where,
} from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { solve } from '../ops/linalg.js'
import { matmul } from '../ops/matmul.js'
import { random } from '../ops/random.js'
import { argmax, argmin, max, sum } from '../ops/reduce.js'
import { expandDims, full, reshape, scalar, slice, transpose } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { whileLoop } from '../transform/loop.js'

/** Makes one gradient of those of several tasks: weights of their sum, from their products with each other. */
export interface Combiner {
  readonly name: string
  /**
   * @param gram float64 [m, m], ⟨gᵢ, gⱼ⟩
   * @param key int32 [2], for combiners that draw random numbers
   * @returns float64 [m]
   */
  weights(gram: Tensor, key: () => Tensor): Tensor
}

const ROUNDS = 500
const dot = (a: Tensor, b: Tensor): Tensor => sum(mul(a, b))
const along = (gram: Tensor, w: Tensor): Tensor => reshape(matmul(gram, expandDims(w, 1)), [w.shape[0]])
const uniform = (m: number): Tensor => full([m], 1 / m, 'float64')
const diagonal = (gram: Tensor): Tensor => sum(mul(gram, eye(gram.shape[0], { dtype: 'float64' })), { axis: 1 })

/**
 * The least of a convex function over the simplex, by Frank–Wolfe steps that move weight from the worst vertex that has some to the best.
 * @param slope derivative by the weights
 * @param reach how far to go from `w` along `d`, not below 0
 */
function overSimplex(
  m: number,
  slope: (w: Tensor) => Tensor,
  reach: (w: Tensor, d: Tensor) => Tensor,
  size: Tensor,
): Tensor {
  interface State {
    w: Tensor
    gap: Tensor
    round: Tensor
  }
  const next = ({ w, round }: State): State => {
    const g = slope(w)
    const best = argmin(g)
    const worst = argmax(where(greater(w, 0), g, -Infinity))
    const d = sub(oneHot(best, m, { dtype: 'float64' }), oneHot(worst, m, { dtype: 'float64' }))
    const step = minimum(maximum(reach(w, d), 0), take(w, worst))
    // Weights that are all given away are zero, not nearly so.
    return { w: maximum(add(w, mul(d, step)), 0), gap: neg(dot(g, d)), round: add(round, 1) }
  }
  const end = whileLoop(
    ({ gap, round }: State) => logicalAnd(greater(gap, mul(size, 1e-14)), less(round, ROUNDS)),
    next,
    { w: uniform(m), gap: full([], Infinity, 'float64'), round: scalar(0, 'float64') },
  )
  return end.w
}

const noMore = (x: Tensor, otherwise: Tensor): Tensor => where(greater(x, 0), otherwise, 0)

/** How `combine.cagrad` combines. */
export interface CagradOptions {
  /** How far from the mean the result may be, in units of its norm, in [0, 1). Default 0.4. */
  c?: number
  /** Divide the result by 1 + c², as the authors' code does. Default true. */
  rescale?: boolean
}

/** Ways of making one gradient of those of several tasks. */
export const combine = {
  /** Their sum. */
  sum: (): Combiner => ({ name: 'sum', weights: (gram) => full([gram.shape[0]], 1, 'float64') }),

  /** Their mean. */
  mean: (): Combiner => ({ name: 'mean', weights: (gram) => uniform(gram.shape[0]) }),

  /** MGDA: the shortest vector in their convex hull, along which no task gets worse. Source: Désidéri 2012; Sener, Koltun, arXiv 1810.04650. */
  minNorm: (): Combiner => ({
    name: 'minNorm',
    weights: (gram) =>
      overSimplex(
        gram.shape[0],
        (w) => along(gram, w),
        (w, d) => {
          const curve = dot(d, along(gram, d))
          return noMore(curve, div(neg(dot(d, along(gram, w))), where(greater(curve, 0), curve, 1)))
        },
        max(diagonal(gram)),
      ),
  }),

  /**
   * PCGrad: the sum of all, each of which first loses, for every other in a random order, what points against it.
   * Source: Yu et al., arXiv 2001.06782.
   */
  pcgrad: (): Combiner => ({
    name: 'pcgrad',
    weights(gram, key) {
      const m = gram.shape[0]
      let total = full([m], 0, 'float64')
      for (let i = 0; i < m; i++) {
        const order = random.permutation(random.foldIn(key(), i), m)
        let own = oneHot(scalar(i, 'int32'), m, { dtype: 'float64' })
        for (let k = 0; k < m; k++) {
          const j = reshape(slice(order, [[k, k + 1]]), [])
          const other = oneHot(j, m, { dtype: 'float64' })
          const product = dot(own, along(gram, other))
          const size = dot(other, along(gram, other))
          const against = logicalAnd(less(product, 0), logicalAnd(greater(size, 0), less(equal(j, i), 1)))
          own = sub(own, mul(other, where(against, div(product, where(greater(size, 0), size, 1)), 0)))
        }
        total = add(total, own)
      }
      return total
    },
  }),

  /** CAGrad: what helps the task that gains least, not far from the mean. Source: Liu et al., arXiv 2110.14048. */
  cagrad(options: CagradOptions = {}): Combiner {
    const who = 'optim.combine.cagrad'
    checkOptions(who, options, ['c', 'rescale'])
    const { c = 0.4, rescale = true } = options
    if (!(c >= 0 && c < 1)) throw new SteepestError('OPTION', { who, rule: '`c` must be in [0, 1)', got: String(c) })
    return {
      name: 'cagrad',
      weights(gram) {
        const m = gram.shape[0]
        const even = uniform(m)
        const mean = along(gram, even)
        const radius = mul(sqrt(maximum(dot(even, mean), 0)), c)
        const sizeOf = (w: Tensor) => sqrt(maximum(dot(w, along(gram, w)), 1e-300))
        const w = overSimplex(
          m,
          (at) => add(mean, mul(along(gram, at), div(radius, sizeOf(at)))),
          (at, d) => {
            // Along d the derivative is a + radius (b + γ curve) / √q(γ): zero where y / √(y² + rest) is r, y being b + γ curve.
            const [a, b, curve] = [dot(d, mean), dot(d, along(gram, at)), dot(d, along(gram, d))]
            const rest = maximum(sub(mul(dot(at, along(gram, at)), curve), square(b)), 0)
            const r = div(neg(a), maximum(mul(radius, sqrt(maximum(curve, 0))), 1e-300))
            const y = mul(r, sqrt(div(rest, maximum(sub(1, square(r)), 1e-300))))
            const inner = div(sub(y, b), maximum(curve, 1e-300))
            return where(lessEqual(r, -1), 0, where(lessEqual(1, r), Infinity, inner))
          },
          max(diagonal(gram)),
        )
        const pull = where(greater(dot(w, along(gram, w)), 0), div(radius, sizeOf(w)), 0)
        const all = add(even, mul(w, pull))
        return rescale ? div(all, 1 + c * c) : all
      },
    }
  },

  /**
   * IMTL-G: the combination with weights of sum 1 whose projection on every gradient is equally long.
   * Source: Liu et al., "Towards impartial multi-task learning", ICLR 2021.
   */
  imtl: (): Combiner => ({
    name: 'imtl',
    weights(gram) {
      const m = gram.shape[0]
      if (m === 1) return full([1], 1, 'float64')
      const sizes = sqrt(maximum(diagonal(gram), 1e-300))
      // unit[i, j] = ⟨gᵢ, uⱼ⟩
      const unit = div(gram, expandDims(sizes, 0))
      const first = slice(unit, [[0, 1]])
      const others = slice(unit, [[1, m]])
      const head = (x: Tensor) => slice(x, [null, [0, 1]])
      const tail = (x: Tensor) => slice(x, [null, [1, m]])
      // ⟨g₁ − gᵢ, u₁ − uⱼ⟩
      const system = sub(sub(head(first), tail(first)), sub(head(others), tail(others)))
      const right = reshape(sub(head(first), tail(first)), [m - 1])
      // Where gradients are alike any weights do.
      const ridge = mul(eye(m - 1, { dtype: 'float64' }), add(mul(max(sizes), 1e-13), 1e-300))
      const rest = solve(add(transpose(system), ridge), right)
      return concat([reshape(sub(1, sum(rest)), [1]), rest])
    },
  }),

  /** One's own, from the products of the gradients with each other. */
  of: (weights: Combiner['weights'], name = 'own'): Combiner => ({ name, weights }),
}

/** @internal */
export function checkCombiner(who: string, combiner: unknown): Combiner {
  if (typeof combiner === 'object' && combiner !== null && typeof (combiner as Combiner).weights === 'function')
    return combiner as Combiner
  throw new SteepestError('OPTION', {
    who,
    rule: '`combine` must have `weights`',
    got: String(combiner),
    fix: 'Take one of optim.combine',
  })
}
