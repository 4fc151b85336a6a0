import { checkOptions } from '../errors.js'
import { add } from '../ops/elementwise.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { type AttentionOptions, MultiHeadAttention } from './attention.js'
import { Dropout } from './dropout.js'
import { type Activation, activations, MLP } from './mlp.js'
import { type Context, Module } from './module.js'
import { LayerNorm, RMSNorm } from './norm.js'

/** How a `TransformerBlock` is made. */
export interface BlockOptions extends AttentionOptions {
  /** Width of the feed-forward layer; 4 × width by default. */
  hidden?: number
  activation?: Activation
  norm?: 'layer' | 'rms'
}

/** A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)); x [B, T, C]. */
export class TransformerBlock extends Module {
  norm1: LayerNorm | RMSNorm
  attention: MultiHeadAttention
  norm2: LayerNorm | RMSNorm
  mlp: MLP
  dropout: Dropout

  constructor(width: number, heads: number, options: BlockOptions = {}) {
    super()
    const { hidden = 4 * width, activation = 'gelu', norm = 'layer', ...rest } = options
    checkOptions('TransformerBlock', rest, [
      'kvHeads',
      'causal',
      'window',
      'dropout',
      'bias',
      'rotaryBase',
      'dtype',
      'init',
      'seed',
    ])
    const { dtype, bias, seed = 0 } = rest
    const make = () => (norm === 'rms' ? new RMSNorm(width, { dtype }) : new LayerNorm(width, { dtype }))
    this.norm1 = make()
    this.attention = new MultiHeadAttention(width, heads, rest)
    this.norm2 = make()
    this.mlp = new MLP([width, hidden, width], {
      activation: activation in activations ? activation : 'gelu',
      bias,
      dtype,
      seed: seed + 1,
    })
    this.dropout = new Dropout(rest.dropout ?? 0)
  }

  forward(x: Tensor, ctx: Context): Tensor {
    const mixed = withScope('attention', () =>
      this.attention.forward(
        withScope('norm1', () => this.norm1.forward(x)),
        ctx,
      ),
    )
    const h = add(x, this.dropout.forward(mixed, ctx))
    const fed = withScope('mlp', () => this.mlp.forward(withScope('norm2', () => this.norm2.forward(h))))
    return add(h, this.dropout.forward(fed, ctx))
  }
}
