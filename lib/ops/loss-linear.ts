import { SteepestError } from '../errors.js'
import { type Aval, sameShape, showAval, sizeOf } from '../tensor/shape.js'
import type { Tensor } from '../tensor/tensor.js'
import { alignBatched, type OpRow, wide, withBatch } from './batching.js'
import { type BatchContext, defineOp, FLOATS, requireDtype } from './define.js'
import { add, cast } from './elementwise.js'
import { type CrossEntropyAttrs, defineLogitGradient, defineLosses } from './loss-define.js'
import { checkLabels, CROSS_ENTROPY, crossEntropyBackwardRow, crossEntropyRow, rowValues } from './loss-rows.js'
import { matmul } from './matmul.js'
import { sum } from './reduce.js'
import { reshape, swapAxes } from './shape.js'

type LinearAttrs = CrossEntropyAttrs & { bias: boolean }
/** @internal Which gradients are asked for. */
export type LinearBackwardAttrs = LinearAttrs & { dx: boolean; dweight: boolean; dbias: boolean }

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

/** @internal */
export const linearRow: OpRow<LinearAttrs> = defineOp<LinearAttrs>({
  name: 'linearCrossEntropy',
  kind: 'kernel',
  faults: true,
  doc: 'Cross-entropy of the logits x·Wᵀ + b with their labels, without ever holding all logits; also gives the log-sum-exp of each row.',
  attrs: { ...CROSS_ENTROPY, bias: 'bool' },
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

const LINEAR_BACKWARD = { ...CROSS_ENTROPY, bias: 'bool', dx: 'bool', dweight: 'bool', dbias: 'bool' } as const

const gradientsOf = ([x, weight]: readonly Aval[], { dx, dweight, dbias }: LinearBackwardAttrs): Aval[] => [
  ...(dx ? [{ shape: x.shape, dtype: x.dtype }] : []),
  ...(dweight ? [{ shape: weight.shape, dtype: x.dtype }] : []),
  ...(dbias ? [{ shape: [weight.shape[0]], dtype: x.dtype }] : []),
]

/** @internal */
export const linearBackwardRow: OpRow<LinearBackwardAttrs> = defineOp<LinearBackwardAttrs>({
  name: 'linearCrossEntropyBackward',
  kind: 'kernel',
  faults: true,
  doc: 'Gradients of linearCrossEntropy from x, weight, labels, log-sum-exp and the gradients of the losses; those that are asked for.',
  attrs: LINEAR_BACKWARD,
  infer: gradientsOf,
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

/** @internal */
export const linearWithGradientsRow: OpRow<LinearBackwardAttrs> = defineOp<LinearBackwardAttrs>({
  name: 'linearCrossEntropyWithGradients',
  kind: 'kernel',
  faults: true,
  doc: 'linearCrossEntropy, and the gradients of what it is given that are asked for, from x, weight, labels and the gradients of the losses.',
  attrs: LINEAR_BACKWARD,
  infer: (inputs, attrs) => [rowValues(inputs[0]), rowValues(inputs[0]), ...gradientsOf(inputs, attrs)],
  vjp: 'a pass makes it of linearCrossEntropy and of its gradient, which have derivatives',
  define: ([x, weight, labels, g, ...bias], attrs) => {
    const [losses, lse] = linearRow([x, weight, labels, ...bias], { ...rowsOnly(attrs), bias: attrs.bias })
    return [losses, lse, ...linearBackwardRow([x, weight, labels, lse, g, ...bias], attrs)]
  },
  flops: (inputs, _, { dx, dweight }) => flopsOf(inputs, 1 + Number(dx) + Number(dweight)),
})
