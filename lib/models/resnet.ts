import { SteepestError } from '../errors.js'
import { Conv2d } from '../nn/conv.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { type Context, Keys, Module } from '../nn/module.js'
import { BatchNorm } from '../nn/norm.js'
import { add, cast } from '../ops/elementwise.js'
import { maxPool } from '../ops/pooling.js'
import { mean } from '../ops/reduce.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { ACTIVATIONS } from './activations.js'
import { classLoss, type ClassTask } from './heads.js'
import type { ImageBatch } from './vit.js'

/** Sizes of a ResNet. */
export interface ResNetConfig {
  channels: number
  /** Channels of the first convolution, and of the stages. */
  stem: number
  widths: readonly number[]
  /** Blocks of the stages. */
  depths: readonly number[]
  kind: 'basic' | 'bottleneck'
  activation: string
  /** The first stage halves the image too. */
  downsampleFirst: boolean
  /** The first convolution of a bottleneck halves the image, not the second. */
  downsampleInBottleneck: boolean
  classes: number
  labels?: readonly string[]
  problem: ClassTask
  dtype: DType
  seed: number
}

/** A convolution, the norm of its channels and an activation. */
class Convolution extends Module {
  convolution: Conv2d
  normalization: BatchNorm
  constructor(
    inputs: number,
    outputs: number,
    size: number,
    stride: number,
    private readonly activation: string | null,
    dtype: DType,
    key: Tensor,
  ) {
    super()
    const padding = size >> 1
    this.convolution = new Conv2d(inputs, outputs, size, {
      stride,
      padding,
      bias: false,
      dtype,
      init: init.kaimingNormal(),
      key,
    })
    this.normalization = new BatchNorm(outputs, { dtype })
  }
  forward(x: Tensor, ctx: Context): Tensor {
    const y = this.normalization.forward(
      withScope('convolution', () => this.convolution.forward(x)),
      ctx,
    )
    return this.activation === null ? y : ACTIVATIONS[this.activation](y)
  }
}

type Make = (inputs: number, outputs: number, size: number, stride: number, activates: boolean) => Convolution

class Block extends Module {
  shortcut: Convolution | null
  layer: Convolution[]
  private readonly activation: string
  constructor(config: ResNetConfig, inputs: number, outputs: number, stride: number, make: Make) {
    super()
    const { kind, activation, downsampleInBottleneck: early } = config
    this.activation = activation
    this.shortcut = inputs !== outputs || stride !== 1 ? make(inputs, outputs, 1, stride, false) : null
    const narrow = Math.floor(outputs / 4)
    this.layer =
      kind === 'basic'
        ? [make(inputs, outputs, 3, stride, true), make(outputs, outputs, 3, 1, false)]
        : [
            make(inputs, narrow, 1, early ? stride : 1, true),
            make(narrow, narrow, 3, early ? 1 : stride, true),
            make(narrow, outputs, 1, 1, false),
          ]
  }
  forward(x: Tensor, ctx: Context): Tensor {
    const y = this.layer.reduce((at, layer, i) => withScope(`layer.${i}`, () => layer.forward(at, ctx)), x)
    const { shortcut } = this
    const around = shortcut ? withScope('shortcut', () => shortcut.forward(x, ctx)) : x
    return ACTIVATIONS[this.activation](add(y, around))
  }
}

/** ResNet (He et al. 2015) that tells classes, with the parameter names of its Hugging Face checkpoints. */
export class ResNet extends Module {
  resnet: { embedder: { embedder: Convolution }; encoder: { stages: { layers: Block[] }[] } }
  /** The second of what Hugging Face's classifier is made of; the first flattens. */
  classifier: { 1: Linear }
  readonly config: ResNetConfig

  constructor(config: ResNetConfig) {
    super()
    const { channels, stem, widths, depths, activation, downsampleFirst, classes, dtype } = config
    if (widths.length !== depths.length || !Object.hasOwn(ACTIVATIONS, activation)) {
      throw new SteepestError('OPTION', {
        who: 'ResNet',
        rule: `every stage needs a width and a depth, and the activation must be ${Object.keys(ACTIVATIONS).join(', ')}`,
        got: `${widths.length} widths, ${depths.length} depths, ${activation}`,
      })
    }
    this.config = config
    const keys = new Keys(config.seed)
    const make: Make = (inputs, outputs, size, stride, activates) =>
      // Within blocks it is ReLU, whatever config.json says: what that names follows the first convolution and each sum.
      new Convolution(inputs, outputs, size, stride, activates ? 'relu' : null, dtype, keys.next())
    this.resnet = {
      embedder: { embedder: new Convolution(channels, stem, 7, 2, activation, dtype, keys.next()) },
      encoder: {
        stages: depths.map((depth, s) => ({
          layers: Array.from({ length: depth }, (_, i) => {
            const inputs = i > 0 ? widths[s] : s === 0 ? stem : widths[s - 1]
            return new Block(config, inputs, widths[s], i === 0 && (s > 0 || downsampleFirst) ? 2 : 1, make)
          }),
        })),
      },
    }
    this.classifier = { 1: new Linear(widths[widths.length - 1], classes, { dtype, key: keys.next() }) }
  }

  /** Scores of the classes, [B, classes]. */
  logits({ pixelValues: given }: ImageBatch, ctx: Context): Tensor {
    const pixelValues = cast(given, this.config.dtype)
    const { embedder, encoder } = this.resnet
    const stem = withScope('resnet.embedder', () => embedder.embedder.forward(pixelValues, ctx))
    const pooled = maxPool(stem, { size: 3, stride: 2, padding: 1 })
    const x = encoder.stages.reduce(
      (at, { layers }, s) =>
        layers.reduce(
          (inner, block, i) => withScope(`resnet.encoder.stages.${s}.layers.${i}`, () => block.forward(inner, ctx)),
          at,
        ),
      pooled,
    )
    return withScope('classifier', () => this.classifier[1].forward(mean(x, { axis: [2, 3] })))
  }

  /** The loss of the classes: a mean, or a sum divided by `ctx.normalizer`. */
  loss(batch: ImageBatch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const logits = this.logits(batch, ctx)
    if (!batch.labels) throw new SteepestError('ARGUMENT', { who: 'ResNet', rule: 'a batch needs `labels`' })
    return { loss: classLoss(logits, batch.labels, this.config.problem, ctx), logits }
  }
}
