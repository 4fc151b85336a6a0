import { checkOptions, SteepestError } from '../errors.js'
import { attention, rotary } from '../ops/attention.js'
import { reshape, slice } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import type { Initializer } from './init.js'
import { Linear } from './linear.js'
import { type Context, Keys, Module } from './module.js'

/** How a `MultiHeadAttention` is made and what it may look at. */
export interface AttentionOptions {
  /** Key and value heads; fewer than `heads` for grouped queries. */
  kvHeads?: number
  causal?: boolean
  /** Attention only to this many positions before. */
  window?: number
  dropout?: number
  bias?: boolean
  /** Base of rotary positions; none without it. */
  rotaryBase?: number
  dtype?: DType
  init?: Initializer
  seed?: number
}

/** Multi-head attention (Vaswani et al. 2017) with one projection for query, key and value: x [B, T, C] to [B, T, C]. */
export class MultiHeadAttention extends Module {
  qkv: Linear
  out: Linear
  readonly heads: number
  readonly kvHeads: number
  readonly width: number
  readonly options: AttentionOptions

  constructor(width: number, heads: number, options: AttentionOptions = {}) {
    super()
    checkOptions('MultiHeadAttention', options, [
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
    const kvHeads = options.kvHeads ?? heads
    if (width % heads !== 0) {
      throw new SteepestError('OPTION', {
        who: 'MultiHeadAttention',
        rule: '`heads` must divide the width',
        got: `${heads} heads for width ${width}`,
      })
    }
    if (heads % kvHeads !== 0) {
      throw new SteepestError('OPTION', {
        who: 'MultiHeadAttention',
        rule: '`kvHeads` must divide `heads`',
        got: `${kvHeads} for ${heads}`,
      })
    }
    this.heads = heads
    this.kvHeads = kvHeads
    this.width = width
    this.options = options
    const keys = new Keys(options.seed ?? 0)
    const { bias, dtype, init } = options
    const head = width / heads
    this.qkv = new Linear(width, width + 2 * kvHeads * head, { bias, dtype, init, key: keys.next() })
    this.out = new Linear(width, width, { bias, dtype, init, key: keys.next() })
  }

  forward(x: Tensor, ctx: Context): Tensor {
    const [batch, time] = x.shape
    const head = this.width / this.heads
    const packed = withScope('qkv', () => this.qkv.forward(x))
    const part = (from: number, heads: number) =>
      reshape(slice(packed, [null, null, [from * head, (from + heads) * head]]), [batch, time, heads, head])
    let q = part(0, this.heads)
    let k = part(this.heads, this.kvHeads)
    const v = part(this.heads + this.kvHeads, this.kvHeads)
    const { causal = false, window, dropout = 0, rotaryBase } = this.options
    if (rotaryBase !== undefined) {
      q = rotary(q, { base: rotaryBase })
      k = rotary(k, { base: rotaryBase })
    }
    const drops = ctx.training && dropout > 0
    const mixed = attention(q, k, v, {
      causal,
      ...(window === undefined ? {} : { window: [window, causal ? 0 : window] as const }),
      ...(drops ? { dropout, key: ctx.requireKey('MultiHeadAttention'), site: ctx.site() } : {}),
    })
    return withScope('out', () => this.out.forward(reshape(mixed, [batch, time, this.width])))
  }
}
