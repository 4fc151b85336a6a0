import { concat, type PadAttrs } from '../../ops/assemble.js'
import { segmentSumRow, type SegmentSumAttrs } from '../../ops/indexing.js'
import { sameShape } from '../../tensor/shape.js'
import type { Node, Tensor } from '../../tensor/tensor.js'
import { type Graph, isLeaf, schedule } from '../graph.js'
import { rebuild } from '../rebuild.js'

/** Pads whose values, side by side along one axis, are the whole sum: in their order, with the axis. */
function sideBySide(leaves: readonly Tensor[]): { pads: readonly Node[]; axis: number } | undefined {
  const pads = leaves.map((t) => t.node)
  if (leaves.length < 2 || pads.some((p) => p.op.name !== 'pad' || p.attrs.value !== 0)) return undefined
  const widths = pads.map((p) => p.attrs as PadAttrs)
  const axis = widths[0].before.findIndex((n, i) => n > 0 || widths[0].after[i] > 0)
  const only = ({ before, after }: PadAttrs) => before.every((n, i) => i === axis || (n === 0 && after[i] === 0))
  if (axis < 0 || !widths.every(only)) return undefined
  const sorted = [...pads].sort((a, b) => (a.attrs as PadAttrs).before[axis] - (b.attrs as PadAttrs).before[axis])
  let at = 0
  for (const pad of sorted) {
    if ((pad.attrs as PadAttrs).before[axis] !== at) return undefined
    at += pad.inputs[0].shape[axis]
  }
  return at === leaves[0].shape[axis] ? { pads: sorted, axis } : undefined
}

/**
 * Sums of gradients that come in pieces. A sum of zero-padded pieces that fill it side by side (the gradient of what was cut in slices) is
 * their concatenation; a gradient of rows that is added to another (an embedding that is the output layer too) is added row by row, in the
 * memory of the other. The same numbers, but for the sign of a zero.
 */
export function sums(graph: Graph): Graph {
  const readers = new Map<Tensor, Node[]>()
  for (const node of schedule(graph.outputs)) {
    for (const t of node.inputs) readers.set(t, [...(readers.get(t) ?? []), node])
  }
  const results = new Set(graph.outputs)
  const once = (t: Tensor) => readers.get(t)?.length === 1 && !results.has(t)
  const isAdd = (t: Tensor) => t.node.op.name === 'add'

  const piecesOf = (root: Tensor): Tensor[] => {
    const leaves: Tensor[] = []
    const stack = [...root.node.inputs]
    while (stack.length > 0) {
      const t = stack.pop()!
      if (isAdd(t) && once(t)) stack.push(...t.node.inputs)
      else leaves.push(t)
    }
    return leaves
  }
  const map = new Map<Tensor, Tensor>()
  const get = (t: Tensor) => map.get(t) ?? t
  const rowsOnto = (rows: Tensor, base: Tensor): Tensor | undefined => {
    const { node } = rows
    if (node.op.name !== 'segmentSum' || node.attrs.base || !once(rows) || !once(base)) return undefined
    if (!sameShape(rows.shape, base.shape) || isLeaf(base.node) || base.node.op.kind === 'view') return undefined
    const attrs: SegmentSumAttrs = { ...(node.attrs as SegmentSumAttrs), base: true }
    return segmentSumRow([...node.inputs.map(get), get(base)], attrs)[0]
  }
  return rebuild(
    graph,
    (node) => {
      if (node.op.name !== 'add') return undefined
      const [a, b] = node.inputs
      const found = sideBySide(piecesOf(node.outputs[0]))
      if (found) {
        return [
          concat(
            found.pads.map((p) => get(p.inputs[0])),
            { axis: found.axis },
          ),
        ]
      }
      const summed = rowsOnto(b, a) ?? rowsOnto(a, b)
      return summed && [summed]
    },
    map,
  )
}
