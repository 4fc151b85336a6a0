import { checkOptions, SteepestError } from '../errors.js'
import { sameShape, showAval, showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { cast, div, maximum, mul, notEqual } from './elementwise.js'
import type { CrossEntropyAttrs } from './loss-define.js'
import { linearRow } from './loss-linear.js'
import { crossEntropyRow } from './loss-rows.js'
import { sum } from './reduce.js'

/** What becomes of the losses of the rows. */
export interface CrossEntropyOptions {
  /** `mean` (default): the mean over the labels that count, 0 where there are none; `sum`; `none`: one loss per row. */
  reduction?: 'mean' | 'sum' | 'none'
  /** Rows with this label count nothing; −100 by default. */
  ignoreIndex?: number
  /** This share of the target is spread evenly over all classes; 0 by default (Szegedy et al. 2016). */
  labelSmoothing?: number
  /** Logits become cap·tanh(logit / cap) first (Gemma 2); none by default. */
  softCap?: number
  /** Adds zLoss·lse² to the loss of a row (PaLM); 0 by default. */
  zLoss?: number
  /** Weight of each row's loss, of the shape of the labels; the mean is then over the sum of weights of rows that count. */
  weights?: Tensor
}

const KNOWN = ['reduction', 'ignoreIndex', 'labelSmoothing', 'softCap', 'zLoss', 'weights']

function attrsOf(
  who: string,
  { ignoreIndex = -100, labelSmoothing = 0, softCap = 0, zLoss = 0 }: CrossEntropyOptions,
): CrossEntropyAttrs {
  if (!Number.isInteger(ignoreIndex))
    throw new SteepestError('OPTION', { who, rule: '`ignoreIndex` must be a whole number', got: String(ignoreIndex) })
  if (!(labelSmoothing >= 0 && labelSmoothing <= 1))
    throw new SteepestError('OPTION', { who, rule: '`labelSmoothing` must be in [0, 1]', got: String(labelSmoothing) })
  if (!(softCap >= 0 && softCap < Infinity))
    throw new SteepestError('OPTION', {
      who,
      rule: '`softCap` must be a positive number, or 0 for none',
      got: String(softCap),
    })
  if (!Number.isFinite(zLoss))
    throw new SteepestError('OPTION', { who, rule: '`zLoss` must be a finite number', got: String(zLoss) })
  return { ignoreIndex, labelSmoothing, softCap, zLoss }
}

function reduce(
  who: string,
  losses: Tensor,
  labels: Tensor,
  options: CrossEntropyOptions,
  ignoreIndex: number,
): Tensor {
  const { reduction = 'mean', weights } = options
  if (!['mean', 'sum', 'none'].includes(reduction))
    throw new SteepestError('OPTION', { who, rule: '`reduction` must be mean, sum or none', got: String(reduction) })
  if (weights && !sameShape(weights.shape, labels.shape)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `\`weights\` must have the shape ${showShape(labels.shape)} of the labels`,
      got: showAval(weights),
    })
  }
  const w = weights && cast(weights, losses.dtype)
  const weighted = w ? mul(losses, w) : losses
  if (reduction === 'none') return weighted
  if (reduction === 'sum') return sum(weighted)
  const counts = cast(notEqual(labels, ignoreIndex), losses.dtype)
  if (!w) return div(sum(losses), maximum(sum(counts), 1))
  const total = sum(mul(counts, w))
  return div(sum(weighted), total)
}

/**
 * −log softmax(logits)[label]: the cross-entropy of logits [..., V] with labels [...] (int32 in [0, V), or `ignoreIndex`).
 * The losses are float32 (float64 for float64 logits). A label out of range stops the program with an error.
 */
export function crossEntropy(logits: Tensor, labels: Tensor, options: CrossEntropyOptions = {}): Tensor {
  checkOptions('crossEntropy', options, KNOWN)
  const attrs = attrsOf('crossEntropy', options)
  return reduce('crossEntropy', crossEntropyRow([logits, labels], attrs)[0], labels, options, attrs.ignoreIndex)
}

/** As `CrossEntropyOptions`, for a linear layer and its loss in one. */
export interface LinearCrossEntropyOptions extends CrossEntropyOptions {
  /** Bias of the linear layer, [V]. */
  bias?: Tensor
}

/**
 * The cross-entropy of the logits x·Wᵀ + b with labels [...], x [..., C] and weight [V, C], without ever holding all logits, neither in
 * the forward nor in the backward pass (Wijmans et al., "Cut your losses in large-vocabulary language models", 2024).
 */
export function linearCrossEntropy(
  x: Tensor,
  weight: Tensor,
  labels: Tensor,
  options: LinearCrossEntropyOptions = {},
): Tensor {
  const who = 'linearCrossEntropy'
  checkOptions(who, options, [...KNOWN, 'bias'])
  const attrs = attrsOf(who, options)
  const { bias } = options
  const [losses] = linearRow([x, weight, labels, ...(bias ? [bias] : [])], { ...attrs, bias: bias !== undefined })
  return reduce(who, losses, labels, options, attrs.ignoreIndex)
}
