import type { Node, Tensor } from '../tensor/tensor.js'

/** A function of tensors as data: what goes in, what comes out; the nodes between are reached from the outputs. */
export interface Graph {
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
}

/** A node that is not computed: a placeholder, a constant or native memory. */
export const isLeaf = (node: Node): boolean => node.op.kind === 'leaf'

/** The nodes that the outputs need, in order, leaves included. Stops at concrete tensors, and at those that are `known`. */
export function schedule(outputs: readonly Tensor[], known?: ReadonlyMap<Tensor, unknown>): Node[] {
  const seen = new Set<Node>()
  const stack: Node[] = []
  const visit = (t: Tensor) => {
    if (!known?.has(t) && !seen.has(t.node)) {
      seen.add(t.node)
      stack.push(t.node)
    }
  }
  for (const t of outputs) visit(t)
  while (stack.length > 0) {
    for (const t of stack.pop()!.inputs) visit(t)
  }
  return [...seen].sort((a, b) => a.id - b.id)
}

/** Which of the scheduled nodes depend on one of `from`. */
export function dependents(nodes: readonly Node[], from: Iterable<Tensor>): Set<Node> {
  const on = new Set<Node>()
  for (const t of from) on.add(t.node)
  for (const node of nodes) {
    if (on.has(node)) continue
    if (node.inputs.some((t) => on.has(t.node))) on.add(node)
  }
  return on
}
