import type { Node, Tensor } from '../tensor/tensor.js'

/** Whether a node leaves state for the next step. */
export const isUpdate = (node: Node): boolean => node.op.updates !== undefined

/** Views and elementwise nodes that nothing but updates reads, directly or through each other: they can wait until the update runs. */
export function lightNodes(nodes: readonly Node[], results: ReadonlySet<Tensor>): Set<Node> {
  const readers = new Map<Node, Node[]>()
  for (const node of nodes) for (const t of node.inputs) readers.set(t.node, [...(readers.get(t.node) ?? []), node])
  const light = new Set<Node>()
  for (const node of [...nodes].reverse()) {
    if (node.op.kind !== 'view' && node.op.kind !== 'elementwise' && node.op.name !== 'elementwise') continue
    if (node.outputs.some((t) => results.has(t))) continue
    if ((readers.get(node) ?? []).every((r) => isUpdate(r) || light.has(r))) light.add(node)
  }
  return light
}
