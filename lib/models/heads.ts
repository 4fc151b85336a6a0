import { SteepestError } from '../errors.js'
import type { Context } from '../nn/module.js'
import { cast, div, mul, softplus, square, sub } from '../ops/elementwise.js'
import { crossEntropy } from '../ops/loss.js'
import { mean, sum } from '../ops/reduce.js'
import { reshape } from '../ops/shape.js'
import { showShape } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'

/** How a score of a row is learned: one of several classes, any number of classes, or numbers. */
export type ClassTask = 'single' | 'multi' | 'regression'

/** The mean cross-entropy of counted tokens, logits [B, T, V] and labels [B, T]; their sum by `ctx.normalizer` where that is there. */
export function tokenLoss(logits: Tensor, labels: Tensor, ctx: Context): Tensor {
  const rows = reshape(logits, [-1, logits.shape[logits.rank - 1]])
  const loss = crossEntropy(rows, reshape(labels, [-1]), { reduction: ctx.normalizer ? 'sum' : 'mean' })
  return ctx.normalizer ? div(loss, cast(ctx.normalizer, loss.dtype)) : loss
}

/** The mean loss of rows, logits [B, C]; its sum over rows by `ctx.normalizer` where that is there. */
export function classLoss(logits: Tensor, labels: Tensor, task: ClassTask, ctx: Context): Tensor {
  const [batch, classes] = logits.shape
  const want = task === 'single' ? [batch] : classes === 1 ? [batch] : [batch, classes]
  if (labels.shape.join() !== want.join()) {
    throw new SteepestError('SHAPE', {
      who: 'labels',
      rule: `labels of a ${task} task with ${classes} outputs must be ${showShape(want)}`,
      got: showShape(labels.shape),
    })
  }
  const reduced = (losses: Tensor) =>
    ctx.normalizer ? div(sum(mean(losses, { axis: 1 })), cast(ctx.normalizer, losses.dtype)) : mean(losses)
  if (task === 'single') {
    const loss = crossEntropy(logits, labels, { reduction: ctx.normalizer ? 'sum' : 'mean' })
    return ctx.normalizer ? div(loss, cast(ctx.normalizer, loss.dtype)) : loss
  }
  const numbers = cast(reshape(labels, [batch, classes]), logits.dtype)
  if (task === 'regression') return reduced(square(sub(logits, numbers)))
  // log(1 + e^−|x|) + max(x, 0) − x·y, which does not overflow: softplus(x) − x·y.
  return reduced(sub(softplus(logits), mul(logits, numbers)))
}
