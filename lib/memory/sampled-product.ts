import { makeNode, type Node, type Tensor } from '../tensor/tensor.js'
import { cast } from '../ops/elementwise.js'
import type { BatchContext, OpDef } from '../ops/define.js'
import { everyBatched, takeRow } from '../ops/indexing.js'
import { matmulRow } from '../ops/matmul.js'
import { rowNorms } from '../ops/sampling.js'
import { swapAxes } from '../ops/shape.js'
import type { DType } from '../tensor/dtype.js'

/**
 * The second derivative goes back through gradients before it comes to the products that these are of: from then on the products are exact.
 */
export interface Order {
  second: boolean
}

/** The rows that stand for all in a weight gradient. */
export interface Sample {
  /** The kept rows of the input, times their weights: [k, d]. */
  readonly rows: Tensor
  /** Where they are among all rows, int32 [k]. */
  readonly indices: Tensor
  /** Shared by all products of a graph: whether a derivative of their gradients has been asked for. */
  readonly order: Order
  /** Zeros [n]; its cotangent is the squared norm of each row of the output's gradient. */
  readonly probe: Tensor
}

const last = (t: Tensor): Tensor => swapAxes(t, -1, -2)

/** aᵀ·b where both are [..., n, ·], laid out as [b's, a's] where `flipped`. */
function gradientProduct(a: Tensor, b: Tensor, outDtype: DType, flipped: boolean): Tensor {
  const plain = { scale: 1, bias: false, residual: false, activation: 'none', preactivation: false, outDtype } as const
  return flipped ? last(matmulRow([last(b), a], plain)[0]) : matmulRow([last(a), b], plain)[0]
}

let warned = false
/** Once a process: it is about what a transform means, not about a number. */
function warnExact(): void {
  if (warned) return
  warned = true
  process.emitWarning('a sampled product is exact under hvp, jvp and vmap: nothing is saved there', {
    type: 'SteepestWarning',
    code: 'SAMPLED_EXACT',
  })
}

/** Inputs: x [n, d], g [n, f], rows [k, d], indices [k]. The value is the estimate of xᵀ·g, every derivative that of xᵀ·g itself. */
const gradientOp = (dtype: DType, flipped: boolean, order: Order): OpDef => ({
  name: 'sampledGradient',
  kind: 'composite',
  doc: 'A weight gradient from some of its rows.',
  attrs: {},
  infer: ([x, g]) => [{ shape: [x.shape[1], g.shape[1]], dtype }],
  define: ([, g, rows, indices]) => [
    gradientProduct(rows, takeRow([g, indices], { axis: 0, batchDims: 0 })[0], dtype, flipped),
  ],
  vjp: ({ inputs: [x, g], grads: [cotangent], needs }) => {
    warnExact()
    order.second = true
    const c = cast(cotangent!, x.dtype)
    const attrs = { scale: 1, bias: false, residual: false, activation: 'none', preactivation: false } as const
    const product = (a: Tensor, b: Tensor) => matmulRow([a, b], { ...attrs, outDtype: x.dtype })[0]
    return [needs[0] ? product(g, last(c)) : null, needs[1] ? product(x, c) : null, null, null]
  },
  batch: (ctx) => {
    warnExact()
    const [x, g] = everyBatched(ctx)
    return [gradientProduct(x, g, dtype, flipped)]
  },
})

/**
 * The product of a node with the value, input gradient and probes of the exact one, and a weight gradient from the sampled rows.
 *
 * @param node a plain `matmul` of two axes
 * @param inputs what its inputs are now
 * @param weightAt which of them is the weight: 1 for x·W, 0 for W·x (whose columns are the rows)
 * @param flipped the parameter itself lies transposed to the weight
 */
export function sampledProduct(
  node: Node,
  inputs: readonly Tensor[],
  weightAt: 0 | 1,
  flipped: boolean,
  { rows, indices, probe, order }: Sample,
): readonly Tensor[] {
  const { attrs, op: matmul } = node
  const turned = weightAt === 0
  /** Rows first, whichever side the weight is on. */
  const asRows = (t: Tensor) => (turned ? last(t) : t)
  const op: OpDef = {
    name: 'sampledProduct',
    kind: 'composite',
    doc: 'A product whose weight gradient is estimated from some of its rows.',
    attrs: {},
    infer: () => node.outputs.map(({ shape, dtype }) => ({ shape, dtype })),
    define: ([a, b]) => makeNode(matmul, [a, b], attrs),
    vjp: ({ inputs: [a, b, kept, at], grads: [g], needs }) => {
      const narrow = cast(g!, a.dtype)
      const exact = { ...attrs, outDtype: a.dtype }
      const [x, w] = turned ? [b, a] : [a, b]
      const needsInput = needs[1 - weightAt]
      const dx = needsInput ? makeNode(matmul, turned ? [last(w), narrow] : [narrow, last(w)], exact)[0] : null
      let dw: Tensor | null = null
      if (needs[weightAt]) {
        // For W·x the gradient is that of xᵀ·Wᵀ, turned back.
        const [over, cotangent, swapped] = [asRows(x), asRows(narrow), turned !== flipped]
        const made = order.second
          ? gradientProduct(over, cotangent, a.dtype, swapped)
          : makeNode(gradientOp(a.dtype, swapped, order), [over, cotangent, kept, at], {})[0]
        dw = turned ? last(made) : made
      }
      const squares = needs[4] ? rowNorms(asRows(narrow), { squared: true }) : null
      return [...(turned ? [dw, dx] : [dx, dw]), null, null, squares]
    },
    batch: (ctx: BatchContext<object>) => {
      warnExact()
      return matmul.batch!({ ...ctx, inputs: ctx.inputs.slice(0, 2), batched: ctx.batched.slice(0, 2), attrs })
    },
  }
  return makeNode(op, [...inputs, rows, indices, probe], {})
}
