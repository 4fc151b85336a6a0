import { makeNode } from '../../tensor/tensor.js'
import type { Graph } from '../graph.js'
import { schedule } from '../graph.js'
import { rebuild } from '../rebuild.js'

/** Stacked outputs of scans that nobody reads are not computed. */
export function prune(graph: Graph): Graph {
  const nodes = schedule(graph.outputs)
  if (!nodes.some((n) => n.op.name === 'scan')) return graph
  const read = new Set(graph.outputs)
  for (const node of nodes) for (const t of node.inputs) read.add(t)
  return rebuild(graph, (node, inputs) => {
    if (node.op.name !== 'scan') return undefined
    const carries = node.attrs.carries as number
    const body = node.attrs.body as Graph
    const ys = node.outputs.slice(carries, body.outputs.length)
    const keep = node.outputs.slice(body.outputs.length).some((t) => read.has(t))
    if (keep === node.attrs.keep && ys.every((t) => read.has(t))) return undefined
    const outputs = body.outputs.filter((_, i) => i < carries || read.has(node.outputs[i]))
    const made = makeNode(node.op, inputs, { ...node.attrs, body: { inputs: body.inputs, outputs }, keep })
    let at = 0
    // What nobody reads is given any tensor: no one will look.
    return node.outputs.map((t, i) =>
      i < carries || read.has(t) || (keep && i >= body.outputs.length) ? made[at++] : (made[0] ?? inputs[0]),
    )
  })
}
