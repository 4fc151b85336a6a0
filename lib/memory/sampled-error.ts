import { div, greater, maximum, mul, square, sub, where } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { sum } from '../ops/reduce.js'
import { rowNorms } from '../ops/sampling.js'
import { expandDims, swapAxes, zerosLike } from '../ops/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/**
 * The expected squared error (Frobenius) of an estimate of `xᵀ·g` whose uncertain rows are drawn with replacement:
 * Σ w_i ‖x_i‖² ‖g_i‖² − ‖Σ x_iᵀ g_i‖² / draws over these rows, w_i what a row counts when it is drawn. A scalar. Systematic draws do better.
 *
 * @param x [n, d]
 * @param g [n, f]
 * @param inverse the w_i, 0 for rows that are certain or never drawn, [n]: of `sampleRows`
 */
export function samplingError(x: Tensor, g: Tensor, inverse: Tensor): Tensor {
  const drawn = greater(inverse, 0)
  // 1/w_i is how often a row is expected.
  const draws = sum(where(drawn, div(1, inverse), zerosLike(inverse)))
  const spread = sum(mul(inverse, mul(rowNorms(x, { squared: true }), rowNorms(g, { squared: true }))))
  const rest = where(expandDims(drawn, -1), x, zerosLike(x))
  return sub(spread, div(sum(square(matmul(swapAxes(rest, 0, 1), g))), maximum(draws, 1)))
}
