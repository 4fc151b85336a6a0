import { checkOptions } from '../errors.js'
import { linear } from '../ops/matmul.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { random } from '../ops/random.js'
import { fanInUniform, type Initializer, uniform } from './init.js'
import { defaultKeys, Module } from './module.js'

/** How a `Linear` layer is made. */
export interface LinearOptions {
  bias?: boolean
  dtype?: DType
  /** Initializer of the weight; uniform in ±1/√in by default (also for the bias). */
  init?: Initializer
  biasInit?: Initializer
  key?: Tensor
}

/** y = x·Wᵀ + b on the last axis; weight [out, in], bias [out]. */
export class Linear extends Module {
  weight: Tensor
  bias: Tensor | null

  constructor(inputs: number, outputs: number, options: LinearOptions = {}) {
    super()
    checkOptions('Linear', options, ['bias', 'dtype', 'init', 'biasInit', 'key'])
    const { bias = true, dtype = 'float32', init = fanInUniform(), key = defaultKeys().next() } = options
    const bound = 1 / Math.sqrt(Math.max(1, inputs))
    this.weight = init(key, [outputs, inputs], dtype)
    const biasInit = options.biasInit ?? uniform(bound)
    this.bias = bias ? biasInit(random.foldIn(key, 1), [outputs], dtype) : null
  }

  forward(x: Tensor): Tensor {
    return linear(x, this.weight, this.bias ?? undefined)
  }
}
