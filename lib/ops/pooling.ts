import { checkOptions, SteepestError } from '../errors.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { FLOATS, requireDtype } from './define.js'
import { matmul } from './matmul.js'
import { avgPoolRow, maxPoolRow } from './pooling-rows.js'
import { mean } from './reduce.js'
import { reshape, tensor, transpose } from './shape.js'
import { type Padding, type PerAxis, perAxis, type WindowShape, windowShape } from './windows.js'

/** Over what is pooled. */
export interface PoolingOptions {
  /** Places in a window: one number for all of the last axes that are pooled, or one per axis. */
  size: PerAxis
  /** Places between two windows; the size by default. */
  stride?: PerAxis
  /** Places before and after each axis, at most half of the window; 0 by default. */
  padding?: Padding
  /** True counts a last window that the padded input ends in; false by default. */
  ceilMode?: boolean
}
/** Over what the largest number is taken. */
export interface MaxPoolingOptions extends PoolingOptions {
  /** Places between two elements of a window; 1 by default. */
  dilation?: PerAxis
}
/** Over what the mean is taken. */
export interface AvgPoolingOptions extends PoolingOptions {
  /** Whether the zeros of the padding count as elements; true by default, as in PyTorch. */
  countIncludePad?: boolean
}

function requireImage(who: string, x: Tensor): void {
  requireDtype(who, x, FLOATS)
  if (x.rank !== 3 && x.rank !== 4)
    throw new SteepestError('SHAPE', { who, rule: 'x must be [N, C, L] or [N, C, H, W]', got: showShape(x.shape) })
}

interface Geometry {
  size: number[]
  stride: number[]
  padding: number[]
  dilation: number[]
  counts: number[]
}

/** The rule of PyTorch: a last window that the input ends in counts with `ceilMode`, if it begins within the input. */
function countOf(length: number, i: number, shape: WindowShape, ceilMode: boolean): number {
  const [before, after] = shape.padding[i]
  const stride = shape.stride[i]
  const room = length + before + after - shape.dilation[i] * (shape.size[i] - 1) - 1
  const count = Math.floor((room + (ceilMode ? stride - 1 : 0)) / stride) + 1
  return ceilMode && (count - 1) * stride >= length + before ? count - 1 : count
}

function geometryOf(who: string, x: Tensor, options: MaxPoolingOptions): Geometry {
  requireImage(who, x)
  const { size, stride = size, padding, dilation, ceilMode = false } = options
  const axes = x.rank - 2
  const shape = windowShape(who, size, axes, { stride, padding, dilation })
  const lengths = x.shape.slice(2)
  const counts = lengths.map((length, i) => {
    const reach = shape.dilation[i] * (shape.size[i] - 1) + 1
    const [before, after] = shape.padding[i]
    if (Math.max(before, after) > Math.floor(reach / 2) && !(padding === 'same' && before <= reach / 2)) {
      throw new SteepestError('OPTION', {
        who,
        rule: '`padding` must be at most half of the window, so that no window sees only padding',
        got: `${Math.max(before, after)} around a window over ${reach} places`,
      })
    }
    const count = countOf(length, i, shape, ceilMode)
    if (count < 1 || length < 1) {
      throw new SteepestError('SHAPE', {
        who,
        rule: 'the window must fit into the padded input',
        got: `a window over ${reach} places for ${showShape(x.shape)}`,
      })
    }
    // With a dilation a window may step over a short input.
    for (let o = 0; o < count; o++) {
      const start = o * shape.stride[i] - before
      if (start >= 0) break
      const first = start + Math.ceil(-start / shape.dilation[i]) * shape.dilation[i]
      if (first >= length || first >= start + reach) {
        throw new SteepestError('OPTION', {
          who,
          rule: 'every window must see an element of the input',
          got: `window ${o} with dilation ${shape.dilation[i]} and padding ${before} over ${showShape(x.shape)}`,
        })
      }
    }
    return count
  })
  const one = axes === 1
  return {
    size: [...(one ? [1] : []), ...shape.size],
    stride: [...(one ? [1] : []), ...shape.stride],
    padding: [...(one ? [0, 0] : []), ...shape.padding.flat()],
    dilation: [...(one ? [1] : []), ...shape.dilation],
    counts: [...(one ? [1] : []), ...counts],
  }
}

const tall = (x: Tensor): Tensor => (x.rank === 4 ? x : reshape(x, [x.shape[0], x.shape[1], 1, x.shape[2]]))
const like = (y: Tensor, x: Tensor): Tensor => (x.rank === 4 ? y : reshape(y, [y.shape[0], y.shape[1], y.shape[3]]))

const KNOWN = ['size', 'stride', 'padding', 'ceilMode']

/**
 * The largest number of every window: [N, C, L] → [N, C, L'], [N, C, H, W] → [N, C, H', W']. What lies around `x` is −∞; NaN is larger than
 * all. The gradient goes to the first of the largest in row-major order, as in PyTorch.
 *
 * @throws {SteepestError} OPTION where the padding is more than half of the window; SHAPE where no window fits
 */
export function maxPool(x: Tensor, options: MaxPoolingOptions): Tensor {
  checkOptions('maxPool', options, [...KNOWN, 'dilation'])
  const geometry = geometryOf('maxPool', x, options)
  return like(maxPoolRow([tall(x)], geometry)[0], x)
}

/**
 * The mean of every window, of the same shapes. Zeros around `x` count unless `countIncludePad` is false; what a last window of `ceilMode`
 * sees beyond them never does.
 *
 * @throws {SteepestError} OPTION where the padding is more than half of the window; SHAPE where no window fits
 */
export function avgPool(x: Tensor, options: AvgPoolingOptions): Tensor {
  checkOptions('avgPool', options, [...KNOWN, 'countIncludePad'])
  const { countIncludePad = true, ...rest } = options
  const { dilation: _, ...geometry } = geometryOf('avgPool', x, rest)
  return like(avgPoolRow([tall(x)], { ...geometry, includePad: countIncludePad })[0], x)
}

/** [out, in]: row i is the mean of places ⌊i·in/out⌋ up to ⌈(i + 1)·in/out⌉. */
function averages(length: number, out: number, dtype: Tensor['dtype']): Tensor {
  const rows = new Float64Array(out * length)
  for (let i = 0; i < out; i++) {
    const [from, to] = [Math.floor((i * length) / out), Math.ceil(((i + 1) * length) / out)]
    rows.fill(1 / (to - from), i * length + from, i * length + to)
  }
  return tensor(rows, { shape: [out, length], dtype })
}

/**
 * The mean of windows that cut each of the last axes into `size` parts, as equal as whole places allow (they overlap where they must);
 * 1, the global mean, by default. x is [N, C, L] or [N, C, H, W].
 */
export function adaptiveAvgPool(x: Tensor, options: { size?: PerAxis } = {}): Tensor {
  const who = 'adaptiveAvgPool'
  checkOptions(who, options, ['size'])
  requireImage(who, x)
  const axes = x.rank - 2
  const size = perAxis(who, 'size', options.size ?? 1, axes, 1)
  const lengths = x.shape.slice(2)
  if (lengths.some((n) => n < 1))
    throw new SteepestError('SHAPE', { who, rule: 'x must have places to average', got: showShape(x.shape) })
  if (size.every((n) => n === 1)) return mean(x, { axis: lengths.map((_, i) => 2 + i), keepDims: true })
  if (size.every((n, i) => lengths[i] % n === 0)) return avgPool(x, { size: lengths.map((n, i) => n / size[i]) })
  const along = (t: Tensor, i: number) => matmul(t, transpose(averages(lengths[i], size[i], x.dtype)))
  if (axes === 1) return along(x, 0)
  const turned = along(transpose(along(x, 1), [0, 1, 3, 2]), 0)
  return transpose(turned, [0, 1, 3, 2])
}
