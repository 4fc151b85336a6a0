import { checkOptions, SteepestError } from '../errors.js'
import { conv1d, conv2d, convTranspose1d, convTranspose2d } from '../ops/conv.js'
import { random } from '../ops/random.js'
import type { Padding, PerAxis } from '../ops/windows.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { fanInUniform, type Initializer, uniform } from './init.js'
import { defaultKeys, Module } from './module.js'

interface Common {
  stride?: PerAxis
  dilation?: PerAxis
  groups?: number
  bias?: boolean
  dtype?: DType
  init?: Initializer
  key?: Tensor
}

/** How a convolution layer is made; stride, dilation and groups are 1 and the padding is 0 where they are left out. */
export interface ConvOptions extends Common {
  padding?: Padding
}

/** How a transposed convolution layer is made: as the convolution whose gradient it is. */
export interface ConvTransposeOptions extends Common {
  padding?: Exclude<Padding, 'same' | 'valid'>
  /** Places added after each axis, fewer than the stride; 0 by default. */
  outputPadding?: PerAxis
}

const KNOWN = ['stride', 'padding', 'dilation', 'groups', 'bias', 'dtype', 'init', 'key']

abstract class Layer<How extends Common> extends Module {
  weight: Tensor
  bias: Tensor | null
  protected readonly how: Pick<How, Exclude<keyof How, 'bias' | 'dtype' | 'init' | 'key'>>

  constructor(who: string, shape: readonly number[], outputs: number, options: How, known: readonly string[]) {
    super()
    checkOptions(who, options, known)
    if (shape.some((n) => !Number.isSafeInteger(n) || n < 1)) {
      throw new SteepestError('OPTION', {
        who,
        rule: 'channels, kernel and groups must be whole numbers of 1 or more, and `groups` must divide both channels',
        got: `a weight of [${shape.join(', ')}]`,
      })
    }
    const { bias = true, dtype = 'float32', init = fanInUniform(), key = defaultKeys().next(), ...how } = options
    this.how = how
    this.weight = init(key, shape, dtype)
    const bound = 1 / Math.sqrt(shape.slice(1).reduce((n, d) => n * d, 1))
    this.bias = bias ? uniform(bound)(random.foldIn(key, 1), [outputs], dtype) : null
  }

  protected get options(): Layer<How>['how'] & { bias?: Tensor } {
    return { ...this.how, bias: this.bias ?? undefined }
  }
}

const square = (kernel: number | readonly [number, number]): readonly [number, number] =>
  typeof kernel === 'number' ? [kernel, kernel] : kernel

abstract class Conv extends Layer<ConvOptions> {
  constructor(who: string, inputs: number, outputs: number, kernel: readonly number[], options: ConvOptions) {
    super(who, [outputs, inputs / (options.groups ?? 1), ...kernel], outputs, options, KNOWN)
  }
}

/** Convolution over one axis: x [N, C, L], weight [out, in/groups, k]. */
export class Conv1d extends Conv {
  constructor(inputs: number, outputs: number, kernel: number, options: ConvOptions = {}) {
    super('Conv1d', inputs, outputs, [kernel], options)
  }
  forward(x: Tensor): Tensor {
    return conv1d(x, this.weight, this.options)
  }
}

/** Convolution over two axes: x [N, C, H, W], weight [out, in/groups, kh, kw]. */
export class Conv2d extends Conv {
  constructor(inputs: number, outputs: number, kernel: number | readonly [number, number], options: ConvOptions = {}) {
    super('Conv2d', inputs, outputs, square(kernel), options)
  }
  forward(x: Tensor): Tensor {
    return conv2d(x, this.weight, this.options)
  }
}

abstract class ConvTranspose extends Layer<ConvTransposeOptions> {
  constructor(who: string, inputs: number, outputs: number, kernel: readonly number[], options: ConvTransposeOptions) {
    super(who, [inputs, outputs / (options.groups ?? 1), ...kernel], outputs, options, [...KNOWN, 'outputPadding'])
  }
}

/** Transposed convolution over one axis: x [N, C, L], weight [in, out/groups, k]. */
export class ConvTranspose1d extends ConvTranspose {
  constructor(inputs: number, outputs: number, kernel: number, options: ConvTransposeOptions = {}) {
    super('ConvTranspose1d', inputs, outputs, [kernel], options)
  }
  forward(x: Tensor): Tensor {
    return convTranspose1d(x, this.weight, this.options)
  }
}

/** Transposed convolution over two axes: x [N, C, H, W], weight [in, out/groups, kh, kw]. */
export class ConvTranspose2d extends ConvTranspose {
  constructor(
    inputs: number,
    outputs: number,
    kernel: number | readonly [number, number],
    options: ConvTransposeOptions = {},
  ) {
    super('ConvTranspose2d', inputs, outputs, square(kernel), options)
  }
  forward(x: Tensor): Tensor {
    return convTranspose2d(x, this.weight, this.options)
  }
}
