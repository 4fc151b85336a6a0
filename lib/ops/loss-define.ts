import type { Tensor } from '../tensor/tensor.js'
import { arange } from './assemble.js'
import { wide } from './batching.js'
import { add, cast, div, equal, exp, log, mul, notEqual, square, sub, tanh, where } from './elementwise.js'
import { max, sum } from './reduce.js'
import { broadcastTo, expandDims, squeeze } from './shape.js'
import { stopGradient } from './control.js'

/** @internal */
export type CrossEntropyAttrs = { ignoreIndex: number; labelSmoothing: number; softCap: number; zLoss: number }

const LAST = { axis: -1, keepDims: true } as const

interface Parts {
  capped: Tensor
  bent?: Tensor
  lse: Tensor
  /** The label as one of the columns: 1 or 0, zeros in a row that is ignored. */
  target: Tensor
  /** 1 for rows that count, with an axis of length 1 at the end. */
  counts: Tensor
}

function partsOf(logits: Tensor, labels: Tensor, { ignoreIndex, softCap }: CrossEntropyAttrs): Parts {
  const raw = wide(logits)
  const bent = softCap > 0 ? tanh(div(raw, softCap)) : undefined
  const capped = bent ? mul(bent, softCap) : raw
  const top = stopGradient(max(capped, LAST))
  const lse = add(log(sum(exp(sub(capped, top)), LAST)), top)
  const label = expandDims(labels, labels.rank)
  const counts = cast(notEqual(label, ignoreIndex), raw.dtype)
  const columns = broadcastTo(arange(0, raw.shape[raw.rank - 1], { dtype: 'int32' }), raw.shape)
  return { capped, bent, lse, target: mul(cast(equal(columns, label), raw.dtype), counts), counts }
}

/** @internal The losses and log-sum-exps of rows of logits, in primitive ops. */
export function defineLosses(logits: Tensor, labels: Tensor, attrs: CrossEntropyAttrs): Tensor[] {
  const { capped, lse, target, counts } = partsOf(logits, labels, attrs)
  const { labelSmoothing, zLoss } = attrs
  const columns = logits.shape[logits.rank - 1]
  let loss = sub(lse, mul(sum(mul(where(target, capped, 0), target), LAST), 1 - labelSmoothing))
  if (labelSmoothing > 0) loss = sub(loss, mul(sum(capped, LAST), labelSmoothing / columns))
  if (zLoss !== 0) loss = add(loss, mul(square(lse), zLoss))
  return [squeeze(mul(loss, counts), -1), squeeze(lse, -1)]
}

/** @internal The gradient of the logits for the gradients `g` of the losses, in primitive ops. */
export function defineLogitGradient(logits: Tensor, labels: Tensor, g: Tensor, attrs: CrossEntropyAttrs): Tensor {
  const { capped, bent, lse, target, counts } = partsOf(logits, labels, attrs)
  const { labelSmoothing, zLoss } = attrs
  const columns = logits.shape[logits.rank - 1]
  const given = mul(expandDims(g, g.rank), counts)
  const p = exp(sub(capped, lse))
  const slope = zLoss !== 0 ? mul(p, add(mul(lse, 2 * zLoss), 1)) : p
  const even = labelSmoothing > 0 ? sub(slope, labelSmoothing / columns) : slope
  const d = mul(sub(even, mul(target, 1 - labelSmoothing)), given)
  return cast(bent ? mul(d, sub(1, square(bent))) : d, logits.dtype)
}
