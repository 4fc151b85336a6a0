import { SteepestError } from '../errors.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { Context, Keys, Module } from '../nn/module.js'
import { RMSNorm } from '../nn/norm.js'
import { arange, concat } from '../ops/assemble.js'
import { attention } from '../ops/attention.js'
import { add, div, equal, maximum, mul, notEqual, sub, where } from '../ops/elementwise.js'
import { embedding, take } from '../ops/indexing.js'
import { linearCrossEntropy } from '../ops/loss.js'
import { matmul } from '../ops/matmul.js'
import { full, onesLike, reshape, slice, tensor, transpose, zeros } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { appended, type Cache, type CacheSize, type LayerCache, maskOf, type Step, type Writer } from './causal.js'
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
  private split(name: string, layer: Linear, t: Tensor): Tensor {
    const y = withScope(name, () => layer.forward(t))
    return reshape(y, [t.shape[0], t.shape[1], this.heads, this.depth])
  }
  /** Keys and values [B, S, heads, depth] of `over` [B, S, C]. */
  keysOf(over: Tensor): LayerCache {
    return { k: this.split('k', this.k, over), v: this.split('v', this.v, over) }
  }
  /** Attention of x [B, T, C] to keys and values; scores are not scaled. */
  look(x: Tensor, { k, v }: LayerCache, options: { causal?: boolean; keyMask?: Tensor; bias?: Tensor }): Tensor {
    const y = attention(this.split('q', this.q, x), k, v, { scale: 1, ...options })
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

/** How the attention layers of a stack see what they are given. */
interface Looking {
  self(attention: Attention, normed: Tensor, layer: number): Tensor
  source?(attention: Attention, normed: Tensor, layer: number): Tensor
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

  private get table(): Tensor {
    return this.block[0].layer[0].SelfAttention!.relative_attention_bias!.weight
  }

  /** The bucket of a distance from a query to a key. */
  private bucket(distance: number): number {
    const { buckets, maxDistance, decodes } = this.own
    return bucketOf(distance, !decodes, buckets, maxDistance)
  }

  /** What is added to the scores for distances, [1, H, T, T]: the same in all layers. */
  private bias(time: number): Tensor {
    const ids = new Int32Array(time * time)
    for (let i = 0; i < time; i++) for (let j = 0; j < time; j++) ids[i * time + j] = this.bucket(j - i)
    const rows = embedding(this.table, tensor(ids))
    return reshape(transpose(rows), [1, this.table.shape[1], time, time])
  }

  /** That of one query a row, at the places `at` [B], to the keys before it: [B, H, 1, T]. */
  private biasAt(at: Tensor, time: number): Tensor {
    const [batch] = at.shape
    const byDistance = tensor(Int32Array.from({ length: time }, (_, n) => this.bucket(-n)))
    const back = sub(reshape(at, [batch, 1]), reshape(arange(0, time, { dtype: 'int32' }), [1, time]))
    const rows = embedding(this.table, take(byDistance, maximum(back, 0), { axis: 0 }))
    return reshape(transpose(rows, [0, 2, 1]), [batch, this.table.shape[1], 1, time])
  }

  private through(x: Tensor, ctx: Context, looking: Looking): Tensor {
    const around = (at: Tensor, part: Sublayer, layer: number): Tensor => {
      const { layer_norm, SelfAttention, EncDecAttention, DenseReluDense } = part
      const normed = layer_norm.forward(at)
      const mixed = SelfAttention
        ? withScope('SelfAttention', () => looking.self(SelfAttention, normed, layer))
        : EncDecAttention
          ? withScope('EncDecAttention', () => looking.source!(EncDecAttention, normed, layer))
          : withScope('DenseReluDense', () => DenseReluDense!.forward(normed, ctx))
      return add(at, this.drop.forward(mixed, ctx))
    }
    const y = this.block.reduce(
      (at, { layer }, i) =>
        layer.reduce((inner, part, j) => withScope(`block.${i}.layer.${j}`, () => around(inner, part, i)), at),
      this.drop.forward(x, ctx),
    )
    return this.drop.forward(this.final_layer_norm.forward(y), ctx)
  }

  forward(x: Tensor, ctx: Context, { encoded, keyMask }: { encoded?: Tensor; keyMask?: Tensor }): Tensor {
    const bias = withScope('relative_attention_bias', () => this.bias(x.shape[1]))
    const mask = keyMask ? { keyMask } : {}
    const own = this.own.decodes ? { causal: true, bias } : { bias, ...mask }
    return this.through(x, ctx, {
      self: (attention, normed) => attention.look(normed, attention.keysOf(normed), own),
      source: (attention, normed) => attention.look(normed, attention.keysOf(encoded!), mask),
    })
  }

  /** Keys and values of what an encoder has read, by layer. */
  sourceKeys(encoded: Tensor): LayerCache[] {
    return this.block.map(({ layer }) => layer[1].EncDecAttention!.keysOf(encoded))
  }

  /** One token a row, [B, 1, C], that looks back at a cache and at a source. */
  next(x: Tensor, { layers, at, source }: Cache): { y: Tensor; layers: LayerCache[] } {
    const bias = this.biasAt(at, layers[0].k.shape[1])
    const grown: LayerCache[] = []
    const y = this.through(x, new Context(), {
      self: (attention, normed, i) => {
        const { cache, filled } = appended(layers[i], attention.keysOf(normed), at)
        grown.push(cache)
        return attention.look(normed, cache, { bias, keyMask: filled })
      },
      source: (attention, normed, i) => attention.look(normed, source!.layers[i], { keyMask: source!.keyMask }),
    })
    return { y, layers: grown }
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
export class T5 extends Module implements Writer {
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
    return this.scaled(y)
  }

  private shiftRight(labels: Tensor): Tensor {
    const { startId, padId } = this.config
    const [batch, time] = labels.shape
    const start = full([batch, 1], startId, 'int32')
    const before = slice(labels, [null, [0, time - 1]])
    return concat([start, where(equal(before, -100), padId, before)], { axis: 1 })
  }

  private scaled(y: Tensor): Tensor {
    return this.config.scaled ? mul(y, this.config.width ** -0.5) : y
  }

  /** Rows have no longest length: positions are distances. */
  get longest(): number {
    return Number.POSITIVE_INFINITY
  }

  reachOf(_length: number): number {
    return 1
  }

  /** Reads source rows; the hidden state [B, 1, C] is that of the token that targets begin with. */
  prefill({ inputIds, attentionMask }: T5Batch, { length, reach }: CacheSize): Step {
    const { heads, depth, startId, decoderLayers, dtype } = this.config
    const [batch] = inputIds.shape
    const encoded = this.encode({ inputIds, attentionMask }, new Context())
    const keyMask = notEqual(attentionMask ?? onesLike(inputIds), 0)
    const source = { layers: this.decoder.sourceKeys(encoded), keyMask }
    const empty = zeros([batch, length, heads, depth], dtype)
    const layers = Array.from({ length: decoderLayers }, () => ({ k: empty, v: empty }))
    const begun = this.decode(full([batch, 1], startId, 'int32'), {
      layers,
      at: zeros([batch], 'int32'),
      reach,
      source,
    })
    return { ...begun, source }
  }

  /** The last hidden states [B, 1, C] of one more target token for each row, ids [B, 1]. */
  decode(inputIds: Tensor, cache: Cache): Step {
    const { y, layers } = this.decoder.next(this.shared.forward(inputIds), cache)
    return { hidden: this.scaled(y), layers }
  }

  /** Logits [..., V] of hidden states [..., C]. */
  logitsOf(hidden: Tensor): Tensor {
    return withScope('lm_head', () => matmul(hidden, transpose(this.head)))
  }

  /** Logits [B, S, V]. */
  logits(batch: T5Batch, ctx: Context): Tensor {
    return this.logitsOf(this.hidden(batch, ctx))
  }

  /** The cross-entropy of the labels: its mean over those that count, or their sum by `ctx.normalizer`. */
  loss(batch: T5Batch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const { labels } = batch
    if (!labels) throw new SteepestError('ARGUMENT', { who: 'T5', rule: 'a batch needs `labels`' })
    const rows = reshape(this.hidden(batch, ctx), [-1, this.config.width])
    const reduction = ctx.normalizer ? 'sum' : 'mean'
    const loss = withScope('lm_head', () => linearCrossEntropy(rows, this.head, reshape(labels, [-1]), { reduction }))
    return { loss: ctx.normalizer ? div(loss, ctx.normalizer) : loss, logits: this.logitsOf(rows) }
  }
}
