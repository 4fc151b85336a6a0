import { checkOptions, SteepestError } from '../errors.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { FLOATS, requireDtype } from './define.js'
import { add } from './elementwise.js'
import { matmul } from './matmul.js'
import { reshape } from './shape.js'
import { type Padding, type PerAxis, windowCounts, windows, windowShape } from './windows.js'

/** How a convolution moves over its input. */
export interface ConvolutionOptions {
  /** Places between two windows; 1 by default. */
  stride?: PerAxis
  /** Zeros before and after each axis, `same` (a stride of 1 keeps the lengths) or `valid` (none); 0 by default. */
  padding?: Padding
  /** Places between two elements of the kernel; 1 by default. */
  dilation?: PerAxis
  /** Channels fall into this many groups that do not see each other; 1 by default. */
  groups?: number
  /** [out], added to every channel. */
  bias?: Tensor
}

function conv(who: string, axes: number, x: Tensor, w: Tensor, options: ConvolutionOptions): Tensor {
  checkOptions(who, options, ['stride', 'padding', 'dilation', 'groups', 'bias'])
  const { groups = 1, bias } = options
  requireDtype(who, x, FLOATS)
  const [batch, channels] = x.shape
  const [outputs, perGroup] = w.shape
  const fits =
    x.rank === axes + 2 && w.rank === axes + 2 && x.dtype === w.dtype && Number.isSafeInteger(groups) && groups >= 1
  if (!fits || perGroup * groups !== channels || outputs % groups !== 0) {
    const places = axes === 1 ? ['L', 'k'] : ['H, W', 'kh, kw']
    throw new SteepestError('SHAPE', {
      who,
      rule: `x must be [N, C, ${places[0]}] and the weight [out, C/groups, ${places[1]}] of its dtype, with groups dividing both channels`,
      got: `${showShape(x.shape)} and ${showShape(w.shape)} in ${groups} groups`,
    })
  }
  if (bias && (bias.rank !== 1 || bias.shape[0] !== outputs)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: '`bias` must be [out]',
      got: `${showShape(bias.shape)} for ${outputs} channels`,
    })
  }
  const shape = windowShape(who, w.shape.slice(2), axes, options)
  const counts = windowCounts(who, x, shape)
  const columns = counts.reduce((n, c) => n * c, 1)
  const depth = w.shape.slice(1).reduce((n, d) => n * d, 1)
  const seen = reshape(windows(who, x, shape), [batch, groups, depth, columns])
  const kernel = reshape(w, [groups, outputs / groups, depth])
  const y = reshape(matmul(kernel, seen), [batch, outputs, ...counts])
  return bias ? add(y, reshape(bias, [outputs, ...counts.map(() => 1)])) : y
}

/**
 * Convolution (cross-correlation, as all of deep learning calls it) over one axis: x [N, C, L], w [out, C/groups, k] → [N, out, L'] with
 * L' = ⌊(L + padding − dilation·(k − 1) − 1) / stride⌋ + 1. The windows are gathered and multiplied by the kernel as one product.
 */
export const conv1d = (x: Tensor, w: Tensor, options: ConvolutionOptions = {}): Tensor =>
  conv('conv1d', 1, x, w, options)

/** The same over two axes: x [N, C, H, W], w [out, C/groups, kh, kw] → [N, out, H', W']. */
export const conv2d = (x: Tensor, w: Tensor, options: ConvolutionOptions = {}): Tensor =>
  conv('conv2d', 2, x, w, options)
