import { checkOptions, SteepestError } from '../errors.js'
import { sameShape, showAval, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import type { ConvGeometry } from './conv-define.js'
import { convRow, inputBackwardRow } from './conv-rows.js'
import { FLOATS, requireDtype } from './define.js'
import { add } from './elementwise.js'
import { reshape } from './shape.js'
import { type Padding, type PerAxis, perAxis, windowCounts, windowShape } from './windows.js'

/** How a convolution moves over its input. */
export interface ConvolutionOptions {
  /** Places between two windows; 1 by default. */
  stride?: PerAxis
  /**
   * Zeros around each axis: one number for all, one per axis, a pair `[before, after]` per axis, `same` (a stride of 1 keeps the lengths)
   * or `valid` (none); 0 by default.
   */
  padding?: Padding
  /** Places between two elements of the kernel; 1 by default. */
  dilation?: PerAxis
  /** Channels fall into this many groups that do not see each other; 1 by default. */
  groups?: number
  /** [out], added to every channel; of the dtype of x. */
  bias?: Tensor
}

/** How a transposed convolution moves: as the convolution whose gradient it is. */
export interface TransposedConvolutionOptions extends Omit<ConvolutionOptions, 'padding'> {
  /** Places that are cut off around each axis: what the convolution pads; 0 by default. */
  padding?: Exclude<Padding, 'same' | 'valid'>
  /** Places added after each axis, fewer than the stride, which makes so many lengths possible; 0 by default. */
  outputPadding?: PerAxis
}

const PLACES = [[], ['L', 'k'], ['H, W', 'kh, kw']]

function check(
  who: string,
  axes: number,
  x: Tensor,
  w: Tensor,
  layout: string,
  options: { groups?: number; bias?: Tensor },
  fits: (groups: number) => boolean,
  channels: (groups: number) => number,
): void {
  const { groups = 1, bias } = options
  requireDtype(who, x, FLOATS, 'x')
  const ranks = x.rank === axes + 2 && w.rank === axes + 2 && Number.isSafeInteger(groups) && groups >= 1
  if (!ranks || !fits(groups)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `x must be [N, C, ${PLACES[axes][0]}] and the weight ${layout}, with groups dividing both channels`,
      got: `${showShape(x.shape)} and ${showShape(w.shape)} in ${groups} groups`,
    })
  }
  if (w.dtype !== x.dtype) {
    throw new SteepestError('DTYPE', {
      who,
      rule: 'x and the weight must have one dtype',
      got: `${x.dtype} and ${w.dtype}`,
      fix: `Cast one of them, for example weight.cast('${x.dtype}')`,
    })
  }
  if (bias && !sameShape(bias.shape, [channels(groups)])) {
    throw new SteepestError('SHAPE', {
      who,
      rule: '`bias` must be [out]',
      got: `${showShape(bias.shape)} for ${channels(groups)} channels`,
    })
  }
  if (bias && bias.dtype !== x.dtype) {
    throw new SteepestError('DTYPE', {
      who,
      rule: `\`bias\` must have the dtype of x and the weight, ${x.dtype}`,
      got: showAval(bias),
      fix: `Cast it: bias.cast('${x.dtype}')`,
    })
  }
}

/** The geometry of a row, which has two axes: a first one of length 1 where there is one. */
function geometryOf(
  who: string,
  w: Tensor,
  axes: number,
  options: ConvolutionOptions,
): { [K in keyof ConvGeometry]: K extends 'groups' ? number : number[] } {
  const { stride, padding, dilation } = windowShape(who, w.shape.slice(2), axes, options)
  const one = axes === 1
  return {
    stride: [...(one ? [1] : []), ...stride],
    padding: [...(one ? [0, 0] : []), ...padding.flat()],
    dilation: [...(one ? [1] : []), ...dilation],
    groups: options.groups ?? 1,
  }
}

const tall = (t: Tensor): Tensor => (t.rank === 4 ? t : reshape(t, [t.shape[0], t.shape[1], 1, t.shape[2]]))
const flatTo = (t: Tensor, axes: number): Tensor => (axes === 2 ? t : reshape(t, [t.shape[0], t.shape[1], t.shape[3]]))

function conv(who: string, axes: number, x: Tensor, w: Tensor, options: ConvolutionOptions): Tensor {
  checkOptions(who, options, ['stride', 'padding', 'dilation', 'groups', 'bias'])
  check(
    who,
    axes,
    x,
    w,
    `[out, C/groups, ${PLACES[axes][1]}]`,
    options,
    (groups) => w.shape[1] * groups === x.shape[1] && w.shape[0] % groups === 0,
    () => w.shape[0],
  )
  windowCounts(who, x.shape, windowShape(who, w.shape.slice(2), axes, options))
  const { bias } = options
  const attrs = { ...geometryOf(who, w, axes, options), bias: bias !== undefined }
  return flatTo(convRow([tall(x), tall(w), ...(bias ? [bias] : [])], attrs)[0], axes)
}

/**
 * Convolution (cross-correlation, as all of deep learning calls it) over one axis: x [N, C, L], w [out, C/groups, k] → [N, out, L'] with
 * L' = ⌊(L + padding − dilation·(k − 1) − 1) / stride⌋ + 1. bfloat16 is multiplied as it is and summed in float32.
 *
 * @throws {SteepestError} SHAPE where channels, groups or bias do not fit or the window is longer than the padded input; DTYPE where x,
 * weight and bias have not one float dtype
 */
export const conv1d = (x: Tensor, w: Tensor, options: ConvolutionOptions = {}): Tensor =>
  conv('conv1d', 1, x, w, options)

/** The same over two axes: x [N, C, H, W], w [out, C/groups, kh, kw] → [N, out, H', W']. */
export const conv2d = (x: Tensor, w: Tensor, options: ConvolutionOptions = {}): Tensor =>
  conv('conv2d', 2, x, w, options)

function convTranspose(who: string, axes: number, x: Tensor, w: Tensor, options: TransposedConvolutionOptions): Tensor {
  checkOptions(who, options, ['stride', 'padding', 'dilation', 'groups', 'bias', 'outputPadding'])
  const { groups = 1, bias, outputPadding = 0, ...rest } = options
  check(
    who,
    axes,
    x,
    w,
    `[C, out/groups, ${PLACES[axes][1]}]`,
    options,
    (g) => w.shape[0] === x.shape[1] && w.shape[0] % g === 0,
    (g) => w.shape[1] * g,
  )
  const shape = windowShape(who, w.shape.slice(2), axes, rest)
  const more = perAxis(who, 'outputPadding', outputPadding, axes, 0)
  const size = shape.size.map((k, i) => {
    const reach = (x.shape[2 + i] - 1) * shape.stride[i] + shape.dilation[i] * (k - 1) + 1
    return reach - shape.padding[i][0] - shape.padding[i][1] + more[i]
  })
  if (more.some((n, i) => n >= shape.stride[i])) {
    throw new SteepestError('OPTION', {
      who,
      rule: '`outputPadding` must be smaller than the stride',
      got: more.join(', '),
    })
  }
  if (size.some((n) => n < 1)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: 'the output must have at least one place along each axis',
      got: `${showShape(size)} for ${showShape(x.shape)}`,
    })
  }
  const attrs = { ...geometryOf(who, w, axes, { ...rest, groups }), size: axes === 1 ? [1, ...size] : size }
  const y = flatTo(inputBackwardRow([tall(x), tall(w)], attrs)[0], axes)
  return bias ? add(y, reshape(bias, [bias.shape[0], ...size.map(() => 1)])) : y
}

/**
 * Transposed convolution over one axis, the gradient of `conv1d` by its input: x [N, C, L], w [C, out/groups, k] → [N, out, L'] with
 * L' = (L − 1)·stride − padding + dilation·(k − 1) + 1 + outputPadding.
 */
export const convTranspose1d = (x: Tensor, w: Tensor, options: TransposedConvolutionOptions = {}): Tensor =>
  convTranspose('convTranspose1d', 1, x, w, options)

/** The same over two axes: x [N, C, H, W], w [C, out/groups, kh, kw] → [N, out, H', W']. */
export const convTranspose2d = (x: Tensor, w: Tensor, options: TransposedConvolutionOptions = {}): Tensor =>
  convTranspose('convTranspose2d', 2, x, w, options)
