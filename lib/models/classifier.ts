import { SteepestError } from '../errors.js'
import * as init from '../nn/init.js'
import { Linear } from '../nn/linear.js'
import { type Context, Module } from '../nn/module.js'
import { arange } from '../ops/assemble.js'
import { add, cast, mul, notEqual } from '../ops/elementwise.js'
import { take } from '../ops/indexing.js'
import { argmax } from '../ops/reduce.js'
import { reshape } from '../ops/shape.js'
import { random } from '../ops/random.js'
import type { DType } from '../tensor/dtype.js'
import { type Tensor, withScope } from '../tensor/tensor.js'
import type { BertBatch } from './bert.js'
import { labelKeys, problemKey, problemOf, classesOf, labelsOf } from './bert-folders.js'
import type { CausalLM } from './causal.js'
import type { ConfigReader, FolderFormat } from './config-json.js'
import { Decoder } from './decoder.js'
import { GPT2 } from './gpt2.js'
import { classLoss, type ClassTask } from './heads.js'

/** What a model that predicts tokens is to tell of a row instead. */
export interface ClassifierConfig {
  classes: number
  labels?: readonly string[]
  problem: ClassTask
  /** Number of the token that fills rows up. */
  padId: number
}

/**
 * A class of a row from the last token of a GPT-2 or a decoder of Llama's family, with the parameter names of Hugging Face's
 * `…ForSequenceClassification`: those of the model below, and `score.weight`.
 */
export class CausalClassifier extends Module {
  transformer?: GPT2['transformer']
  model?: Decoder['model']
  score: Linear
  readonly config: ClassifierConfig & Readonly<{ vocabSize: number; positions: number }>

  constructor(base: CausalLM, config: ClassifierConfig) {
    super()
    if (base instanceof GPT2) this.transformer = base.transformer
    if (base instanceof Decoder) this.model = base.model
    const bare = { transformer: null, model: null, lm_head: null }
    this.shell = new Map([['base', Object.assign(Object.create(Object.getPrototypeOf(base)), base, bare)]])
    const { width, vocabSize, context } = base.config
    const { dtype } = base.config as unknown as { dtype: DType }
    this.config = { ...config, vocabSize, positions: context }
    const key = random.foldIn(random.key(0), 0x5c04e)
    this.score = new Linear(width, config.classes, { bias: false, dtype, init: init.normal(0.02), key })
  }

  /** The model below, without an output layer. A map holds what of it is no tensor, so that no tensor has two names. */
  private readonly shell: ReadonlyMap<'base', CausalLM>
  get base(): CausalLM {
    const shell = this.shell.get('base')!
    const trunk = this.transformer ? { transformer: this.transformer } : { model: this.model }
    return Object.assign(Object.create(Object.getPrototypeOf(shell) as object) as CausalLM, shell, trunk)
  }

  /** Scores of the classes, [B, classes]: those at the last token that is not padding. */
  logits({ inputIds, attentionMask }: BertBatch, ctx: Context): Tensor {
    const [batch, time] = inputIds.shape
    const h = this.base.hidden(inputIds, ctx, attentionMask ? { attentionMask } : {})
    const counts = notEqual(attentionMask ?? inputIds, attentionMask ? 0 : this.config.padId)
    const places = arange(0, time, { dtype: 'int32' })
    const last = argmax(mul(cast(counts, 'float32'), cast(places, 'float32')), { axis: 1 })
    const rows = add(last, mul(arange(0, batch, { dtype: 'int32' }), time))
    const seen = take(reshape(h, [batch * time, -1]), rows, { axis: 0 })
    return withScope('score', () => this.score.forward(seen))
  }

  /** The loss of the classes: a mean, or a sum divided by `ctx.normalizer`. */
  loss(batch: BertBatch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const logits = this.logits(batch, ctx)
    if (!batch.labels) throw new SteepestError('ARGUMENT', { who: 'CausalClassifier', rule: 'a batch needs `labels`' })
    return { loss: classLoss(logits, batch.labels, this.config.problem, ctx), logits }
  }
}

const architectureOf = (json: ConfigReader): string =>
  (json.json.architectures as readonly string[] | undefined)?.[0] ?? ''

/** A folder format whose models may also tell classes. */
export const classifying = (format: FolderFormat<CausalLM>): FolderFormat<CausalLM | CausalClassifier> => ({
  type: format.type,

  build(json, options) {
    const base = format.build(json, options)
    if (!options.head && !architectureOf(json).endsWith('ForSequenceClassification')) return base
    const { head } = options
    const classes = head?.classes ?? classesOf(json)
    return new CausalClassifier(base, {
      classes,
      labels: head ? head.labels : labelsOf(json),
      problem: head?.problem ?? problemOf(json, classes),
      padId: Number(json.json.pad_token_id ?? json.json.eos_token_id ?? 0),
    })
  },

  nameOf(name, model) {
    if (!(model instanceof CausalClassifier)) return name === 'score.weight' ? null : format.nameOf(name, model)
    if (name === 'lm_head.weight') return null
    return name === 'score.weight' ? name : format.nameOf(name, model.base)
  },

  isHead: (name) => name === 'score.weight',

  config(model) {
    if (!(model instanceof CausalClassifier)) return format.config(model)
    const below = format.config(model.base)
    const [name] = below.architectures as readonly string[]
    // Gemma 3 has another name here.
    const architecture = name
      .replace('Gemma3ForCausalLM', 'Gemma3TextForCausalLM')
      .replace(/LMHeadModel$|ForCausalLM$/, 'ForSequenceClassification')
    const { config } = model
    return {
      ...below,
      architectures: [architecture],
      pad_token_id: config.padId,
      ...labelKeys(config),
      ...problemKey(config.problem),
    }
  },

  keeps: (model): model is CausalLM | CausalClassifier =>
    format.keeps(model) || (model instanceof CausalClassifier && format.keeps(model.base)),
})
