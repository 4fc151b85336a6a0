import { checkOptions, SteepestError } from '../errors.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import * as init from '../nn/init.js'
import { Context, Keys, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norm.js'
import { attention } from '../ops/attention.js'
import { arange } from '../ops/assemble.js'
import { add } from '../ops/elementwise.js'
import { matmul } from '../ops/matmul.js'
import { reshape, slice, zeros } from '../ops/shape.js'
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

/** Sizes of a GPT-2, with the defaults of the 124M one. */
export interface GPT2Config {
  vocabSize: number
  /** Longest sequence. */
  context: number
  layers: number
  heads: number
  width: number
  /** Width of the feed-forward layer; 4 × width by default. */
  hidden?: number
  dropout?: number
  /** Of the feed-forward layer: gelu_new (by tanh; default), gelu, relu, silu. */
  activation?: string
  /** Epsilon of the layer norms. */
  eps?: number
  dtype?: DType
  /** Seed of the initial weights. */
  seed?: number
}

const KNOWN = [
  'vocabSize',
  'context',
  'layers',
  'heads',
  'width',
  'hidden',
  'dropout',
  'activation',
  'eps',
  'dtype',
  'seed',
]

/** y = x·W + b with weight [in, out]: how GPT-2's checkpoints hold their linear layers. */
class Conv1D extends Module {
  weight: Tensor
  bias: Tensor
  constructor(inputs: number, outputs: number, std: number, dtype: DType, key: Tensor) {
    super()
    this.weight = init.normal(std)(key, [inputs, outputs], dtype)
    this.bias = zeros([outputs], dtype)
  }
  forward(x: Tensor): Tensor {
    return add(matmul(x, this.weight), this.bias)
  }
}

class Attention extends Module {
  c_attn: Conv1D
  c_proj: Conv1D
  constructor(
    readonly heads: number,
    readonly width: number,
    readonly dropout: number,
    std: number,
    layers: number,
    dtype: DType,
    keys: Keys,
  ) {
    super()
    this.c_attn = new Conv1D(width, 3 * width, std, dtype, keys.next())
    this.c_proj = new Conv1D(width, width, std / Math.sqrt(2 * layers), dtype, keys.next())
  }
  private split(x: Tensor): Tensor[] {
    const [batch, time] = x.shape
    const qkv = withScope('c_attn', () => this.c_attn.forward(x))
    return [0, 1, 2].map((i) =>
      reshape(slice(qkv, [null, null, [i * this.width, (i + 1) * this.width]]), [
        batch,
        time,
        this.heads,
        this.width / this.heads,
      ]),
    )
  }
  private join(y: Tensor): Tensor {
    const [batch, time] = y.shape
    return withScope('c_proj', () => this.c_proj.forward(reshape(y, [batch, time, this.width])))
  }
  /** As `forward`, and the keys and values that further tokens look back at. */
  fill(x: Tensor, length: number): { y: Tensor; cache: LayerCache } {
    const [q, k, v] = this.split(x)
    const cache = { k: withRoom(k, length), v: withRoom(v, length) }
    return { y: this.join(attention(q, k, v, { causal: true })), cache }
  }
  /** One token a row, [B, 1, C], that looks back at a cache. */
  next(x: Tensor, before: LayerCache, at: Tensor): { y: Tensor; cache: LayerCache } {
    const [q, k, v] = this.split(x)
    const { cache, filled } = appended(before, { k, v }, at)
    return { y: this.join(attention(q, cache.k, cache.v, { keyMask: filled })), cache }
  }
  forward(x: Tensor, ctx: Context, reading: Reading): Tensor {
    const [q, k, v] = this.split(x)
    const drops = ctx.training && this.dropout > 0
    return this.join(
      attention(q, k, v, {
        causal: true,
        ...maskOf(reading),
        ...(drops ? { dropout: this.dropout, key: ctx.requireKey('attention'), site: ctx.site() } : {}),
      }),
    )
  }
}

class FeedForward extends Module {
  c_fc: Conv1D
  c_proj: Conv1D
  private readonly activation: string
  constructor({ width, hidden, layers, activation, dtype }: Required<GPT2Config>, std: number, keys: Keys) {
    super()
    this.activation = activation
    this.c_fc = new Conv1D(width, hidden, std, dtype, keys.next())
    this.c_proj = new Conv1D(hidden, width, std / Math.sqrt(2 * layers), dtype, keys.next())
  }
  forward(x: Tensor): Tensor {
    const h = withScope('c_fc', () => ACTIVATIONS[this.activation](this.c_fc.forward(x)))
    return withScope('c_proj', () => this.c_proj.forward(h))
  }
}

class Block extends Module {
  ln_1: LayerNorm
  attn: Attention
  ln_2: LayerNorm
  mlp: FeedForward
  readonly drop: Dropout
  constructor(config: Required<GPT2Config>, keys: Keys) {
    super()
    const { width, heads, layers, dropout, eps, dtype } = config
    this.ln_1 = new LayerNorm(width, { eps, dtype })
    this.attn = new Attention(heads, width, dropout, 0.02, layers, dtype, keys)
    this.ln_2 = new LayerNorm(width, { eps, dtype })
    this.mlp = new FeedForward(config, 0.02, keys)
    this.drop = new Dropout(dropout)
  }
  forward(x: Tensor, ctx: Context, reading: Reading): Tensor {
    return this.around(x, ctx, (normed) => this.attn.forward(normed, ctx, reading))
  }
  /** The block with something else in the place of its attention. */
  around(x: Tensor, ctx: Context, attend: (normed: Tensor) => Tensor): Tensor {
    const mixed = withScope('attn', () => attend(withScope('ln_1', () => this.ln_1.forward(x))))
    const h = add(x, this.drop.forward(mixed, ctx))
    const fed = withScope('mlp', () => this.mlp.forward(withScope('ln_2', () => this.ln_2.forward(h))))
    return add(h, this.drop.forward(fed, ctx))
  }
}

/** GPT-2 (Radford et al. 2019), with the parameter names of its Hugging Face checkpoints; the output layer is the token embedding. */
export class GPT2 extends CausalLM {
  transformer: { wte: Embedding; wpe: Embedding; h: Block[]; ln_f: LayerNorm }
  readonly config: Required<GPT2Config>
  private readonly drop: Dropout

  constructor(config: GPT2Config) {
    super()
    checkOptions('GPT2', config, KNOWN)
    const {
      vocabSize,
      context,
      layers,
      heads,
      width,
      hidden = 4 * width,
      dropout = 0,
      activation = 'gelu_new',
      eps = 1e-5,
      dtype = 'float32',
      seed = 0,
    } = config
    if (width % heads !== 0) {
      throw new SteepestError('OPTION', {
        who: 'GPT2',
        rule: '`heads` must divide `width`',
        got: `${heads} heads for width ${width}`,
      })
    }
    if (!Object.hasOwn(ACTIVATIONS, activation)) {
      throw new SteepestError('OPTION', {
        who: 'GPT2',
        rule: `\`activation\` must be ${Object.keys(ACTIVATIONS).join(', ')}`,
        got: activation,
      })
    }
    this.config = { vocabSize, context, layers, heads, width, hidden, dropout, activation, eps, dtype, seed }
    const keys = new Keys(seed)
    this.transformer = {
      wte: new Embedding(vocabSize, width, { init: init.normal(0.02), dtype, key: keys.next() }),
      wpe: new Embedding(context, width, { init: init.normal(0.01), dtype, key: keys.next() }),
      h: Array.from({ length: layers }, () => new Block(this.config, keys)),
      ln_f: new LayerNorm(width, { eps, dtype }),
    }
    this.drop = new Dropout(dropout)
  }

  get head(): Tensor {
    return this.transformer.wte.weight
  }

  hidden(inputIds: Tensor, ctx: Context, reading: Reading = {}): Tensor {
    const [, time] = inputIds.shape
    if (time > this.config.context) {
      throw new SteepestError('SHAPE', {
        who: 'GPT2',
        rule: 'a row must not be longer than the context',
        got: `${time} tokens for a context of ${this.config.context}`,
      })
    }
    const { wte, wpe, h, ln_f } = this.transformer
    return withScope('transformer', () => {
      const tokens = withScope('wte', () => wte.forward(inputIds))
      const positions = withScope('wpe', () => wpe.forward(reading.positions ?? arange(0, time, { dtype: 'int32' })))
      const x = this.drop.forward(add(tokens, positions), ctx)
      const y = h.reduce((at, block, i) => withScope(`h.${i}`, () => block.forward(at, ctx, reading)), x)
      return withScope('ln_f', () => ln_f.forward(y))
    })
  }

  private through(
    x: Tensor,
    attend: (attn: Attention, normed: Tensor, layer: number) => { y: Tensor; cache: LayerCache },
  ): Step {
    const ctx = new Context()
    const layers: LayerCache[] = []
    const y = this.transformer.h.reduce(
      (at, block, i) =>
        block.around(at, ctx, (normed) => {
          const { y, cache } = attend(block.attn, normed, i)
          layers.push(cache)
          return y
        }),
      x,
    )
    return { hidden: this.transformer.ln_f.forward(y), layers }
  }

  private embed(inputIds: Tensor, positions: Tensor): Tensor {
    return add(this.transformer.wte.forward(inputIds), this.transformer.wpe.forward(positions))
  }

  prefill({ inputIds }: Pick<TokenBatch, 'inputIds'>, { length }: CacheSize): Step {
    const x = this.embed(inputIds, arange(0, inputIds.shape[1], { dtype: 'int32' }))
    return this.through(x, (attn, normed) => attn.fill(normed, length))
  }

  decode(inputIds: Tensor, { layers, at }: Cache): Step {
    const x = this.embed(inputIds, reshape(at, [-1, 1]))
    return this.through(x, (attn, normed, i) => attn.next(normed, layers[i], at))
  }
}
