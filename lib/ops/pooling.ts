import { checkOptions, SteepestError } from '../errors.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { FLOATS, requireDtype } from './define.js'
import { max, mean } from './reduce.js'
import { type Padding, type PerAxis, windows, type WindowShape, windowShape } from './windows.js'

/** Over what is pooled. */
export interface PoolingOptions {
  /** Places in a window: one number for all of the last axes that are pooled, or one per axis. */
  size: PerAxis
  /** Places between two windows; the size by default. */
  stride?: PerAxis
  /** Places before and after each axis; 0 by default. */
  padding?: Padding
}

/** x is [N, C, L] or [N, C, H, W]. */
function shapeOf(who: string, x: Tensor, options: PoolingOptions): WindowShape {
  checkOptions(who, options, ['size', 'stride', 'padding'])
  requireDtype(who, x, FLOATS)
  if (x.rank !== 3 && x.rank !== 4)
    throw new SteepestError('SHAPE', { who, rule: 'x must be [N, C, L] or [N, C, H, W]', got: showShape(x.shape) })
  const { size, stride = size, padding } = options
  return windowShape(who, size, x.rank - 2, { stride, padding })
}

/** The largest number of every window: [N, C, L] → [N, C, L'], [N, C, H, W] → [N, C, H', W']. What lies around `x` is −∞. */
export const maxPool = (x: Tensor, options: PoolingOptions): Tensor =>
  max(windows('maxPool', x, shapeOf('maxPool', x, options), Number.NEGATIVE_INFINITY), { axis: 2 })

/** The mean of every window; zeros around `x` count, as they do in PyTorch by default. */
export const avgPool = (x: Tensor, options: PoolingOptions): Tensor =>
  mean(windows('avgPool', x, shapeOf('avgPool', x, options)), { axis: 2 })
