import { checkOptions, SteepestError } from '../errors.js'
import { add, cast, div, mul, sqrt, square, sub } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { mean, sum } from '../ops/reduce.js'
import { expandDims, reshape } from '../ops/shape.js'
import { sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { flatten } from '../transform/tree.js'
import { checkPositive } from './options.js'

/** How the gradients of single examples lie around their mean; float64 scalars. */
export interface GradientSpread {
  /** Σ of the variances of all coordinates (over n − 1). */
  readonly variance: Tensor
  /** ‖mean‖². */
  readonly meanSquare: Tensor
  /** Variance of ⟨g, mean⟩. */
  readonly innerVariance: Tensor
  /** Σ of the variances of what of g is orthogonal to the mean. */
  readonly orthogonalVariance: Tensor
}

/**
 * The spread of per-example gradients (`perExampleGrads` gives them).
 * @param grads a tree of tensors [n, …], n ≥ 2
 * @param weights a tree of the same without the first axis: what the square of each coordinate counts by (a preconditioner's 1 / √v)
 */
export function gradientSpread(grads: unknown, weights?: unknown): GradientSpread {
  const { tensors } = flatten(grads)
  const n = tensors[0]?.shape[0] ?? 0
  if (n < 2 || tensors.some((t) => t.shape[0] !== n))
    throw new SteepestError('SHAPE', {
      who: 'optim.gradientSpread',
      rule: 'gradients must be those of two or more examples, along the first axis',
      got: tensors.map((t) => `[${t.shape.join(', ')}]`).join(', '),
    })
  const scales = weights === undefined ? undefined : flatten(weights).tensors
  const parts = tensors.map((t, i) => {
    const rows = reshape(cast(t, 'float64'), [n, sizeOf(t.shape.slice(1))])
    return scales ? mul(rows, sqrt(reshape(cast(scales[i], 'float64'), [rows.shape[1]]))) : rows
  })
  const total = (f: (rows: Tensor) => Tensor): Tensor => parts.map(f).reduce(add)
  const centre = (rows: Tensor) => mean(rows, { axis: 0 })
  const meanSquare = total((rows) => sum(square(centre(rows))))
  const variance = div(
    total((rows) => sum(square(sub(rows, centre(rows))))),
    n - 1,
  )
  // Less the mean, so that no digits are lost where all are alike.
  const inner = total((rows) => reshape(matmul(sub(rows, centre(rows)), expandDims(centre(rows), 1)), [n]))
  const innerVariance = div(sum(square(sub(inner, mean(inner)))), n - 1)
  return { variance, meanSquare, innerVariance, orthogonalVariance: sub(variance, div(innerVariance, meanSquare)) }
}

/** Which test asks for more examples, and how strictly. */
export interface BatchTestOptions {
  /**
   * `norm`: the spread of the gradient over the size of its mean; `innerProduct`: only along the mean; `augmented`: along the mean and
   * across it. Default `norm`.
   */
  test?: 'norm' | 'innerProduct' | 'augmented'
  /** Of the norm test, above 0: the error of the gradient may be this share of it. Default 0.5. */
  eta?: number
  /** Of the inner-product test, above 0. Default 0.5. */
  theta?: number
  /** Of the augmented test's part across the mean, above 0. Default 1. */
  nu?: number
}

/** Options of `adaptiveBatch`. */
export interface AdaptiveBatchOptions extends BatchTestOptions {
  /**
   * Whose gradients are compared. `microBatches`: those that the step takes anyway, at no cost but that of the inner products; the variance of
   * the examples is estimated from their means, and a step needs two or more. `examples`: those of single examples, exactly, as the paper has
   * it: one more pass forward and backward, in which the norms come from products of what weights see and what they get back
   * (`perExampleNorms`), so that no gradient of a linear, convolution or embedding weight is made for each example where that takes more
   * memory; those of biases, norms and other weights are. Not for models whose examples meet each other (BatchNorm). Default `microBatches`.
   */
  estimator?: 'examples' | 'microBatches'
  /** Steps between two measurements, a whole number of 1 or more; between them no more is asked for. Default 1. */
  every?: number
}

export function checkAdaptiveBatch(who: string, options: AdaptiveBatchOptions): Required<AdaptiveBatchOptions> {
  const { estimator = 'microBatches', every = 1, ...rest } = options
  checkOptions(who, options, ['test', 'eta', 'theta', 'nu', 'estimator', 'every'])
  if (estimator !== 'examples' && estimator !== 'microBatches')
    throw new SteepestError('OPTION', {
      who,
      rule: '`estimator` must be examples or microBatches',
      got: String(estimator),
    })
  if (!Number.isSafeInteger(every) || every < 1)
    throw new SteepestError('OPTION', { who, rule: '`every` must be a whole number of 1 or more', got: String(every) })
  return { ...checkBatchTest(who, rest), estimator, every }
}

export function checkBatchTest(who: string, options: BatchTestOptions): Required<BatchTestOptions> {
  checkOptions(who, options, ['test', 'eta', 'theta', 'nu'])
  const { test = 'norm', eta = 0.5, theta = 0.5, nu = 1 } = options
  if (!['norm', 'innerProduct', 'augmented'].includes(test))
    throw new SteepestError('OPTION', {
      who,
      rule: '`test` must be norm, innerProduct or augmented',
      got: String(test),
    })
  for (const [name, value] of Object.entries({ eta, theta, nu })) checkPositive(who, name, value)
  return { test, eta, theta, nu }
}

/** Numbers of a spread that have been read. */
export type SpreadNumbers = { readonly [K in keyof GradientSpread]: number }

/**
 * Examples that a batch must have to pass the test with this spread, not rounded: Σ Var / (η² ‖mean‖²) of the norm test, Var⟨g, mean⟩ / (θ²
 * ‖mean‖⁴) of the inner-product test, and for the augmented one the larger of that and the part across the mean over ν² ‖mean‖².
 * Sources: Byrd et al. 2012; Bollapragada et al., arXiv 1710.11258; Lau, Liu, Kolar, arXiv 2402.11215. Infinity where the mean is 0.
 */
export function neededBatch(spread: SpreadNumbers, options: BatchTestOptions = {}): number {
  const { test, eta, theta, nu } = checkBatchTest('optim.neededBatch', options)
  const { variance, meanSquare, innerVariance, orthogonalVariance } = spread
  const over = (a: number, b: number) => (a === 0 ? 0 : a / b)
  if (test === 'norm') return over(variance, eta ** 2 * meanSquare)
  const along = over(innerVariance, theta ** 2 * meanSquare ** 2)
  if (test === 'innerProduct') return along
  return Math.max(along, over(orthogonalVariance, nu ** 2 * meanSquare))
}
