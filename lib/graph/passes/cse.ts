import type { Tensor } from '../../tensor/tensor.js'
import { makeNode } from '../../tensor/tensor.js'
import { attrsKey } from '../attrs.js'
import type { Graph } from '../graph.js'
import { rebuild } from '../rebuild.js'

/** Common subexpressions: two nodes of one op with equal attributes and inputs become one. Impure ops and barriers stay apart. */
export function cse(graph: Graph): Graph {
  const ids = new Map<Tensor, number>()
  const constants = new Map<string, number>()
  const idOf = (t: Tensor): number => {
    let id = ids.get(t)
    if (id !== undefined) return id
    id = ids.size
    if (t.node.op.name === 'constant') {
      const key = `${t.node.attrs.dtype as string} ${Object.is(t.node.attrs.value, -0) ? '-0' : String(t.node.attrs.value)}`
      id = constants.get(key) ?? id
      constants.set(key, id)
    }
    ids.set(t, id)
    return id
  }
  const known = new Map<string, readonly Tensor[]>()
  return rebuild(graph, (node, inputs) => {
    if (node.op.impure || node.op.kind === 'composite' || node.op.updates) return undefined
    // A fresh name without a barrier is nothing but its input.
    if (node.op.name === 'alias' && node.attrs.barrier === 0) return inputs
    const key = `${node.op.name} ${attrsKey(node.attrs)} ${inputs.map(idOf).join(' ')}`
    let outputs = known.get(key)
    if (!outputs) known.set(key, (outputs = makeNode(node.op, inputs, node.attrs, node.outputs)))
    return outputs
  })
}
