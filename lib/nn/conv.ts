import { checkOptions } from '../errors.js'
import { conv1d, conv2d } from '../ops/conv.js'
import { random } from '../ops/random.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { fanInUniform, type Initializer, uniform } from './init.js'
import { defaultKeys, Module } from './module.js'

/** How a convolution layer is made; stride, dilation and groups are 1 and the padding is 0 where they are left out. */
export interface ConvOptions {
  stride?: number | readonly number[]
  padding?: number | readonly number[] | 'same' | 'valid'
  dilation?: number | readonly number[]
  groups?: number
  bias?: boolean
  dtype?: DType
  init?: Initializer
  key?: Tensor
}

const KNOWN = ['stride', 'padding', 'dilation', 'groups', 'bias', 'dtype', 'init', 'key']

abstract class Conv extends Module {
  weight: Tensor
  bias: Tensor | null
  protected readonly how: {
    stride?: number | readonly number[]
    padding?: number | readonly number[] | 'same' | 'valid'
    dilation?: number | readonly number[]
    groups?: number
  }

  constructor(who: string, inputs: number, outputs: number, kernel: readonly number[], options: ConvOptions) {
    super()
    checkOptions(who, options, KNOWN)
    const {
      stride,
      padding,
      dilation,
      groups = 1,
      dtype = 'float32',
      init = fanInUniform(),
      key = defaultKeys().next(),
    } = options
    this.how = { stride, padding, dilation, groups }
    const shape = [outputs, inputs / groups, ...kernel]
    this.weight = init(key, shape, dtype)
    const bound =
      1 /
      Math.sqrt(
        Math.max(
          1,
          shape.slice(1).reduce((n, d) => n * d, 1),
        ),
      )
    this.bias = (options.bias ?? true) ? uniform(bound)(random.foldIn(key, 1), [outputs], dtype) : null
  }
}

/** Convolution over one axis: x [N, C, L], weight [out, in/groups, k]. */
export class Conv1d extends Conv {
  constructor(inputs: number, outputs: number, kernel: number, options: ConvOptions = {}) {
    super('Conv1d', inputs, outputs, [kernel], options)
  }
  forward(x: Tensor): Tensor {
    return conv1d(x, this.weight, { ...this.how, bias: this.bias ?? undefined })
  }
}

/** Convolution over two axes: x [N, C, H, W], weight [out, in/groups, kh, kw]. */
export class Conv2d extends Conv {
  constructor(inputs: number, outputs: number, kernel: number | readonly [number, number], options: ConvOptions = {}) {
    super('Conv2d', inputs, outputs, typeof kernel === 'number' ? [kernel, kernel] : kernel, options)
  }
  forward(x: Tensor): Tensor {
    return conv2d(x, this.weight, { ...this.how, bias: this.bias ?? undefined })
  }
}
