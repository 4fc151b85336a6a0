import { SteepestError } from '../errors.js'
import { type Context, Module } from '../nn/module.js'
import { arange, concat, pad } from '../ops/assemble.js'
import { div, equal, lessEqual, mul, notEqual, tanh, where } from '../ops/elementwise.js'
import { crossEntropy, linearCrossEntropy } from '../ops/loss.js'
import { matmul } from '../ops/matmul.js'
import { full, reshape, slice, transpose } from '../ops/shape.js'
import { type Tensor, withScope } from '../tensor/tensor.js'

/** A batch of token rows, [B, T] int32. */
export type TokenBatch = {
  inputIds: Tensor
  /** As Hugging Face has them: the labels of position t stand at t and are shifted by the model; −100 is not counted. */
  labels?: Tensor
  /** Labels that are shifted already: what position t shall predict stands at t; −100 is not counted. */
  targets?: Tensor
  /** 0 where a token is padding, [B, T]. */
  attentionMask?: Tensor
  /** Number of the document that a token belongs to, int32 [B, T]: no token sees another document. */
  segments?: Tensor
  /** Place of each token in its document, int32 [B, T]; by default its place in the row. */
  positions?: Tensor
}

/** What beside its tokens a row says. */
export type Reading = Pick<TokenBatch, 'attentionMask' | 'segments' | 'positions'>

/** Keys and values of the positions that a layer has seen, [B, length, heads, depth]; those beyond are not looked at. */
export interface LayerCache {
  k: Tensor
  v: Tensor
}

/** What rows that are written token by token have behind them. */
export interface Cache {
  readonly layers: readonly LayerCache[]
  /** Positions of each row that are filled, int32 [B]; its next token gets this one. */
  readonly at: Tensor
  /** Length that rotary angles are made for: that of the longest row with the next token, or another with the same angles. */
  readonly reach: number
  /** What a decoder sees of the rows that an encoder has read. */
  readonly source?: SourceCache
}

/** What the layers of a decoder look at of source rows. */
export interface SourceCache {
  readonly layers: readonly LayerCache[]
  /** 0 where a source token is padding, uint8 [B, S]. */
  readonly keyMask: Tensor
}

/** Hidden states and what further tokens look back at. */
export interface Step {
  hidden: Tensor
  layers: LayerCache[]
  source?: SourceCache
}

/** How much a cache holds, and the length that rotary angles are made for. */
export type CacheSize = Readonly<{ length: number; reach: number }>

/** What writing token by token needs of a model. */
export interface Writer {
  readonly config: Readonly<{ vocabSize: number; width: number }>
  /** Longest row; infinite where the model sets no end. */
  readonly longest: number
  /** A length with the same rotary angles as this one. */
  reachOf(length: number): number
  /** The last hidden states of the first tokens of rows, filled up at the right, and caches of `length` positions. */
  prefill(batch: Pick<TokenBatch, 'inputIds' | 'attentionMask'>, size: CacheSize): Step
  /** The last hidden states [B, 1, C] of one more token for each row, ids [B, 1]. */
  decode(inputIds: Tensor, cache: Cache): Step
  /** Logits [..., V] of hidden states [..., C]. */
  logitsOf(hidden: Tensor): Tensor
}

/** Keys and values [B, T, heads, depth] with room for `length` positions. */
export const withRoom = (t: Tensor, length: number): Tensor =>
  pad(t, [
    [0, 0],
    [0, length - t.shape[1]],
    [0, 0],
    [0, 0],
  ])

/** The cache with one more position of each row, and the positions of the row that are filled then, uint8 [B, length]. */
export function appended({ k, v }: LayerCache, added: LayerCache, at: Tensor): { cache: LayerCache; filled: Tensor } {
  const [batch, length] = k.shape
  const places = reshape(arange(0, length, { dtype: 'int32' }), [1, length])
  const last = reshape(at, [batch, 1])
  const here = reshape(equal(places, last), [batch, length, 1, 1])
  return {
    cache: { k: where(here, added.k, k), v: where(here, added.v, v) },
    filled: lessEqual(places, last),
  }
}

/** The labels of each position: what stands one to the right. */
function shiftLeft(labels: Tensor): Tensor {
  const [batch] = labels.shape
  return concat([slice(labels, [null, [1, null]]), full([batch, 1], -100, 'int32')], { axis: 1 })
}

/** The options of `attention` that a row asks for. */
export const maskOf = ({ attentionMask, segments }: Reading): { keyMask?: Tensor; segments?: Tensor } => ({
  ...(attentionMask ? { keyMask: notEqual(attentionMask, 0) } : {}),
  ...(segments ? { segments } : {}),
})

/** A model that predicts the next token: what training and generation need of it. */
export abstract class CausalLM extends Module implements Writer {
  abstract readonly config: Readonly<{ vocabSize: number; context: number; width: number; layers: number }>
  /** Weight of the output layer, [V, C]. */
  abstract get head(): Tensor
  /** Logits become cap·tanh(logit / cap); none by default. */
  get logitSoftCap(): number | undefined {
    return undefined
  }
  /** The last hidden states [B, T, C] of token ids [B, T]. */
  abstract hidden(inputIds: Tensor, ctx: Context, reading?: Reading): Tensor
  abstract prefill(batch: Pick<TokenBatch, 'inputIds'>, size: CacheSize): Step
  abstract decode(inputIds: Tensor, cache: Cache): Step

  get longest(): number {
    return this.config.context
  }

  reachOf(_length: number): number {
    return this.config.context
  }

  /** Logits [..., V] of hidden states [..., C]. */
  logitsOf(hidden: Tensor): Tensor {
    return withScope('lm_head', () => {
      const logits = matmul(hidden, transpose(this.head))
      const cap = this.logitSoftCap
      return cap === undefined ? logits : mul(tanh(div(logits, cap)), cap)
    })
  }

  /** Logits [B, T, V] of token ids [B, T]. */
  logits(inputIds: Tensor, ctx: Context, reading: Reading = {}): Tensor {
    return this.logitsOf(this.hidden(inputIds, ctx, reading))
  }

  /**
   * The cross-entropy of the batch: its mean over counted labels, or their sum by `ctx.normalizer`; and the logits [B·T, V], which are
   * computed only where somebody looks at them.
   */
  loss(batch: TokenBatch, ctx: Context): { loss: Tensor; logits: Tensor } {
    const { inputIds, labels, targets = labels && shiftLeft(labels), ...reading } = batch
    if (!targets) {
      throw new SteepestError('ARGUMENT', {
        who: this.constructor.name,
        rule: 'a batch needs `labels` or `targets`',
        got: Object.keys(batch).join(', '),
      })
    }
    const rows = reshape(this.hidden(inputIds, ctx, reading), [-1, this.config.width])
    const logits = this.logitsOf(rows)
    const wanted = reshape(targets, [-1])
    const reduction = ctx.normalizer ? 'sum' : 'mean'
    const loss = withScope('lm_head', () =>
      this.logitSoftCap === undefined
        ? linearCrossEntropy(rows, this.head, wanted, { reduction })
        : crossEntropy(logits, wanted, { reduction }),
    )
    return { loss: ctx.normalizer ? div(loss, ctx.normalizer) : loss, logits }
  }
}
