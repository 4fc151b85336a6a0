import { checkOptions, SteepestError } from '../errors.js'
import {
  adaptiveAvgPool,
  avgPool,
  type AvgPoolingOptions,
  maxPool,
  type MaxPoolingOptions,
  type PoolingOptions,
} from '../ops/pooling.js'
import type { PerAxis } from '../ops/windows.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { Module } from './module.js'

/** How a layer takes the largest numbers; see `maxPool`. */
export type MaxPoolOptions = Omit<MaxPoolingOptions, 'size'>
/** How a layer takes means; see `avgPool`. */
export type AvgPoolOptions = Omit<AvgPoolingOptions, 'size'>

const COMMON = ['stride', 'padding', 'ceilMode']

abstract class Pool<How extends Omit<PoolingOptions, 'size'>> extends Module {
  protected readonly how: How & { size: PerAxis }
  private readonly who: string
  private readonly rank: number

  constructor(who: string, axes: number, size: PerAxis, options: How, known: readonly string[]) {
    super()
    checkOptions(who, options, known)
    this.who = who
    this.rank = axes + 2
    this.how = { ...options, size }
  }

  protected checked(x: Tensor): Tensor {
    if (x.rank === this.rank) return x
    const rule = `x must be ${this.rank === 3 ? '[N, C, L]' : '[N, C, H, W]'}`
    throw new SteepestError('SHAPE', { who: this.who, rule, got: showShape(x.shape) })
  }
}

abstract class MaxPool extends Pool<MaxPoolOptions> {
  constructor(who: string, axes: number, size: PerAxis, options: MaxPoolOptions) {
    super(who, axes, size, options, [...COMMON, 'dilation'])
  }
  forward(x: Tensor): Tensor {
    return maxPool(this.checked(x), this.how)
  }
}

abstract class AvgPool extends Pool<AvgPoolOptions> {
  constructor(who: string, axes: number, size: PerAxis, options: AvgPoolOptions) {
    super(who, axes, size, options, [...COMMON, 'countIncludePad'])
  }
  forward(x: Tensor): Tensor {
    return avgPool(this.checked(x), this.how)
  }
}

/** The largest number of every window: x [N, C, L]. */
export class MaxPool1d extends MaxPool {
  constructor(size: number, options: MaxPoolOptions = {}) {
    super('MaxPool1d', 1, size, options)
  }
}

/** The largest number of every window: x [N, C, H, W]. */
export class MaxPool2d extends MaxPool {
  constructor(size: PerAxis, options: MaxPoolOptions = {}) {
    super('MaxPool2d', 2, size, options)
  }
}

/** The mean of every window: x [N, C, L]. */
export class AvgPool1d extends AvgPool {
  constructor(size: number, options: AvgPoolOptions = {}) {
    super('AvgPool1d', 1, size, options)
  }
}

/** The mean of every window: x [N, C, H, W]. */
export class AvgPool2d extends AvgPool {
  constructor(size: PerAxis, options: AvgPoolOptions = {}) {
    super('AvgPool2d', 2, size, options)
  }
}

/** The mean of `size` parts of each of the last axes, of all of them by default: x [N, C, L] or [N, C, H, W]. */
export class AdaptiveAvgPool extends Module {
  readonly size: PerAxis

  constructor(size: PerAxis = 1) {
    super()
    this.size = size
  }
  forward(x: Tensor): Tensor {
    return adaptiveAvgPool(x, { size: this.size })
  }
}
