import { SteepestError } from '../errors.js'
import { type Context, Module } from '../nn/module.js'
import { concat } from '../ops/assemble.js'
import { div, mul, notEqual, tanh } from '../ops/elementwise.js'
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

/** What a row that is written token by token has behind it. */
export interface Cache {
  readonly layers: readonly LayerCache[]
  /** Positions that are filled, an int32 scalar; the next token gets this one. */
  readonly at: Tensor
}

/** Hidden states and what further tokens look back at. */
export interface Step {
  hidden: Tensor
  layers: LayerCache[]
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
export abstract class CausalLM extends Module {
  abstract readonly config: Readonly<{ vocabSize: number; context: number; width: number; layers: number }>
  /** Weight of the output layer, [V, C]. */
  abstract get head(): Tensor
  /** Logits become cap·tanh(logit / cap); none by default. */
  get logitSoftCap(): number | undefined {
    return undefined
  }
  /** The last hidden states [B, T, C] of token ids [B, T]. */
  abstract hidden(inputIds: Tensor, ctx: Context, reading?: Reading): Tensor
  /** The last hidden states of the first tokens of rows, and caches of `length` positions. */
  abstract prefill(inputIds: Tensor, length: number): Step
  /** The last hidden states [B, 1, C] of one more token for each row, ids [B, 1]. */
  abstract decode(inputIds: Tensor, cache: Cache): Step

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
