import { sameShape } from '../../tensor/shape.js'
import type { Node, Tensor } from '../../tensor/tensor.js'
import { lightNodes } from '../light.js'

/** Nodes that become one instruction. */
export interface Group {
  nodes: Node[]
  parent?: Group
}

export const rootOf = (g: Group): Group => {
  let at = g
  while (at.parent) at = at.parent
  return at
}

/**
 * Joins the groups of an update that is written in tensors, so that it is one pass over memory: a new mean of the gradient could be computed
 * long before the weight, which waits for the learning rate and its corrections, but nobody needs it earlier. Groups of one shape join where
 * one feeds the other or both read the same array, nothing but updates reads what they give, and neither waits for the other by another way.
 *
 * @param groups of every elementwise node; changed
 * @param fits whether so many nodes may be one instruction
 */
export function joinOfUpdates(
  nodes: readonly Node[],
  results: ReadonlySet<Tensor>,
  readers: ReadonlyMap<Tensor, readonly Node[]>,
  groups: ReadonlyMap<Node, Group>,
  fits: (nodes: readonly Node[]) => boolean,
): void {
  const light = lightNodes(nodes, results)
  const candidate = (node: Node): boolean => node.op.kind === 'elementwise' && light.has(node)
  /** The whole that a node is computed with. */
  const unit = (node: Node): Group | Node => {
    const group = groups.get(node)
    return group ? rootOf(group) : node
  }
  const membersOf = (u: Group | Node): readonly Node[] => ('nodes' in u ? u.nodes : [u])
  /** Whether `to` waits for `from` by something that is in neither. */
  const waits = (to: Group, from: Group): boolean => {
    const seen = new Set<Group | Node>([from])
    const stack: (Group | Node)[] = [from]
    while (stack.length > 0) {
      const at = stack.pop()!
      for (const reader of membersOf(at).flatMap((n) => n.outputs.flatMap((t) => readers.get(t) ?? []))) {
        const next = unit(reader)
        if (next === to && at !== from) return true
        if (next === to || seen.has(next)) continue
        seen.add(next)
        stack.push(next)
      }
    }
    return false
  }
  const join = (a: Node, b: Node): void => {
    const [x, y] = [rootOf(groups.get(a)!), rootOf(groups.get(b)!)]
    if (x === y || !sameShape(a.outputs[0].shape, b.outputs[0].shape)) return
    if (![...x.nodes, ...y.nodes].every(candidate) || !fits([...x.nodes, ...y.nodes])) return
    if (waits(x, y) || waits(y, x)) return
    x.nodes = [...x.nodes, ...y.nodes]
    y.parent = x
  }
  for (const node of nodes) {
    if (!candidate(node)) continue
    for (const t of node.inputs) {
      if (candidate(t.node)) join(t.node, node)
      // A number that is broadcast is read by every parameter's update.
      if (!sameShape(t.shape, node.outputs[0].shape) || t.node.op.name === 'broadcastTo') continue
      const beside = (readers.get(t) ?? []).find(candidate)
      if (beside) join(beside, node)
    }
  }
}
