import { SteepestError } from '../errors.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { type Context, Keys, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norm.js'
import { arange } from '../ops/assemble.js'
import { attention } from '../ops/attention.js'
import { add, cast, mul, notEqual, tanh } from '../ops/elementwise.js'
import { cumsum } from '../ops/reduce.js'
import { linear } from '../ops/matmul.js'
import { reshape, slice, zeros } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import { maskOf } from './causal.js'
import { ACTIVATIONS } from './activations.js'
import { classLoss, type ClassTask, tokenLoss } from './heads.js'

/** Sizes of a BERT or RoBERTa. */
export interface BertConfig {
  vocabSize: number
  /** Rows of the table of positions. */
  positions: number
  /** Kinds of tokens (first or second sentence). */
  types: number
  layers: number
  heads: number
  width: number
  hidden: number
  activation: string
  eps: number
  dropout: number
  /** Number of the token that fills rows up; RoBERTa counts positions from the one after it. */
  padId: number
  /** What comes out: the masked tokens, a class of the row, or a class of every token. */
  task: 'maskedLm' | 'sequence' | 'token'
  classes: number
  /** Names of the classes; LABEL_0 and so on where absent. */
  labels?: readonly string[]
  /** How classes of rows are learned. */
  problem: ClassTask
  initializerRange: number
  dtype: DType
  seed: number
}

/** A batch of token rows [B, T] int32 and what is to be said of them. */
export type BertBatch = {
  inputIds: Tensor
  /** 0 where a token is padding, [B, T]. */
  attentionMask?: Tensor
  tokenTypeIds?: Tensor
  /** int32 [B, T] (−100 is not counted) for tokens; [B] classes or numbers, or [B, classes] for rows. */
  labels?: Tensor
}

type Make = (inputs: number, outputs: number) => Linear

class Embeddings extends Module {
  word_embeddings: Embedding
  position_embeddings: Embedding
  token_type_embeddings: Embedding
  LayerNorm: LayerNorm
  constructor(
    private readonly sizes: Pick<BertConfig, 'padId'> & { roberta: boolean },
    config: BertConfig,
    keys: Keys,
    private readonly drop: Dropout,
  ) {
    super()
    const { vocabSize, positions, types, width, dtype, initializerRange: std, eps } = config
    const table = (count: number, paddingId?: number) =>
      new Embedding(count, width, { init: init.normal(std), dtype, key: keys.next(), paddingId })
    this.word_embeddings = table(vocabSize, config.padId)
    this.position_embeddings = table(positions, sizes.roberta ? config.padId : undefined)
    this.token_type_embeddings = table(types)
    this.LayerNorm = new LayerNorm(width, { eps, dtype })
  }
  forward({ inputIds, tokenTypeIds }: BertBatch, ctx: Context): Tensor {
    const [batch, time] = inputIds.shape
    const { padId, roberta } = this.sizes
    const counted = cast(notEqual(inputIds, padId), 'int32')
    const places = roberta
      ? add(mul(cumsum(counted, { axis: 1 }), counted), padId)
      : arange(0, time, { dtype: 'int32' })
    const words = withScope('word_embeddings', () => this.word_embeddings.forward(inputIds))
    const types = this.token_type_embeddings.forward(tokenTypeIds ?? zeros([batch, time], 'int32'))
    const x = add(add(words, types), this.position_embeddings.forward(places))
    return this.drop.forward(this.LayerNorm.forward(x), ctx)
  }
}

/** A linear layer, dropout, and the norm of its sum with what went around it. */
class Joined extends Module {
  dense: Linear
  LayerNorm: LayerNorm
  constructor(
    inputs: number,
    { width, eps, dtype }: BertConfig,
    make: Make,
    private readonly drop: Dropout,
  ) {
    super()
    this.dense = make(inputs, width)
    this.LayerNorm = new LayerNorm(width, { eps, dtype })
  }
  forward(x: Tensor, around: Tensor, ctx: Context): Tensor {
    const y = this.drop.forward(
      withScope('dense', () => this.dense.forward(x)),
      ctx,
    )
    return this.LayerNorm.forward(add(y, around))
  }
}

class Layer extends Module {
  attention: { self: { query: Linear; key: Linear; value: Linear }; output: Joined }
  intermediate: { dense: Linear }
  output: Joined
  private readonly own: Pick<BertConfig, 'heads' | 'activation' | 'dropout'>
  constructor(config: BertConfig, make: Make, drop: Dropout) {
    super()
    const { heads, width, hidden, activation, dropout } = config
    this.own = { heads, activation, dropout }
    this.attention = {
      self: { query: make(width, width), key: make(width, width), value: make(width, width) },
      output: new Joined(width, config, make, drop),
    }
    this.intermediate = { dense: make(width, hidden) }
    this.output = new Joined(hidden, config, make, drop)
  }
  forward(x: Tensor, batch: BertBatch, ctx: Context): Tensor {
    const [rows, time, width] = x.shape
    const { heads, activation, dropout } = this.own
    const { query, key, value } = this.attention.self
    const split = (name: string, layer: Linear) =>
      reshape(
        withScope(name, () => layer.forward(x)),
        [rows, time, heads, width / heads],
      )
    const drops = ctx.training && dropout > 0
    const mixed = withScope('attention', () =>
      attention(split('query', query), split('key', key), split('value', value), {
        ...maskOf(batch),
        ...(drops ? { dropout, key: ctx.requireKey('attention'), site: ctx.site() } : {}),
      }),
    )
    const h = withScope('attention.output', () =>
      this.attention.output.forward(reshape(mixed, [rows, time, width]), x, ctx),
    )
    const fed = withScope('intermediate', () => ACTIVATIONS[activation](this.intermediate.dense.forward(h)))
    return withScope('output', () => this.output.forward(fed, h, ctx))
  }
}

/** The transformer below every head. */
class Encoder extends Module {
  embeddings: Embeddings
  encoder: { layer: Layer[] }
  pooler: { dense: Linear } | null
  constructor(config: BertConfig, roberta: boolean, pools: boolean, keys: Keys, make: Make) {
    super()
    const drop = new Dropout(config.dropout)
    this.embeddings = new Embeddings({ padId: config.padId, roberta }, config, keys, drop)
    this.encoder = { layer: Array.from({ length: config.layers }, () => new Layer(config, make, drop)) }
    this.pooler = pools ? { dense: make(config.width, config.width) } : null
  }
  forward(batch: BertBatch, ctx: Context): Tensor {
    const x = withScope('embeddings', () => this.embeddings.forward(batch, ctx))
    return this.encoder.layer.reduce(
      (at, layer, i) => withScope(`encoder.layer.${i}`, () => layer.forward(at, batch, ctx)),
      x,
    )
  }
}

const firstOf = (x: Tensor): Tensor => reshape(slice(x, [null, [0, 1], null]), [x.shape[0], x.shape[2]])

function checkSizes(who: string, { width, heads, activation }: BertConfig): void {
  if (width % heads !== 0)
    throw new SteepestError('OPTION', { who, rule: '`heads` must divide `width`', got: `${heads} for ${width}` })
  if (!Object.hasOwn(ACTIVATIONS, activation)) {
    throw new SteepestError('OPTION', {
      who,
      rule: `the activation must be ${Object.keys(ACTIVATIONS).join(', ')}`,
      got: activation,
    })
  }
}

/** What makes the linear layers of a model: normal weights, no biases yet. */
function maker({ initializerRange, dtype }: BertConfig, keys: Keys): Make {
  const weights = init.normal(initializerRange)
  return (inputs, outputs) =>
    new Linear(inputs, outputs, { dtype, init: weights, biasInit: init.zero(), key: keys.next() })
}

/** What is common to BERT and RoBERTa with any head. */
abstract class Encoding extends Module {
  constructor(readonly config: BertConfig) {
    super()
    checkSizes(new.target.name, config)
  }

  /** Scores of the batch: [B, T, V] of tokens, [B, T, classes] or [B, classes]. */
  abstract logits(batch: BertBatch, ctx: Context): Tensor

  /** The loss of the task: a mean, or a sum divided by `ctx.normalizer`. */
  loss(batch: BertBatch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const logits = this.logits(batch, ctx)
    const { labels } = batch
    if (!labels) throw new SteepestError('ARGUMENT', { who: this.constructor.name, rule: 'a batch needs `labels`' })
    const { task, problem } = this.config
    return {
      loss: task === 'sequence' ? classLoss(logits, labels, problem, ctx) : tokenLoss(logits, labels, ctx),
      logits,
    }
  }
}

/** BERT (Devlin et al. 2018), with the parameter names of its Hugging Face checkpoints. */
export class Bert extends Encoding {
  bert: Encoder
  cls: { predictions: { bias: Tensor; transform: { dense: Linear; LayerNorm: LayerNorm } } } | null = null
  classifier: Linear | null = null
  private readonly drop: Dropout

  constructor(config: BertConfig) {
    super(config)
    const { width, vocabSize, task, classes, eps, dtype } = config
    const keys = new Keys(config.seed)
    const make = maker(config, keys)
    this.drop = new Dropout(config.dropout)
    this.bert = new Encoder(config, false, task === 'sequence', keys, make)
    if (task === 'maskedLm') {
      const transform = { dense: make(width, width), LayerNorm: new LayerNorm(width, { eps, dtype }) }
      this.cls = { predictions: { bias: zeros([vocabSize], dtype), transform } }
    } else {
      this.classifier = make(width, classes)
    }
  }

  logits(batch: BertBatch, ctx: Context): Tensor {
    const x = withScope('bert', () => this.bert.forward(batch, ctx))
    if (this.cls) {
      const { bias, transform } = this.cls.predictions
      return withScope('cls', () => {
        const h = transform.LayerNorm.forward(ACTIVATIONS[this.config.activation](transform.dense.forward(x)))
        return linear(h, this.bert.embeddings.word_embeddings.weight, bias)
      })
    }
    const { pooler } = this.bert
    const seen = pooler ? withScope('bert.pooler', () => tanh(pooler.dense.forward(firstOf(x)))) : x
    return withScope('classifier', () => this.classifier!.forward(this.drop.forward(seen, ctx)))
  }
}

/** RoBERTa (Liu et al. 2019), with the parameter names of its Hugging Face checkpoints. */
export class Roberta extends Encoding {
  roberta: Encoder
  lm_head: { bias: Tensor; dense: Linear; layer_norm: LayerNorm } | null = null
  classifier: Linear | { dense: Linear; out_proj: Linear } | null = null
  private readonly drop: Dropout

  constructor(config: BertConfig) {
    super(config)
    const { width, vocabSize, task, classes, eps, dtype } = config
    const keys = new Keys(config.seed)
    const make = maker(config, keys)
    this.drop = new Dropout(config.dropout)
    this.roberta = new Encoder(config, true, false, keys, make)
    if (task === 'maskedLm') {
      const layer_norm = new LayerNorm(width, { eps, dtype })
      this.lm_head = { bias: zeros([vocabSize], dtype), dense: make(width, width), layer_norm }
    } else if (task === 'sequence') {
      this.classifier = { dense: make(width, width), out_proj: make(width, classes) }
    } else {
      this.classifier = make(width, classes)
    }
  }

  logits(batch: BertBatch, ctx: Context): Tensor {
    const x = withScope('roberta', () => this.roberta.forward(batch, ctx))
    if (this.lm_head) {
      const { bias, dense, layer_norm } = this.lm_head
      return withScope('lm_head', () => {
        const h = layer_norm.forward(ACTIVATIONS.gelu(dense.forward(x)))
        return linear(h, this.roberta.embeddings.word_embeddings.weight, bias)
      })
    }
    const { classifier } = this
    return withScope('classifier', () => {
      if (classifier instanceof Linear) return classifier.forward(this.drop.forward(x, ctx))
      const h = tanh(classifier!.dense.forward(this.drop.forward(firstOf(x), ctx)))
      return classifier!.out_proj.forward(this.drop.forward(h, ctx))
    })
  }
}
