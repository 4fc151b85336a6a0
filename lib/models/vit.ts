import { SteepestError } from '../errors.js'
import { Conv2d } from '../nn/conv.js'
import { Dropout } from '../nn/dropout.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { type Context, Keys, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norm.js'
import { concat } from '../ops/assemble.js'
import { attention } from '../ops/attention.js'
import { add, cast } from '../ops/elementwise.js'
import { broadcastTo, reshape, slice, transpose, zeros } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { ACTIVATIONS } from './activations.js'
import { classLoss, type ClassTask } from './heads.js'

/** Sizes of a vision transformer. */
export interface ViTConfig {
  /** Height and width of the images, and of the patches that they are cut into. */
  image: number
  patch: number
  channels: number
  layers: number
  heads: number
  width: number
  hidden: number
  activation: string
  /** Biases of queries, keys and values. */
  qkvBias: boolean
  eps: number
  dropout: number
  classes: number
  labels?: readonly string[]
  problem: ClassTask
  initializerRange: number
  dtype: DType
  seed: number
}

/** Images [B, C, H, W] and their classes [B] int32 (or numbers, or one 0 or 1 per class). */
export type ImageBatch = {
  pixelValues: Tensor
  labels?: Tensor
}

class Layer extends Module {
  attention: { attention: { query: Linear; key: Linear; value: Linear }; output: { dense: Linear } }
  intermediate: { dense: Linear }
  output: { dense: Linear }
  layernorm_before: LayerNorm
  layernorm_after: LayerNorm
  private readonly own: Pick<ViTConfig, 'heads' | 'activation' | 'dropout'>
  constructor(
    config: ViTConfig,
    make: (inputs: number, outputs: number, bias?: boolean) => Linear,
    private readonly drop: Dropout,
  ) {
    super()
    const { width, hidden, heads, activation, dropout, eps, dtype, qkvBias } = config
    this.own = { heads, activation, dropout }
    const part = () => make(width, width, qkvBias)
    this.attention = {
      attention: { query: part(), key: part(), value: part() },
      output: { dense: make(width, width) },
    }
    this.intermediate = { dense: make(width, hidden) }
    this.output = { dense: make(hidden, width) }
    this.layernorm_before = new LayerNorm(width, { eps, dtype })
    this.layernorm_after = new LayerNorm(width, { eps, dtype })
  }
  forward(x: Tensor, ctx: Context): Tensor {
    const [batch, time, width] = x.shape
    const { heads, activation, dropout } = this.own
    const normed = this.layernorm_before.forward(x)
    const { query, key, value } = this.attention.attention
    const split = (layer: Linear) => reshape(layer.forward(normed), [batch, time, heads, width / heads])
    const drops = ctx.training && dropout > 0
    const mixed = withScope('attention', () => {
      const y = attention(split(query), split(key), split(value), {
        ...(drops ? { dropout, key: ctx.requireKey('attention'), site: ctx.site() } : {}),
      })
      return this.attention.output.dense.forward(reshape(y, [batch, time, width]))
    })
    const h = add(x, this.drop.forward(mixed, ctx))
    const fed = withScope('intermediate', () =>
      ACTIVATIONS[activation](this.intermediate.dense.forward(this.layernorm_after.forward(h))),
    )
    return add(
      h,
      this.drop.forward(
        withScope('output', () => this.output.dense.forward(fed)),
        ctx,
      ),
    )
  }
}

/** Vision transformer (Dosovitskiy et al. 2020) that tells classes, with the parameter names of its Hugging Face checkpoints. */
export class ViT extends Module {
  vit: {
    embeddings: { cls_token: Tensor; position_embeddings: Tensor; patch_embeddings: { projection: Conv2d } }
    encoder: { layer: Layer[] }
    layernorm: LayerNorm
  }
  classifier: Linear
  readonly config: ViTConfig
  private readonly drop: Dropout

  constructor(config: ViTConfig) {
    super()
    const { image, patch, channels, width, heads, layers, classes, eps, dtype, initializerRange: std } = config
    if (image % patch !== 0 || width % heads !== 0) {
      throw new SteepestError('OPTION', {
        who: 'ViT',
        rule: 'patches must divide the image, and heads the width',
        got: `${patch} for ${image}, ${heads} for ${width}`,
      })
    }
    this.config = config
    const keys = new Keys(config.seed)
    const weights = init.normal(std)
    const make = (inputs: number, outputs: number, bias = true) =>
      new Linear(inputs, outputs, { bias, dtype, init: weights, biasInit: init.zero(), key: keys.next() })
    this.drop = new Dropout(config.dropout)
    const patches = (image / patch) ** 2
    this.vit = {
      embeddings: {
        cls_token: weights(keys.next(), [1, 1, width], dtype),
        position_embeddings: weights(keys.next(), [1, patches + 1, width], dtype),
        patch_embeddings: {
          projection: new Conv2d(channels, width, patch, { stride: patch, dtype, init: weights, key: keys.next() }),
        },
      },
      encoder: { layer: Array.from({ length: layers }, () => new Layer(config, make, this.drop)) },
      layernorm: new LayerNorm(width, { eps, dtype }),
    }
    this.vit.embeddings.patch_embeddings.projection.bias = zeros([width], dtype)
    this.classifier = make(width, classes)
  }

  /** Scores of the classes, [B, classes]. */
  logits({ pixelValues: given }: ImageBatch, ctx: Context): Tensor {
    const pixelValues = cast(given, this.config.dtype)
    const { width } = this.config
    const [batch] = pixelValues.shape
    const x = withScope('vit', () => {
      const { cls_token, position_embeddings, patch_embeddings } = this.vit.embeddings
      const patches = withScope('embeddings', () => {
        const y = reshape(patch_embeddings.projection.forward(pixelValues), [batch, width, -1])
        const rows = concat([broadcastTo(cls_token, [batch, 1, width]), transpose(y, [0, 2, 1])], { axis: 1 })
        return this.drop.forward(add(rows, position_embeddings), ctx)
      })
      const y = this.vit.encoder.layer.reduce(
        (at, layer, i) => withScope(`encoder.layer.${i}`, () => layer.forward(at, ctx)),
        patches,
      )
      return withScope('layernorm', () => this.vit.layernorm.forward(y))
    })
    return withScope('classifier', () =>
      this.classifier.forward(reshape(slice(x, [null, [0, 1], null]), [batch, width])),
    )
  }

  /** The loss of the classes: a mean, or a sum divided by `ctx.normalizer`. */
  loss(batch: ImageBatch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const logits = this.logits(batch, ctx)
    if (!batch.labels) throw new SteepestError('ARGUMENT', { who: 'ViT', rule: 'a batch needs `labels`' })
    return { loss: classLoss(logits, batch.labels, this.config.problem, ctx), logits }
  }
}
