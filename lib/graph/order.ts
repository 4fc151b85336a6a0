import type { Node, Tensor } from '../tensor/tensor.js'
import { dependents, type Graph, isLeaf, schedule } from './graph.js'

/** The value that a view shows a part of. */
function base(t: Tensor): Tensor {
  let at = t
  while (at.node.op.kind === 'view') at = at.node.inputs[0]
  return at
}

/**
 * The order of execution: as the nodes were made (forward as the user wrote it, backward as it was walked), but an update runs as soon as
 * its gradient is complete and every reader of the old state is done, with the light nodes that only updates need moved beside it.
 *
 * @returns the nodes in order, and the updates that may overwrite their state
 */
export function order(graph: Graph, donated: ReadonlySet<Tensor>): { nodes: Node[]; inPlace: Set<Node> } {
  const nodes = schedule(graph.outputs)
  const results = new Set(graph.outputs)
  const readers = new Map<Node, Node[]>()
  const stateReaders = new Map<Tensor, Node[]>()
  for (const node of nodes) {
    for (const t of node.inputs) {
      readers.set(t.node, [...(readers.get(t.node) ?? []), node])
      const state = base(t)
      if (donated.has(state) && node.op.kind !== 'view') stateReaders.set(state, [...(stateReaders.get(state) ?? []), node])
    }
  }
  const isUpdate = (node: Node) => node.op.updates !== undefined

  // Light nodes that nothing but updates reads.
  const light = new Set<Node>()
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]
    if (node.op.kind !== 'view' && node.op.name !== 'elementwise') continue
    if (node.outputs.some((t) => results.has(t))) continue
    if ((readers.get(node) ?? []).every((r) => isUpdate(r) || light.has(r))) light.add(node)
  }

  const inPlace = new Set<Node>()
  const position = new Map<Node, number>()
  nodes.forEach((node, at) => {
    const after = Math.max(-1, ...node.inputs.map((t) => position.get(t.node) ?? -1))
    if (isLeaf(node)) position.set(node, -1)
    else if (light.has(node)) position.set(node, after)
    else if (!isUpdate(node)) position.set(node, at)
    else {
      const states = node.op.updates!(node.attrs, node.inputs.length).map(([, i]) => base(node.inputs[i]))
      const others = states.flatMap((s) => stateReaders.get(s) ?? []).filter((r) => r !== node)
      const downstream = dependents(nodes, node.outputs)
      downstream.delete(node)
      if (!others.some((r) => downstream.has(r))) inPlace.add(node)
      position.set(node, Math.max(after, ...(inPlace.has(node) ? others.map((r) => position.get(r) ?? nodes.indexOf(r)) : [])))
    }
  })
  const sorted = [...nodes].sort((a, b) => position.get(a)! - position.get(b)! || rank(a) - rank(b) || a.id - b.id)
  return { nodes: sorted, inPlace }

  // At one position: the node that stands there by itself, then light nodes, then updates.
  function rank(node: Node): number {
    return isUpdate(node) ? 2 : light.has(node) ? 1 : 0
  }
}
