import { SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import { type OpRow, statisticsOf, withBatch } from './batching.js'
import { defineOp, FLOATS, requireDtype } from './define.js'
import { type CrossEntropyAttrs, defineLogitGradient, defineLosses } from './loss-define.js'

/** @internal */
export const CROSS_ENTROPY = { ignoreIndex: 'int', labelSmoothing: 'float', softCap: 'float', zLoss: 'float' } as const

/** @internal */
export function checkLabels(who: string, rows: Aval, labels: Aval): void {
  requireDtype(who, labels, ['int32'], 'labels')
  const shape = rows.shape.slice(0, -1)
  if (rows.shape.length === 0 || !sameShape(labels.shape, shape)) {
    throw new SteepestError('SHAPE', {
      who,
      rule: `labels must have the shape ${showShape(shape)}, one for each row`,
      got: `${showAval(labels)} for ${showAval(rows)}`,
    })
  }
}

/** @internal Values of the rows of logits or of what they are made of. */
export const rowValues = (x: Aval): Aval => ({ shape: x.shape.slice(0, -1), dtype: statisticsOf(x.dtype) })

/** @internal */
export const crossEntropyRow: OpRow<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>({
  name: 'crossEntropy',
  kind: 'kernel',
  faults: true,
  doc: 'Cross-entropy of every row of logits with its label; also gives the log-sum-exp of the row.',
  attrs: CROSS_ENTROPY,
  infer: ([logits, labels]) => {
    requireDtype('crossEntropy', logits, FLOATS, 'logits')
    checkLabels('crossEntropy', logits, labels)
    return [rowValues(logits), rowValues(logits)]
  },
  vjp: ({ inputs: [logits, labels], outputs: [, lse], grads: [g], attrs }) => [
    g ? crossEntropyBackwardRow([logits, labels, lse, g], attrs)[0] : null,
    null,
  ],
  batch: (ctx) => crossEntropyRow([withBatch(ctx, 0), withBatch(ctx, 1)], ctx.attrs),
  define: ([logits, labels], attrs) => defineLosses(logits, labels, attrs),
  flops: ([logits]) => 20 * sizeOf(logits.shape),
})

/** @internal */
export const crossEntropyBackwardRow: OpRow<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>({
  name: 'crossEntropyBackward',
  kind: 'kernel',
  faults: true,
  doc: 'Gradient of the logits of crossEntropy, from logits, labels, log-sum-exp and the gradients of the losses.',
  attrs: CROSS_ENTROPY,
  infer: ([logits]) => [{ shape: logits.shape, dtype: logits.dtype }],
  vjp: 'by its definition',
  batch: (ctx) =>
    crossEntropyBackwardRow(
      [0, 1, 2, 3].map((i) => withBatch(ctx, i)),
      ctx.attrs,
    ),
  define: ([logits, labels, , g], attrs) => [defineLogitGradient(logits, labels, g, attrs)],
  flops: ([logits]) => 20 * sizeOf(logits.shape),
  inplace: [[0, 0]],
})
