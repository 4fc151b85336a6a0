import { checkOptions, SteepestError } from '../errors.js'
import { add, cast, div, maximum, mul } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { norm } from '../ops/reduce.js'
import { swapAxes } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { showAval } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { checkPositive } from './options.js'

/** How `newtonSchulz` runs. */
export interface NewtonSchulzOptions {
  /** Rounds, a whole number of 0 or more. Default 5. */
  steps?: number
  /** a, b, c of X ← aX + (bA + cA²)X with A = XXᵀ. Default 3.4445, −4.775, 2.0315. */
  coefficients?: readonly [number, number, number]
  /** Guards the division by the Frobenius norm, above 0. Default 1e-7. */
  eps?: number
  /** Whether eps is added to the norm, or is the least that it may be. Default `add`. */
  guard?: 'add' | 'least'
  /** What products are computed in; by default the dtype of `x`. The authors' code takes bfloat16. */
  dtype?: DType
}

const DEFAULTS = [3.4445, -4.775, 2.0315] as const

/**
 * A matrix with the singular vectors of `x` and singular values near one (about 0.7 to 1.2 with the default coefficients): the quintic
 * Newton–Schulz iteration on x / ‖x‖. Source: Jordan et al., "Muon", 2024; Bernstein, Newhouse, arXiv 2409.20325.
 * @param x [..., m, n], a float dtype
 * @returns of the shape and dtype of `x`
 */
export function newtonSchulz(x: Tensor, options: NewtonSchulzOptions = {}): Tensor {
  const who = 'optim.newtonSchulz'
  checkOptions(who, options, ['steps', 'coefficients', 'eps', 'guard', 'dtype'])
  const { steps = 5, coefficients = DEFAULTS, eps = 1e-7, guard = 'add', dtype = x.dtype } = options
  if (x.rank < 2) throw new SteepestError('SHAPE', { who, rule: 'it takes matrices', got: showAval(x) })
  if (!Number.isSafeInteger(steps) || steps < 0)
    throw new SteepestError('OPTION', { who, rule: '`steps` must be a whole number of 0 or more', got: String(steps) })
  if (coefficients.length !== 3 || !coefficients.every(Number.isFinite))
    throw new SteepestError('OPTION', { who, rule: '`coefficients` must be three numbers', got: String(coefficients) })
  checkPositive(who, 'eps', eps)
  const [a, b, c] = coefficients
  const flat = x.shape[x.rank - 2] <= x.shape[x.rank - 1]
  const turned = (m: Tensor): Tensor => (flat ? m : swapAxes(m, -1, -2))
  const size = norm(x, { axis: [-2, -1], keepDims: true })
  // Sums of products are rounded to `dtype` once.
  const wide = dtype === 'bfloat16' ? 'float32' : dtype
  const combined = (p: Tensor, scale: number, q: Tensor, other: number): Tensor =>
    cast(add(mul(cast(p, wide), scale), mul(cast(q, wide), other)), dtype)
  let m = turned(cast(div(x, guard === 'add' ? add(size, eps) : maximum(size, eps)), dtype))
  for (let i = 0; i < steps; i++) {
    const gram = matmul(m, swapAxes(m, -1, -2))
    m = combined(m, a, matmul(combined(gram, b, matmul(gram, gram), c), m), 1)
  }
  return cast(turned(m), x.dtype)
}
