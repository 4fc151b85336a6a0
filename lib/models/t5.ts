import { SteepestError } from '../errors.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { type Context, Keys, Module } from '../nn/module.js'
import { RMSNorm } from '../nn/norm.js'
import { concat } from '../ops/assemble.js'
import { attention } from '../ops/attention.js'
import { add, div, equal, mul, where } from '../ops/elementwise.js'
import { embedding } from '../ops/indexing.js'
import { linearCrossEntropy } from '../ops/loss.js'
import { matmul } from '../ops/matmul.js'
import { full, reshape, slice, tensor, transpose } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { maskOf } from './causal.js'
import { ACTIVATIONS } from './activations.js'

/** Sizes of a T5. */
export interface T5Config {
  vocabSize: number
  layers: number
  decoderLayers: number
  heads: number
  /** Components of a head; heads · depth need not be the width. */
  depth: number
  width: number
  hidden: number
  /** Activation of the feed-forward layers, and whether a second projection gates it (T5 1.1). */
  activation: string
  gated: boolean
  /** Buckets of relative positions, and the distance from which all are one. */
  buckets: number
  maxDistance: number
  eps: number
  dropout: number
  /** The output layer is the token embedding; its inputs are then scaled by 1/√width where `scaled`. */
  tied: boolean
  scaled: boolean
  padId: number
  /** The token that a decoder begins with. */
  startId: number
  initializerFactor: number
  dtype: DType
  seed: number
}

/** A batch of source rows [B, T] and target rows [B, S], int32. */
export type T5Batch = {
  inputIds: Tensor
  /** 0 where a source token is padding, [B, T]. */
  attentionMask?: Tensor
  /** Target tokens; −100 is not counted. */
  labels?: Tensor
  /** What the decoder reads; by default the labels, one to the right, after the start token. */
  decoderInputIds?: Tensor
}

type Make = (inputs: number, outputs: number, std: number) => Linear

class Attention extends Module {
  q: Linear
  k: Linear
  v: Linear
  o: Linear
  relative_attention_bias: Embedding | null
  private readonly heads: number
  private readonly depth: number
  constructor(config: T5Config, make: Make, bias: Embedding | null) {
    super()
    const { width, heads, depth } = config
    this.heads = heads
    this.depth = depth
    const inner = heads * depth
    this.q = make(width, inner, (width * depth) ** -0.5)
    this.k = make(width, inner, width ** -0.5)
    this.v = make(width, inner, width ** -0.5)
    this.o = make(inner, width, inner ** -0.5)
    this.relative_attention_bias = bias
  }
  /** Attention of x [B, T, C] to `over` [B, S, C]; scores are not scaled. */
  forward(x: Tensor, over: Tensor, options: { causal?: boolean; keyMask?: Tensor; bias?: Tensor }): Tensor {
    const split = (name: string, layer: Linear, t: Tensor) =>
      reshape(
        withScope(name, () => layer.forward(t)),
        [t.shape[0], t.shape[1], this.heads, this.depth],
      )
    const y = attention(split('q', this.q, x), split('k', this.k, over), split('v', this.v, over), {
      scale: 1,
      ...options,
    })
    return withScope('o', () => this.o.forward(reshape(y, [x.shape[0], x.shape[1], this.heads * this.depth])))
  }
}

class FeedForward extends Module {
  wi: Linear | null
  wi_0: Linear | null
  wi_1: Linear | null
  wo: Linear
  private readonly activation: string
  constructor(
    { width, hidden, gated, activation }: T5Config,
    make: Make,
    private readonly drop: Dropout,
  ) {
    super()
    const up = () => make(width, hidden, width ** -0.5)
    this.activation = activation
    this.wi = gated ? null : up()
    this.wi_0 = gated ? up() : null
    this.wi_1 = gated ? up() : null
    this.wo = make(hidden, width, hidden ** -0.5)
  }
  forward(x: Tensor, ctx: Context): Tensor {
    const h = ACTIVATIONS[this.activation]((this.wi ?? this.wi_0!).forward(x))
    return this.wo.forward(this.drop.forward(this.wi_1 ? mul(h, this.wi_1.forward(x)) : h, ctx))
  }
}

/** A norm, what it goes into, and the sum with what went around both. */
type Sublayer = {
  layer_norm: RMSNorm
  SelfAttention?: Attention
  EncDecAttention?: Attention
  DenseReluDense?: FeedForward
}

interface Source {
  encoded: Tensor
  keyMask?: Tensor
}

class Stack extends Module {
  block: { layer: Sublayer[] }[]
  final_layer_norm: RMSNorm
  constructor(
    private readonly own: Pick<T5Config, 'buckets' | 'maxDistance'> & { decodes: boolean },
    config: T5Config,
    layers: number,
    make: Make,
    keys: Keys,
    private readonly drop: Dropout,
  ) {
    super()
    const { width, eps, dtype, heads, buckets, initializerFactor } = config
    const norm = () => new RMSNorm(width, { eps, dtype })
    const std = initializerFactor * width ** -0.5
    const table = () => new Embedding(buckets, heads, { init: init.normal(std), dtype, key: keys.next() })
    this.block = Array.from({ length: layers }, (_, i) => ({
      layer: [
        { SelfAttention: new Attention(config, make, i === 0 ? table() : null), layer_norm: norm() },
        ...(own.decodes ? [{ EncDecAttention: new Attention(config, make, null), layer_norm: norm() }] : []),
        { DenseReluDense: new FeedForward(config, make, drop), layer_norm: norm() },
      ],
    }))
    this.final_layer_norm = norm()
  }

  /** What is added to the scores for distances, [1, H, T, T]: the same in all layers. */
  private bias(time: number): Tensor {
    const { buckets, maxDistance, decodes } = this.own
    const table = this.block[0].layer[0].SelfAttention!.relative_attention_bias!.weight
    const ids = new Int32Array(time * time)
    for (let i = 0; i < time; i++)
      for (let j = 0; j < time; j++) ids[i * time + j] = bucketOf(j - i, !decodes, buckets, maxDistance)
    const rows = embedding(table, tensor(ids))
    return reshape(transpose(rows), [1, table.shape[1], time, time])
  }

  forward(x: Tensor, ctx: Context, source: { keyMask?: Tensor } | Source): Tensor {
    const bias = withScope('relative_attention_bias', () => this.bias(x.shape[1]))
    const { decodes } = this.own
    const around = (at: Tensor, { layer_norm, SelfAttention, EncDecAttention, DenseReluDense }: Sublayer): Tensor => {
      const normed = layer_norm.forward(at)
      if (SelfAttention) {
        const own = decodes ? { causal: true, bias } : { bias, ...(source.keyMask ? { keyMask: source.keyMask } : {}) }
        const y = withScope('SelfAttention', () => SelfAttention.forward(normed, normed, own))
        return add(at, this.drop.forward(y, ctx))
      }
      if (EncDecAttention) {
        const { encoded, keyMask } = source as Source
        const y = withScope('EncDecAttention', () =>
          EncDecAttention.forward(normed, encoded, keyMask ? { keyMask } : {}),
        )
        return add(at, this.drop.forward(y, ctx))
      }
      const fed = withScope('DenseReluDense', () => DenseReluDense!.forward(normed, ctx))
      return add(at, this.drop.forward(fed, ctx))
    }
    const y = this.block.reduce(
      (at, { layer }, i) =>
        layer.reduce((inner, sub, j) => withScope(`block.${i}.layer.${j}`, () => around(inner, sub)), at),
      this.drop.forward(x, ctx),
    )
    return this.drop.forward(this.final_layer_norm.forward(y), ctx)
  }
}

/** The bucket of a distance: exact for near ones, logarithmic for far ones (Raffel et al. 2020, section 2.1). */
function bucketOf(distance: number, bothWays: boolean, buckets: number, maxDistance: number): number {
  const half = bothWays ? buckets >> 1 : buckets
  const offset = bothWays && distance > 0 ? half : 0
  const n = bothWays ? Math.abs(distance) : Math.max(0, -distance)
  const exact = half >> 1
  if (n < exact) return offset + n
  // In float32, as the checkpoints' code has it: a distance on the border of two buckets must fall to the same side.
  const share = Math.fround(Math.fround(Math.log(n / exact)) / Math.log(maxDistance / exact))
  return offset + Math.min(half - 1, exact + Math.floor(Math.fround(share * (half - exact))))
}

/** T5 (Raffel et al. 2020) and T5 1.1, with the parameter names of its Hugging Face checkpoints. */
export class T5 extends Module {
  shared: Embedding
  encoder: Stack
  decoder: Stack
  lm_head: Linear | null
  readonly config: T5Config

  constructor(config: T5Config) {
    super()
    if (!Object.hasOwn(ACTIVATIONS, config.activation)) {
      throw new SteepestError('OPTION', {
        who: 'T5',
        rule: `the activation must be ${Object.keys(ACTIVATIONS).join(', ')}`,
        got: config.activation,
      })
    }
    this.config = config
    const { vocabSize, width, layers, decoderLayers, dropout, dtype, tied, buckets, maxDistance } = config
    const factor = config.initializerFactor
    const keys = new Keys(config.seed)
    const make: Make = (inputs, outputs, std) =>
      new Linear(inputs, outputs, { bias: false, dtype, init: init.normal(factor * std), key: keys.next() })
    const drop = new Dropout(dropout)
    this.shared = new Embedding(vocabSize, width, { init: init.normal(factor), dtype, key: keys.next() })
    const stack = (decodes: boolean, count: number) =>
      new Stack({ buckets, maxDistance, decodes }, config, count, make, keys, drop)
    this.encoder = stack(false, layers)
    this.decoder = stack(true, decoderLayers)
    this.lm_head = tied ? null : make(width, vocabSize, 1)
  }

  /** Weight of the output layer, [V, C]. */
  get head(): Tensor {
    return this.lm_head?.weight ?? this.shared.weight
  }

  /** What the encoder makes of source rows, [B, T, C]. */
  encode({ inputIds, attentionMask }: T5Batch, ctx: Context): Tensor {
    return withScope('encoder', () =>
      this.encoder.forward(this.shared.forward(inputIds), ctx, maskOf({ attentionMask })),
    )
  }

  /** The decoder's last hidden states [B, S, C] for target rows. */
  hidden(batch: T5Batch, ctx: Context): Tensor {
    const { labels, attentionMask } = batch
    const ids = batch.decoderInputIds ?? (labels && this.shiftRight(labels))
    if (!ids) throw new SteepestError('ARGUMENT', { who: 'T5', rule: 'a batch needs `labels` or `decoderInputIds`' })
    const encoded = this.encode(batch, ctx)
    const y = withScope('decoder', () =>
      this.decoder.forward(this.shared.forward(ids), ctx, { encoded, ...maskOf({ attentionMask }) }),
    )
    return this.config.scaled ? mul(y, this.config.width ** -0.5) : y
  }

  private shiftRight(labels: Tensor): Tensor {
    const { startId, padId } = this.config
    const [batch, time] = labels.shape
    const start = full([batch, 1], startId, 'int32')
    const before = slice(labels, [null, [0, time - 1]])
    return concat([start, where(equal(before, -100), padId, before)], { axis: 1 })
  }

  /** Logits [B, S, V]. */
  logits(batch: T5Batch, ctx: Context): Tensor {
    return matmul(this.hidden(batch, ctx), transpose(this.head))
  }

  /** The cross-entropy of the labels: its mean over those that count, or their sum by `ctx.normalizer`. */
  loss(batch: T5Batch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const { labels } = batch
    if (!labels) throw new SteepestError('ARGUMENT', { who: 'T5', rule: 'a batch needs `labels`' })
    const rows = reshape(this.hidden(batch, ctx), [-1, this.config.width])
    const reduction = ctx.normalizer ? 'sum' : 'mean'
    const loss = withScope('lm_head', () => linearCrossEntropy(rows, this.head, reshape(labels, [-1]), { reduction }))
    return { loss: ctx.normalizer ? div(loss, ctx.normalizer) : loss, logits: matmul(rows, transpose(this.head)) }
  }
}
