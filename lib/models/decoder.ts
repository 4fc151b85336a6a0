import { SteepestError } from '../errors.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { Context, Keys, Module } from '../nn/module.js'
import { attention } from '../ops/attention.js'
import { arange } from '../ops/assemble.js'
import { add, greater, logicalAnd, mul, sub } from '../ops/elementwise.js'
import { rmsNorm } from '../ops/norm.js'
import { rotary } from '../ops/rotary.js'
import { ones, reshape, zeros } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { ACTIVATIONS } from './activations.js'
import {
  appended,
  type Cache,
  type CacheSize,
  CausalLM,
  type LayerCache,
  maskOf,
  type Reading,
  type Step,
  type TokenBatch,
  withRoom,
} from './causal.js'
import { type Angles, type Rope, ropeAngles, sameAngles } from './rope.js'

/** What the decoders of the Llama family differ in. */
export interface DecoderConfig {
  vocabSize: number
  /** Longest sequence. */
  context: number
  layers: number
  heads: number
  /** Heads of keys and values; each serves heads / kvHeads queries. */
  kvHeads: number
  width: number
  /** Width of the feed-forward layers. */
  hidden: number
  /** Components of a head. */
  depth: number
  /** Epsilon of the norms. */
  eps: number
  /** Rotary positions of a layer. */
  rope: readonly Rope[]
  /** Positions that a layer sees, its own included; null: all before it. */
  windows: readonly (number | null)[]
  activation: string
  /** Biases of the projections to queries, keys and values, of that of the output, and of the feed-forward layers. */
  bias: Readonly<{ qkv: boolean; out: boolean; mlp: boolean }>
  /** Norms of the queries and keys of each head (Qwen3, Gemma 3). */
  qkNorm: boolean
  /** Norms multiply by 1 + weight, and follow the layers as well as come before them (Gemma). */
  gemma: boolean
  /** Factor of the embeddings. */
  embedScale: number
  /** Factor of the products of queries and keys. */
  scale: number
  attentionSoftCap?: number
  logitSoftCap?: number
  /** The output layer is the token embedding. */
  tied: boolean
  /** Number of the token that fills rows up: its embedding is not learned. */
  padId: number | null
  dropout: number
  /** Standard deviation of the first weights. */
  initializerRange: number
  dtype: DType
  /** Seed of the first weights. */
  seed: number
}

/** Root-mean-square norm whose weight may stand for its difference from 1. */
class Norm extends Module {
  weight: Tensor
  constructor(
    width: number,
    private readonly eps: number,
    private readonly fromOne: boolean,
    dtype: DType,
  ) {
    super()
    this.weight = fromOne ? zeros([width], dtype) : ones([width], dtype)
  }
  forward(x: Tensor): Tensor {
    return rmsNorm(x, { weight: this.fromOne ? add(this.weight, 1) : this.weight, eps: this.eps })
  }
}

class Attention extends Module {
  q_proj: Linear
  k_proj: Linear
  v_proj: Linear
  o_proj: Linear
  q_norm: Norm | null
  k_norm: Norm | null
  private readonly own: Pick<DecoderConfig, 'depth' | 'scale' | 'attentionSoftCap' | 'dropout'> & {
    rope: Rope
    window: number | null
  }
  constructor(config: DecoderConfig, layer: number, make: (inputs: number, outputs: number, bias: boolean) => Linear) {
    super()
    const { width, heads, kvHeads, depth, bias, eps, gemma, dtype, scale, attentionSoftCap, dropout } = config
    this.own = { depth, scale, attentionSoftCap, dropout, rope: config.rope[layer], window: config.windows[layer] }
    this.q_proj = make(width, heads * depth, bias.qkv)
    this.k_proj = make(width, kvHeads * depth, bias.qkv)
    this.v_proj = make(width, kvHeads * depth, bias.qkv)
    this.o_proj = make(heads * depth, width, bias.out)
    this.q_norm = config.qkNorm ? new Norm(depth, eps, gemma, dtype) : null
    this.k_norm = config.qkNorm ? new Norm(depth, eps, gemma, dtype) : null
  }

  /** Queries, keys and values [B, T, heads, depth] at their positions, with the angles of rows of `length` tokens. */
  private project(x: Tensor, length: number, positions?: Tensor): [q: Tensor, k: Tensor, v: Tensor] {
    const [batch, time] = x.shape
    const { depth, rope } = this.own
    const split = (t: Tensor) => reshape(t, [batch, time, -1, depth])
    const q = split(withScope('q_proj', () => this.q_proj.forward(x)))
    const k = split(withScope('k_proj', () => this.k_proj.forward(x)))
    const v = split(withScope('v_proj', () => this.v_proj.forward(x)))
    const angles = ropeAngles('rotary', rope, depth, length)
    return [
      turned(this.q_norm ? this.q_norm.forward(q) : q, angles, positions),
      turned(this.k_norm ? this.k_norm.forward(k) : k, angles, positions),
      v,
    ]
  }

  private get options() {
    const { scale, attentionSoftCap } = this.own
    return { scale, ...(attentionSoftCap === undefined ? {} : { softCap: attentionSoftCap }) }
  }

  private join(y: Tensor): Tensor {
    const [batch, time] = y.shape
    return withScope('o_proj', () => this.o_proj.forward(reshape(y, [batch, time, -1])))
  }

  forward(x: Tensor, ctx: Context, reading: Reading): Tensor {
    const [q, k, v] = this.project(x, x.shape[1], reading.positions)
    const { dropout } = this.own
    const drops = ctx.training && dropout > 0
    return this.join(
      attention(q, k, v, {
        ...this.options,
        ...this.seen,
        ...maskOf(reading),
        ...(drops ? { dropout, key: ctx.requireKey('attention'), site: ctx.site() } : {}),
      }),
    )
  }

  private get seen(): { causal: true; window?: readonly [number, number] } {
    const { window } = this.own
    return window === null ? { causal: true } : { causal: true, window: [window - 1, 0] }
  }

  fill(x: Tensor, { length, reach }: CacheSize): { y: Tensor; cache: LayerCache } {
    const [q, k, v] = this.project(x, reach)
    const cache = { k: withRoom(k, length), v: withRoom(v, length) }
    return { y: this.join(attention(q, k, v, { ...this.options, ...this.seen })), cache }
  }

  next(x: Tensor, before: LayerCache, { at, reach }: Cache): { y: Tensor; cache: LayerCache } {
    const [batch, length] = before.k.shape
    const [q, k, v] = this.project(x, reach, reshape(at, [batch, 1]))
    const { cache, filled } = appended(before, { k, v }, at)
    const { window } = this.own
    const places = reshape(arange(0, length, { dtype: 'int32' }), [1, length])
    const keyMask = window === null ? filled : logicalAnd(filled, greater(places, reshape(sub(at, window), [batch, 1])))
    return { y: this.join(attention(q, cache.k, cache.v, { ...this.options, keyMask })), cache }
  }
}

function turned(x: Tensor, { frequencies, factor }: Angles, positions?: Tensor): Tensor {
  const y = rotary(x, { frequencies, ...(positions ? { positions } : {}) })
  return factor === 1 ? y : mul(y, factor)
}

class Mlp extends Module {
  gate_proj: Linear
  up_proj: Linear
  down_proj: Linear
  constructor(config: DecoderConfig, make: (inputs: number, outputs: number, bias: boolean) => Linear) {
    super()
    const { width, hidden, bias, activation } = config
    this.act = activation
    this.gate_proj = make(width, hidden, bias.mlp)
    this.up_proj = make(width, hidden, bias.mlp)
    this.down_proj = make(hidden, width, bias.mlp)
  }
  private readonly act: string
  forward(x: Tensor): Tensor {
    const gate = withScope('gate_proj', () => this.gate_proj.forward(x))
    const up = withScope('up_proj', () => this.up_proj.forward(x))
    return withScope('down_proj', () => this.down_proj.forward(mul(ACTIVATIONS[this.act](gate), up)))
  }
}

class Layer extends Module {
  self_attn: Attention
  mlp: Mlp
  input_layernorm: Norm
  post_attention_layernorm: Norm
  pre_feedforward_layernorm: Norm | null
  post_feedforward_layernorm: Norm | null
  constructor(
    config: DecoderConfig,
    layer: number,
    make: (inputs: number, outputs: number, bias: boolean) => Linear,
    private readonly drop: Dropout,
  ) {
    super()
    const norm = () => new Norm(config.width, config.eps, config.gemma, config.dtype)
    this.self_attn = new Attention(config, layer, make)
    this.mlp = new Mlp(config, make)
    this.input_layernorm = norm()
    this.post_attention_layernorm = norm()
    this.pre_feedforward_layernorm = config.gemma ? norm() : null
    this.post_feedforward_layernorm = config.gemma ? norm() : null
  }

  /** The layer with what `attend` makes of its normed input in the place of its attention. */
  around(x: Tensor, ctx: Context, attend: (normed: Tensor) => Tensor): Tensor {
    const named = (name: string, norm: Norm, t: Tensor) => withScope(name, () => norm.forward(t))
    const normed = named('input_layernorm', this.input_layernorm, x)
    const mixed = withScope('self_attn', () => attend(normed))
    // Gemma's third norm has the name that the second of the others has.
    const [after, before, last] = this.pre_feedforward_layernorm
      ? [this.post_attention_layernorm, this.pre_feedforward_layernorm, this.post_feedforward_layernorm]
      : [null, this.post_attention_layernorm, null]
    const h = add(x, this.drop.forward(after ? named('post_attention_layernorm', after, mixed) : mixed, ctx))
    const fed = withScope('mlp', () => this.mlp.forward(named('feedforward_layernorm', before, h)))
    return add(h, this.drop.forward(last ? named('post_feedforward_layernorm', last, fed) : fed, ctx))
  }
}

function check(who: string, config: DecoderConfig): void {
  const { heads, kvHeads, activation, depth, rope, windows, layers } = config
  const fail = (rule: string, got: string): never => {
    throw new SteepestError('OPTION', { who, rule, got })
  }
  if (heads % kvHeads !== 0) fail('heads of keys and values must divide those of queries', `${kvHeads} for ${heads}`)
  if (depth % 2 !== 0) fail('a head must have an even number of components', String(depth))
  if (!Object.hasOwn(ACTIVATIONS, activation))
    fail(`the activation must be ${Object.keys(ACTIVATIONS).join(', ')}`, activation)
  if (rope.length !== layers || windows.length !== layers) fail('every layer needs positions and a window', 'fewer')
}

/** A decoder of the Llama family, with the parameter names of its Hugging Face checkpoints. */
export class Decoder extends CausalLM {
  model: { embed_tokens: Embedding; layers: Layer[]; norm: Norm }
  lm_head: Linear | null
  readonly config: DecoderConfig

  constructor(config: DecoderConfig) {
    super()
    check(new.target.name, config)
    this.config = config
    const { vocabSize, width, layers, dtype, seed, tied, initializerRange: std, eps, gemma } = config
    const keys = new Keys(seed)
    const weights = init.normal(std)
    const make = (inputs: number, outputs: number, bias: boolean) =>
      new Linear(inputs, outputs, { bias, dtype, init: weights, biasInit: init.zero(), key: keys.next() })
    const drop = new Dropout(config.dropout)
    this.model = {
      embed_tokens: new Embedding(vocabSize, width, {
        init: weights,
        dtype,
        key: keys.next(),
        paddingId: config.padId ?? undefined,
      }),
      layers: Array.from({ length: layers }, (_, i) => new Layer(config, i, make, drop)),
      norm: new Norm(width, eps, gemma, dtype),
    }
    this.lm_head = tied ? null : make(width, vocabSize, false)
  }

  get head(): Tensor {
    return this.lm_head ? this.lm_head.weight : this.model.embed_tokens.weight
  }

  override get logitSoftCap(): number | undefined {
    return this.config.logitSoftCap
  }

  private through(x: Tensor, ctx: Context, attend: (attn: Attention, normed: Tensor, i: number) => Tensor): Tensor {
    return withScope('model', () => {
      const y = this.model.layers.reduce(
        (at, layer, i) =>
          withScope(`layers.${i}`, () => layer.around(at, ctx, (normed) => attend(layer.self_attn, normed, i))),
        x,
      )
      return withScope('norm', () => this.model.norm.forward(y))
    })
  }

  private embed(inputIds: Tensor): Tensor {
    const { embedScale } = this.config
    const x = withScope('model.embed_tokens', () => this.model.embed_tokens.forward(inputIds))
    return embedScale === 1 ? x : mul(x, embedScale)
  }

  hidden(inputIds: Tensor, ctx: Context, reading: Reading = {}): Tensor {
    return this.through(this.embed(inputIds), ctx, (attn, normed) => attn.forward(normed, ctx, reading))
  }

  private stepping(
    inputIds: Tensor,
    attend: (attn: Attention, normed: Tensor, i: number) => { y: Tensor; cache: LayerCache },
  ): Step {
    const layers: LayerCache[] = []
    const hidden = this.through(this.embed(inputIds), new Context(), (attn, normed, i) => {
      const { y, cache } = attend(attn, normed, i)
      layers.push(cache)
      return y
    })
    return { hidden, layers }
  }

  override reachOf(length: number): number {
    return this.config.rope.reduce((reach, rope) => Math.max(reach, sameAngles(rope, length)), 1)
  }

  prefill({ inputIds }: Pick<TokenBatch, 'inputIds'>, size: CacheSize): Step {
    return this.stepping(inputIds, (attn, normed) => attn.fill(normed, size))
  }

  decode(inputIds: Tensor, cache: Cache): Step {
    return this.stepping(inputIds, (attn, normed, i) => attn.next(normed, cache.layers[i], cache))
  }
}
