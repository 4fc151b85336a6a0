import type { Graph } from '../graph.js'
import { rebuild } from '../rebuild.js'

/** Puts the body of every composite node in its place. */
export function inline(graph: Graph): Graph {
  let again = false
  const out = rebuild(graph, (node, inputs) => {
    if (node.op.kind !== 'composite') return undefined
    again = true
    return node.op.define!(inputs, node.attrs)
  })
  return again ? inline(out) : graph
}
