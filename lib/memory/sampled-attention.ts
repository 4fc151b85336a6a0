import { cast } from '../ops/elementwise.js'
import { rowNorms, sampleRows, type SampleRowsOptions, takeScaled } from '../ops/sampling.js'
import { stopGradient } from '../ops/control.js'
import type { OpDef } from '../ops/define.js'
import { makeNode, type Node, type Tensor } from '../tensor/tensor.js'
import { estimate, exactBatch, last, type Order } from './sampled-product.js'

/** The products of three axes or more of two activations: scores of queries and keys, and of probabilities and values. */
export const attentionProducts = (nodes: readonly Node[], isParameter: (t: Tensor) => boolean): Node[] =>
  nodes.filter(({ op, inputs, attrs }) => {
    if (op.name !== 'matmul' || inputs.length !== 2 || inputs[0].rank < 3) return false
    return attrs.activation === 'none' && !attrs.preactivation && attrs.scale === 1 && !inputs.some(isParameter)
  })

/**
 * A product a·b [..., m, n] of activations with the exact value, and with both gradients estimated: bᵀ's from some rows of `a`, that of `a` from some
 * columns of `b`; each matrix has a choice of its own. What is kept are these rows and columns.
 *
 * @param keep rows to keep of so many
 * @param site a number of its own for each of the two choices
 */
export function sampledPair(
  node: Node,
  inputs: readonly Tensor[],
  keep: (rows: number) => number,
  key: Tensor,
  how: Omit<SampleRowsOptions, 'k' | 'gains' | 'site'>,
  site: () => number,
  order: Order,
): readonly Tensor[] {
  const [a, b] = inputs
  const sample = (x: Tensor): [Tensor, Tensor] => {
    const own = stopGradient(x)
    const { indices, weights } = sampleRows(rowNorms(own), key, { ...how, k: keep(x.shape[x.rank - 2]), site: site() })
    return [takeScaled(own, indices, weights), indices]
  }
  const op: OpDef = {
    name: 'sampledPair',
    kind: 'composite',
    doc: 'A product of activations whose gradients are estimated.',
    attrs: {},
    infer: () => node.outputs.map(({ shape, dtype }) => ({ shape, dtype })),
    define: ([x, y]) => makeNode(node.op, [x, y], node.attrs),
    vjp: ({ inputs: [x, y, rows, atRows, columns, atColumns], grads: [g], needs }) => {
      const narrow = cast(g!, x.dtype)
      const dx = needs[0] ? estimate(last(y), narrow, 'columns', { rows: columns, indices: atColumns, order }) : null
      const dy = needs[1] ? estimate(x, narrow, 'rows', { rows, indices: atRows, order }) : null
      return [dx, dy, null, null, null, null]
    },
    batch: (ctx) => exactBatch(ctx, node),
  }
  return makeNode(op, [a, b, ...sample(a), ...sample(last(b))], {})
}
