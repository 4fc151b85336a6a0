import { checkOptions } from '../errors.js'
import { stopGradient } from '../ops/control.js'
import { equal, where } from '../ops/elementwise.js'
import { embedding } from '../ops/indexing.js'
import { expandDims } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/tensor.js'
import { type Initializer, normal } from './init.js'
import { defaultKeys, Module } from './module.js'

/** How an `Embedding` is made. */
export interface EmbeddingOptions {
  init?: Initializer
  dtype?: DType
  key?: Tensor
  /** The row of this id gets no gradient: it stays what it is. */
  paddingId?: number
}

/** A table of vectors, weight [count, width]; `forward` takes int32 ids of any shape. */
export class Embedding extends Module {
  weight: Tensor
  private readonly paddingId: number | undefined

  constructor(count: number, width: number, options: EmbeddingOptions = {}) {
    super()
    checkOptions('Embedding', options, ['init', 'dtype', 'key', 'paddingId'])
    this.paddingId = options.paddingId
    this.weight = (options.init ?? normal(1))(
      options.key ?? defaultKeys().next(),
      [count, width],
      options.dtype ?? 'float32',
    )
  }

  forward(ids: Tensor): Tensor {
    const rows = embedding(this.weight, ids)
    if (this.paddingId === undefined) return rows
    return where(expandDims(equal(ids, this.paddingId), -1), stopGradient(rows), rows)
  }
}
