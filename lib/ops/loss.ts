import { checkOptions, SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, showShape, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { alignBatched, type OpRow, statisticsOf, wide, withBatch } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add, cast, div, maximum, mul, notEqual } from './elementwise.js'
import { type CrossEntropyAttrs, defineLogitGradient, defineLosses } from './loss-define.js'
import { matmul } from './matmul.js'
import { sum } from './reduce.js'
import { reshape, swapAxes } from './shape.js'

const ATTRS = { ignoreIndex: 'int', labelSmoothing: 'float', softCap: 'float', zLoss: 'float' } as const

function checkLabels(who: string, rows: Aval, labels: Aval): void {
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

const rowValues = (x: Aval): Aval => ({ shape: x.shape.slice(0, -1), dtype: statisticsOf(x.dtype) })

const crossEntropyRow: OpRow<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>({
  name: 'crossEntropy',
  kind: 'kernel',
  doc: 'Cross-entropy of every row of logits with its label; also gives the log-sum-exp of the row.',
  attrs: ATTRS,
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

const crossEntropyBackwardRow: OpRow<CrossEntropyAttrs> = defineOp<CrossEntropyAttrs>({
  name: 'crossEntropyBackward',
  kind: 'kernel',
  doc: 'Gradient of the logits of crossEntropy, from logits, labels, log-sum-exp and the gradients of the losses.',
  attrs: ATTRS,
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

type LinearAttrs = CrossEntropyAttrs & { bias: boolean }
type LinearBackwardAttrs = LinearAttrs & { dx: boolean; dweight: boolean; dbias: boolean }

const rowsOnly = ({ ignoreIndex, labelSmoothing, softCap, zLoss }: CrossEntropyAttrs): CrossEntropyAttrs => ({
  ignoreIndex,
  labelSmoothing,
  softCap,
  zLoss,
})

/** Logits of a linear layer; where weight [V, C] or bias [V] has the axis of a batch, x has it too. */
function logitsOf(x: Tensor, weight: Tensor, bias?: Tensor): Tensor {
  const turned = swapAxes(weight, -1, -2)
  const shape = [...x.shape.slice(0, -1), turned.shape[turned.rank - 1]]
  const rows = () => reshape(x, [x.shape[0], sizeOf(x.shape.slice(1, -1)), x.shape[x.rank - 1]])
  const logits = weight.rank > 2 ? reshape(matmul(rows(), turned), shape) : matmul(x, turned)
  return bias ? add(logits, bias.rank > 1 ? alignBatched(bias, x.rank) : bias) : logits
}

/** @internal The same as two ops, for who needs the product by itself. */
export const linearCrossEntropyByLogits = (inputs: readonly Tensor[], attrs: CrossEntropyAttrs): Tensor[] =>
  crossEntropyRow([logitsOf(inputs[0], inputs[1], inputs[3] as Tensor | undefined), inputs[2]], rowsOnly(attrs))

const flopsOf = ([x, weight]: readonly Aval[], products: number): number =>
  products * 2 * sizeOf(x.shape) * weight.shape[0]

const linearRow: OpRow<LinearAttrs> = defineOp<LinearAttrs>({
  name: 'linearCrossEntropy',
  kind: 'kernel',
  doc: 'Cross-entropy of the logits x·Wᵀ + b with their labels, without ever holding all logits; also gives the log-sum-exp of each row.',
  attrs: { ...ATTRS, bias: 'bool' },
  infer: ([x, weight, labels, bias]) => {
    const who = 'linearCrossEntropy'
    requireDtype(who, x, FLOATS)
    checkLabels(who, x, labels)
    if (weight.shape.length !== 2 || weight.shape[1] !== x.shape[x.shape.length - 1] || weight.dtype !== x.dtype) {
      throw new SteepestError('SHAPE', {
        who,
        rule: `the weight must be ${x.dtype} [classes, ${x.shape[x.shape.length - 1]}]`,
        got: `${showAval(weight)} for ${showAval(x)}`,
      })
    }
    if (bias && (!sameShape(bias.shape, [weight.shape[0]]) || bias.dtype !== x.dtype)) {
      throw new SteepestError('SHAPE', {
        who,
        rule: `the bias must be ${x.dtype} [${weight.shape[0]}]`,
        got: showAval(bias),
      })
    }
    return [rowValues(x), rowValues(x)]
  },
  vjp: ({ inputs, outputs: [, lse], grads: [g], needs, attrs }) => {
    if (!g) return inputs.map(() => null)
    const [x, weight, labels, ...bias] = inputs
    const wants = { dx: needs[0], dweight: needs[1], dbias: attrs.bias && needs[3] }
    const given = linearBackwardRow([x, weight, labels, lse, g, ...bias], { ...attrs, ...wants })
    let at = 0
    return [
      wants.dx ? given[at++] : null,
      wants.dweight ? given[at++] : null,
      null,
      ...(attrs.bias ? [wants.dbias ? given[at++] : null] : []),
    ]
  },
  batch: (ctx) => {
    const { inputs, batched, attrs } = ctx
    const x = withBatch(ctx, 0)
    const labels = withBatch(ctx, 2)
    const [weight, bias] = [inputs[1], inputs[3] as Tensor | undefined]
    if (!batched[1] && !batched[3]) return linearRow([x, weight, labels, ...(bias ? [bias] : [])], attrs)
    return linearCrossEntropyByLogits([x, weight, labels, ...(bias ? [bias] : [])], attrs)
  },
  define: ([x, weight, labels, bias], attrs) =>
    defineLosses(logitsOf(wide(x), wide(weight), bias && wide(bias)), labels, rowsOnly(attrs)),
  flops: (inputs) => flopsOf(inputs, 1),
})

/** The gradients of a linear layer from that of its logits; sums over all leading axes but the first `kept`. */
function linearGradients(
  x: Tensor,
  weight: Tensor,
  dlogits: Tensor,
  { dx, dweight, dbias }: LinearBackwardAttrs,
  kept: number,
): Tensor[] {
  const lead = x.shape.slice(0, kept)
  const flat = (t: Tensor) => reshape(t, [...lead, sizeOf(t.shape.slice(kept, -1)), t.shape[t.rank - 1]])
  const d = flat(dlogits)
  return [
    ...(dx ? [reshape(matmul(d, weight), x.shape)] : []),
    ...(dweight ? [matmul(swapAxes(d, -1, -2), flat(x))] : []),
    ...(dbias ? [sum(d, { axis: -2 })] : []),
  ]
}

const linearBackwardRow: OpRow<LinearBackwardAttrs> = defineOp<LinearBackwardAttrs>({
  name: 'linearCrossEntropyBackward',
  kind: 'kernel',
  doc: 'Gradients of linearCrossEntropy from x, weight, labels, log-sum-exp and the gradients of the losses; those that are asked for.',
  attrs: { ...ATTRS, bias: 'bool', dx: 'bool', dweight: 'bool', dbias: 'bool' },
  infer: ([x, weight], { dx, dweight, dbias }) => [
    ...(dx ? [{ shape: x.shape, dtype: x.dtype }] : []),
    ...(dweight ? [{ shape: weight.shape, dtype: x.dtype }] : []),
    ...(dbias ? [{ shape: [weight.shape[0]], dtype: x.dtype }] : []),
  ],
  vjp: 'by its definition',
  // Every example has a gradient of the weight of its own, so nothing is gained by not holding the logits.
  batch: (ctx: BatchContext<LinearBackwardAttrs>) => {
    const { inputs, attrs } = ctx
    const [x, labels, lse, g] = [0, 2, 3, 4].map((i) => withBatch(ctx, i))
    const dlogits = crossEntropyBackwardRow([logitsOf(x, inputs[1], inputs[5]), labels, lse, g], rowsOnly(attrs))[0]
    return linearGradients(x, inputs[1], dlogits, attrs, 1)
  },
  define: ([x, weight, labels, , g, bias], attrs) => {
    const [a, w] = [wide(x), wide(weight)]
    const dlogits = defineLogitGradient(logitsOf(a, w, bias && wide(bias)), labels, g, rowsOnly(attrs))
    return linearGradients(a, w, dlogits, attrs, 0).map((t) => cast(t, x.dtype))
  },
  flops: (inputs, _, { dx, dweight }) => flopsOf(inputs, 1 + Number(dx) + Number(dweight)),
})

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
