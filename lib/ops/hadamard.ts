import { checkOptions, SteepestError } from '../errors.js'
import { normalizeAxis, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { swapAxes } from './shape.js'

const hadamardRow = defineOp<{ normalized: boolean }>({
  name: 'hadamard',
  kind: 'kernel',
  doc: 'Fast Walsh–Hadamard transform of each row (last axis, a power of two long), Sylvester order; normalized: divided by √n, then its own inverse.',
  attrs: { normalized: 'bool' },
  infer: ([x]) => {
    const who = 'hadamard'
    requireDtype(who, x, FLOATS)
    const n = x.shape.length === 0 ? 0 : x.shape[x.shape.length - 1]
    if (n < 1 || !Number.isInteger(Math.log2(n))) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'the axis must be a power of two long',
        got: showAval(x),
        fix: 'Use pad first',
      })
    }
    return [{ shape: x.shape, dtype: x.dtype }]
  },
  // The matrix is symmetric.
  vjp: ({ grads: [g], attrs }): (Tensor | null)[] => hadamardRow([g!], attrs),
  batch: ({ inputs, attrs }): Tensor[] => hadamardRow(inputs, attrs),
  flops: ([x]) => sizeOf(x.shape) * Math.log2(x.shape[x.shape.length - 1]),
  inplace: [[0, 0]],
})

/**
 * Fast Walsh–Hadamard transform along an axis (n log n): y = H x, H the ±1 matrix in Sylvester's (natural) order.
 *
 * @param x float tensor; the axis must be a power of two long. bfloat16 is computed in float32
 * @param options `axis` default the last; `normalized` (default true) divides by √n, which makes it orthogonal and its own inverse
 */
export function hadamard(x: Tensor, options: { axis?: number; normalized?: boolean } = {}): Tensor {
  checkOptions('hadamard', options, ['axis', 'normalized'])
  if (x.rank === 0)
    throw new SteepestError('SHAPE', { who: 'hadamard', rule: 'the input needs at least one axis', got: showAval(x) })
  const axis = normalizeAxis('hadamard', options.axis ?? -1, x.rank)
  const attrs = { normalized: options.normalized ?? true }
  if (axis === x.rank - 1) return hadamardRow([x], attrs)[0]
  return swapAxes(hadamardRow([swapAxes(x, axis, -1)], attrs)[0], axis, -1)
}
