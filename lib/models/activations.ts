import { gelu, relu, silu } from '../ops/elementwise.js'
import type { Tensor } from '../tensor/tensor.js'

/** Activations of the feed-forward layers, by the names that `config.json` has for them. */
export const ACTIVATIONS: Readonly<Record<string, (x: Tensor) => Tensor>> = {
  silu,
  swish: silu,
  relu,
  gelu: (x) => gelu(x),
  gelu_new: (x) => gelu(x, { approximate: 'tanh' }),
  gelu_pytorch_tanh: (x) => gelu(x, { approximate: 'tanh' }),
}
