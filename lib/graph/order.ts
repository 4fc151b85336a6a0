import type { Node, Tensor } from '../tensor/tensor.js'
import { type Graph, isLeaf, schedule } from './graph.js'
import { isUpdate, lightNodes } from './light.js'

/** The value that a view shows a part of. */
function base(t: Tensor): Tensor {
  let at = t
  while (at.node.op.kind === 'view') at = at.node.inputs[0]
  return at
}

/** What must come before what: a value before its readers, and every reader of old state before the update that overwrites it. */
class Precedence {
  private readonly after = new Map<Node, Node[]>()

  constructor(readonly nodes: readonly Node[]) {
    for (const node of nodes) for (const t of node.inputs) this.add(t.node, node)
  }

  add(first: Node, then: Node): void {
    const list = this.after.get(first)
    if (list) list.push(then)
    else this.after.set(first, [then])
  }

  followers(node: Node): readonly Node[] {
    return this.after.get(node) ?? []
  }

  /** Whether one of `targets` has to come after `from`. */
  reaches(from: Node, targets: ReadonlySet<Node>): boolean {
    const seen = new Set<Node>([from])
    const stack = [from]
    while (stack.length > 0) {
      for (const next of this.followers(stack.pop()!)) {
        if (targets.has(next)) return true
        if (seen.has(next)) continue
        seen.add(next)
        stack.push(next)
      }
    }
    return false
  }

  /** The nodes with every node after those that it has to follow. */
  sorted(): Node[] {
    const waiting = new Map<Node, number>()
    for (const node of this.nodes)
      for (const next of this.followers(node)) waiting.set(next, (waiting.get(next) ?? 0) + 1)
    const out = this.nodes.filter((node) => !waiting.has(node))
    for (let i = 0; i < out.length; i++) {
      for (const next of this.followers(out[i])) {
        const left = waiting.get(next)! - 1
        waiting.set(next, left)
        if (left === 0) out.push(next)
      }
    }
    return out
  }
}

interface InPlace {
  /** Updates that may overwrite state that they replace, and by which of their outputs. */
  readonly updates: Map<Node, Set<number>>
  /** Of them, assignments whose value is computed into the place of the state, by the chain that gives it: nothing is left to do. */
  readonly direct: Set<Node>
}

/**
 * The updates that may overwrite the state that they replace: those of donated inputs (or of what such an update gave) whose other readers
 * can all come first. Their order becomes part of `precedence`.
 */
function updatesInPlace(precedence: Precedence, donated: ReadonlySet<Tensor>, results: ReadonlySet<Tensor>): InPlace {
  const readers = new Map<Tensor, Set<Node>>()
  const shown = new Set<Tensor>()
  for (const t of results) shown.add(base(t))
  for (const node of precedence.nodes) {
    if (node.op.kind === 'view') continue
    for (const t of node.inputs) {
      const state = base(t)
      readers.set(state, (readers.get(state) ?? new Set()).add(node))
    }
  }
  const owned = new Set(donated)
  const updates = new Map<Node, Set<number>>()
  const direct = new Set<Node>()

  /** Lets an elementwise chain write over the state that an assignment of its result replaces. */
  const feeds = (node: Node, state: Tensor, others: ReadonlySet<Node>): boolean => {
    const value = node.inputs[1]
    const chain = value.node
    if (node.op.name !== 'assign' || node.inputs[0] !== state || !donated.has(state)) return false
    if (chain.op.name !== 'elementwise' || shown.has(value) || readers.get(value)?.size !== 1) return false
    // A chain may read the old state only at the place that it writes.
    if (chain.inputs.some((t) => base(t) === state && t !== state)) return false
    const before = new Set([...others].filter((r) => r !== chain))
    if (before.has(node) || precedence.reaches(chain, before)) return false
    for (const reader of before) precedence.add(reader, chain)
    return true
  }
  for (const node of precedence.nodes) {
    if (!isUpdate(node)) continue
    // A rule may move what is nobody's state by states that are: a step in a small space.
    const pairs = node.op.updates!(node.attrs, node.inputs.length).filter(([, i]) => {
      const state = base(node.inputs[i])
      return owned.has(state) && !shown.has(state)
    })
    if (pairs.length === 0) continue
    const states = pairs.map(([, i]) => base(node.inputs[i]))
    const others = new Set(states.flatMap((s) => [...(readers.get(s) ?? [])]).filter((r) => r !== node))
    if (precedence.reaches(node, others)) continue
    if (feeds(node, states[0], others)) direct.add(node)
    for (const reader of others) precedence.add(reader, node)
    for (const [o] of pairs) owned.add(node.outputs[o])
    updates.set(node, new Set(pairs.map(([o]) => o)))
  }
  return { updates, direct }
}

export interface Order {
  readonly nodes: Node[]
  /** Updates that may overwrite state, and by which of their outputs. */
  readonly inPlace: ReadonlyMap<Node, ReadonlySet<number>>
  /** Assignments whose value is to be computed into the place of the state. */
  readonly direct: ReadonlySet<Node>
}

/**
 * The order of execution: as the nodes were made (forward as the user wrote it, backward as it was walked), but an update runs as soon as
 * its gradient is complete and every reader of the old state is done, with the light nodes that only updates need moved beside it.
 */
export function order(graph: Graph, donated: ReadonlySet<Tensor>): Order {
  const nodes = schedule(graph.outputs)
  const results = new Set(graph.outputs)
  const precedence = new Precedence(nodes)
  const light = lightNodes(nodes, results)
  const { updates, direct } = updatesInPlace(precedence, donated, results)

  // A node stands at the place where it was made; what moves stands right after the last that it follows, `depth` steps behind it.
  const made = new Map(nodes.map((node, at) => [node, at]))
  const place = new Map<Node, { at: number; depth: number }>()
  for (const node of precedence.sorted()) {
    const own = place.get(node) ?? { at: -1, depth: 0 }
    const moves = isUpdate(node) || light.has(node)
    if (!moves && !isLeaf(node) && made.get(node)! > own.at) Object.assign(own, { at: made.get(node)!, depth: 0 })
    place.set(node, own)
    for (const next of precedence.followers(node)) {
      const there = place.get(next)
      if (!there || there.at < own.at || (there.at === own.at && there.depth <= own.depth))
        place.set(next, { at: own.at, depth: own.depth + 1 })
    }
  }
  const sorted = [...nodes].sort((a, b) => {
    const [x, y] = [place.get(a)!, place.get(b)!]
    return x.at - y.at || x.depth - y.depth || a.id - b.id
  })
  return { nodes: sorted, inPlace: updates, direct }
}
