import { makeNode, type Node, type Tensor, withNodeScope } from '../tensor/tensor.js'
import { type Graph, isLeaf, schedule } from './graph.js'

/** What a rewrite says of one node: its new outputs, or nothing to keep it as it is. */
export type Rewrite = (node: Node, inputs: readonly Tensor[]) => readonly Tensor[] | undefined

/**
 * Makes the graph anew, node by node in order, with `rewrite` deciding what takes each node's place. Every node but the leaves is made
 * anew, so that ids stay an order of execution.
 */
export function rebuild(graph: Graph, rewrite: Rewrite, map = new Map<Tensor, Tensor>()): Graph {
  const get = (t: Tensor) => map.get(t) ?? t
  const given = new Map(map)
  for (const node of schedule(graph.outputs, given)) {
    if (isLeaf(node)) continue
    const inputs = node.inputs.map(get)
    const outputs = withNodeScope(
      node,
      () => rewrite(node, inputs) ?? makeNode(node.op, inputs, node.attrs, node.outputs),
    )
    // Of a node with several outputs some may be given.
    node.outputs.forEach((t, i) => {
      if (!given.has(t)) map.set(t, outputs[i])
    })
  }
  return { inputs: graph.inputs.map(get), outputs: graph.outputs.map(get) }
}

/** The graph's outputs with its inputs replaced: the body of a function, applied. */
export function substitute(graph: Graph, inputs: readonly Tensor[]): readonly Tensor[] {
  const map = new Map<Tensor, Tensor>()
  graph.inputs.forEach((t, i) => map.set(t, inputs[i]))
  return rebuild(graph, () => undefined, map).outputs
}
