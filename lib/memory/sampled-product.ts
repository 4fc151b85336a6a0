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

/** @internal The last two axes in each other's place. */
export const last = (t: Tensor): Tensor => swapAxes(t, -1, -2)

const plain = (a: Tensor, b: Tensor, outDtype: DType): Tensor =>
  matmulRow([a, b], { scale: 1, bias: false, residual: false, activation: 'none', preactivation: false, outDtype })[0]

/**
 * How an estimated product of x [..., n, d] and g is laid out. `rows`: xᵀ·g with g [..., n, f]; `flipped`: the same, in memory as gᵀ·x;
 * `columns`: g·x with g [..., f, n].
 */
export type Form = 'rows' | 'flipped' | 'columns'

function productOf(x: Tensor, g: Tensor, form: Form, outDtype: DType): Tensor {
  if (form === 'columns') return plain(g, x, outDtype)
  return form === 'flipped' ? last(plain(last(g), x, outDtype)) : plain(last(x), g, outDtype)
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

/**
 * Inputs: x, g, the kept rows of x times their weights [..., k, d], where they are [..., k]. The value is the estimate of the product of x and g,
 * every derivative that of the product itself.
 */
const gradientOp = (dtype: DType, form: Form, order: Order): OpDef => ({
  name: 'sampledGradient',
  kind: 'composite',
  doc: 'A gradient from some of the rows that it is a sum over.',
  attrs: {},
  infer: ([x, g]) => {
    const [lead, d] = [x.shape.slice(0, -2), x.shape[x.shape.length - 1]]
    return [
      {
        shape: form === 'columns' ? [...lead, g.shape[lead.length], d] : [...lead, d, g.shape[lead.length + 1]],
        dtype,
      },
    ]
  },
  define: ([, g, rows, indices]) => {
    const batchDims = g.rank - 2
    const axis = form === 'columns' ? g.rank - 1 : g.rank - 2
    return [productOf(rows, takeRow([g, indices], { axis, batchDims })[0], form, dtype)]
  },
  vjp: ({ inputs: [x, g], grads: [cotangent], needs }) => {
    warnExact()
    order.second = true
    const c = cast(cotangent!, x.dtype)
    const [dx, dg] =
      form === 'columns'
        ? [() => plain(last(g), c, x.dtype), () => plain(c, last(x), x.dtype)]
        : [() => plain(g, last(c), x.dtype), () => plain(x, c, x.dtype)]
    return [needs[0] ? dx() : null, needs[1] ? dg() : null, null, null]
  },
  batch: (ctx) => {
    warnExact()
    const [x, g] = everyBatched(ctx)
    return [productOf(x, g, form, dtype)]
  },
})

/** @internal The estimate of a product of x and g from rows of x, or, within a second derivative, the product itself. */
export function estimate(x: Tensor, g: Tensor, form: Form, { rows, indices, order }: Omit<Sample, 'probe'>): Tensor {
  if (order.second) return productOf(x, g, form, x.dtype)
  return makeNode(gradientOp(x.dtype, form, order), [x, g, rows, indices], {})[0]
}

/** @internal A sampled product under vmap is the product of its first two inputs. */
export function exactBatch(ctx: BatchContext<unknown>, { op, attrs }: Node): Tensor[] {
  warnExact()
  return op.batch!({ ...ctx, inputs: ctx.inputs.slice(0, 2), batched: ctx.batched.slice(0, 2), attrs })
}

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
        const form = turned !== flipped ? 'flipped' : 'rows'
        const made = estimate(asRows(x), asRows(narrow), form, { rows: kept, indices: at, order })
        dw = turned ? last(made) : made
      }
      const squares = needs[4] ? rowNorms(asRows(narrow), { squared: true }) : null
      return [...(turned ? [dw, dx] : [dx, dw]), null, null, squares]
    },
    batch: (ctx) => exactBatch(ctx, node),
  }
  return makeNode(op, [...inputs, rows, indices, probe], {})
}
