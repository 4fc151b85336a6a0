import { type UpdateKind, type UpdateLayout, updateLayout } from '../../ops/update-layout.js'
import { makeNode, type Node, type Tensor } from '../../tensor/tensor.js'
import { attrsKey } from '../attrs.js'
import { dependents, type Graph, isLeaf, schedule } from '../graph.js'
import { rebuild } from '../rebuild.js'

const layoutOf = (node: Node): UpdateLayout => updateLayout(node.attrs as unknown as UpdateKind)

/** The operands of a node's parameters, without those that all of them share. */
const own = (node: Node): readonly Tensor[] => node.inputs.slice(layoutOf(node).first)

function ancestors(of: readonly Tensor[]): Set<Node> {
  return new Set(schedule(of))
}

/** Updates by one rule with equal settings, whose gradients are all held anyway when the first of them may run. */
function candidates(nodes: readonly Node[]): Node[][] {
  const groups = new Map<string, { before: Set<Node>; members: Node[] }>()
  const ids = new Map<Tensor, number>()
  const idOf = (t: Tensor) => ids.get(t) ?? (ids.set(t, ids.size), ids.size - 1)
  for (const node of nodes) {
    if (node.op.name !== 'update') continue
    const { first, inputs } = layoutOf(node)
    const { lrScales: _, sites: __, ...attrs } = node.attrs
    const shared = node.inputs.slice(0, first)
    const key = `${attrsKey(attrs)} ${node.inputs[first].dtype} ${shared.map(idOf).join(' ')}`
    let group = groups.get(key)
    if (!group) groups.set(key, (group = { before: ancestors(shared), members: [] }))
    const { before } = group
    const ready = own(node).every((t, i) => isLeaf(t.node) || (i % inputs === 1 && before.has(t.node)))
    if (ready) group.members.push(node)
  }
  return [...groups.values()].map((g) => g.members).filter((members) => members.length > 1)
}

/** Whether nothing that reads what a member overwrites has to wait for another member. */
function independent(members: readonly Node[], nodes: readonly Node[]): boolean {
  const after = dependents(
    nodes,
    members.flatMap((m) => m.outputs),
  )
  const states = new Set(
    members.flatMap((m) => {
      const { inputs } = layoutOf(m)
      return own(m).filter((_, i) => i % inputs !== 1)
    }),
  )
  return nodes.every((node) => !after.has(node) || members.includes(node) || !node.inputs.some((t) => states.has(t)))
}

/**
 * Updates that may run at the same time become one instruction, which walks all their parameters in one round of the threads. Where a
 * gradient would have to wait for the others (nothing holds it), its update stays alone, so that its memory is free early.
 */
export function joinUpdates(graph: Graph): Graph {
  const nodes = schedule(graph.outputs)
  const groups = candidates(nodes).filter((members) => independent(members, nodes))
  if (groups.length === 0) return graph
  const places = new Map<Node, { group: readonly Node[]; at: number }>()
  for (const group of groups) {
    let at = 0
    for (const node of group) {
      places.set(node, { group, at })
      at += node.outputs.length
    }
  }
  const made = new Map<readonly Node[], readonly Tensor[]>()
  const map = new Map<Tensor, Tensor>()
  const moved = (t: Tensor) => map.get(t) ?? t
  const rewrite = (node: Node): readonly Tensor[] | undefined => {
    const place = places.get(node)
    if (!place) return undefined
    const { group, at } = place
    let outputs = made.get(group)
    if (!outputs) {
      // Rebuilding goes in order, so what all of them share, and every gradient that led to it, is already there.
      const shared = group[0].inputs.slice(0, layoutOf(group[0]).first)
      const attrs = {
        ...node.attrs,
        lrScales: group.flatMap((m) => m.attrs.lrScales as number[]),
        sites: group.flatMap((m) => m.attrs.sites as number[]),
      }
      outputs = makeNode(node.op, [...shared, ...group.flatMap(own)].map(moved), attrs)
      made.set(group, outputs)
    }
    return outputs.slice(at, at + node.outputs.length)
  }
  return rebuild(graph, rewrite, map)
}
