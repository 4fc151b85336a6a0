import { checkOptions } from '../errors.js'
import { gelu, relu, silu, tanh } from '../ops/elementwise.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { Linear } from './linear.js'
import { Keys, Module } from './module.js'

/** Activations by name. */
export const activations = {
  relu,
  silu,
  tanh,
  gelu: (x: Tensor) => gelu(x),
  geluTanh: (x: Tensor) => gelu(x, { approximate: 'tanh' }),
} as const

/** The name of an activation function. */
export type Activation = keyof typeof activations

/** Linear layers with an activation between them: `widths` lists the input, the hidden and the output widths. */
export class MLP extends Module {
  layers: Linear[]
  readonly activation: Activation

  constructor(
    widths: readonly number[],
    options: { activation?: Activation; bias?: boolean; dtype?: DType; seed?: number } = {},
  ) {
    super()
    checkOptions('MLP', options, ['activation', 'bias', 'dtype', 'seed'])
    const keys = new Keys(options.seed ?? 0)
    this.activation = options.activation ?? 'relu'
    this.layers = widths
      .slice(1)
      .map(
        (outputs, i) => new Linear(widths[i], outputs, { bias: options.bias, dtype: options.dtype, key: keys.next() }),
      )
  }

  forward(x: Tensor): Tensor {
    return this.layers.reduce(
      (h, layer, i) =>
        withScope(`layers.${i}`, () => (i === 0 ? layer.forward(h) : layer.forward(activations[this.activation](h)))),
      x,
    )
  }
}
