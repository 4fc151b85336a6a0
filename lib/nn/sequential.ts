import { type Tensor, withScope } from '../tensor/tensor.js'
import { Module, type Context } from './module.js'

/** Anything with a forward pass from tensor to tensor, or such a function itself. */
export type Layer = { forward(x: Tensor, ctx: Context): Tensor } | ((x: Tensor, ctx: Context) => Tensor)

/** Layers one after another. */
export class Sequential extends Module {
  layers: Layer[]

  constructor(...layers: Layer[]) {
    super()
    this.layers = layers
  }

  forward(x: Tensor, ctx: Context): Tensor {
    return this.layers.reduce(
      (h, layer, i) =>
        withScope(`layers.${i}`, () => (typeof layer === 'function' ? layer(h, ctx) : layer.forward(h, ctx))),
      x,
    )
  }
}
