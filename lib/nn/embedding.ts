import { checkOptions } from '../errors.js'
import { embedding } from '../ops/indexing.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type Initializer, normal } from './init.js'
import { defaultKeys, Module } from './module.js'

/** A table of vectors, weight [count, width]; `forward` takes int32 ids of any shape. */
export class Embedding extends Module {
  weight: Tensor

  constructor(count: number, width: number, options: { init?: Initializer; dtype?: DType; key?: Tensor } = {}) {
    super()
    checkOptions('Embedding', options, ['init', 'dtype', 'key'])
    this.weight = (options.init ?? normal(1))(
      options.key ?? defaultKeys().next(),
      [count, width],
      options.dtype ?? 'float32',
    )
  }

  forward(ids: Tensor): Tensor {
    return embedding(this.weight, ids)
  }
}
