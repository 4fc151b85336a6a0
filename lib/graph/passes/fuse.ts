import { opNamed } from '../../ops/define.js'
import { dtypeCode } from '../../tensor/dtype.js'
import { sameShape } from '../../tensor/shape.js'
import { makeNode, type Node, type Tensor, withNodeScope } from '../../tensor/tensor.js'
import { constantOf } from '../constant.js'
import { type Graph, isLeaf, schedule } from '../graph.js'
import { ELEMENTWISE } from '../table.gen.js'
import { type Group, joinOfUpdates, rootOf } from './fuse-updates.js'

/** Steps of one fused instruction: more would spill the first-level cache with registers. */
const MAX_STEPS = 48
/** Operands (inputs and outputs) of one fused instruction. */
const MAX_OPERANDS = 24

const codeOf = new Map<string, number>()

/**
 * Elementwise fusion: nodes of one shape that feed each other become one `elementwise` node, one pass over memory. Two nodes join only at
 * the same depth (the number of other kernels on the longest way to them), so that a group can never wait for itself.
 */
export function fuse(graph: Graph): Graph {
  if (codeOf.size === 0) ELEMENTWISE.forEach((name, i) => codeOf.set(name, i))
  const nodes = schedule(graph.outputs)
  const depth = new Map<Node, number>()
  const groups = new Map<Node, Group>()
  for (const node of nodes) {
    const own = node.op.kind === 'elementwise'
    let d = 0
    for (const t of node.inputs) {
      const below = depth.get(t.node) ?? 0
      const joins = own && t.node.op.kind === 'elementwise' && sameShape(t.shape, node.outputs[0].shape)
      const passes = t.node.op.kind === 'leaf' || (t.node.op.kind === 'view' && node.op.kind === 'view')
      d = Math.max(d, joins || passes ? below : below + 1)
    }
    if (own) {
      const beside = node.inputs.filter((t) => groups.has(t.node) && depth.get(t.node) === d)
      const roots = [...new Set(beside.map((t) => rootOf(groups.get(t.node)!)))]
      const joined = [...roots.flatMap((g) => g.nodes), node]
      // All or none: two groups of one depth that feed each other would wait for each other for ever.
      if (!fits(joined)) {
        if (roots.length > 0) d++
        groups.set(node, { nodes: [node] })
      } else {
        const group: Group = { nodes: joined }
        for (const g of roots) g.parent = group
        groups.set(node, group)
      }
    }
    depth.set(node, d)
  }
  const readers = new Map<Tensor, Node[]>()
  for (const node of nodes) for (const t of node.inputs) readers.set(t, [...(readers.get(t) ?? []), node])
  const results = new Set(graph.outputs)
  joinLate(nodes, results, readers, groups, depth)
  joinOfUpdates(nodes, results, readers, groups, fits)

  const map = new Map<Tensor, Tensor>()
  const get = (t: Tensor) => map.get(t) ?? t
  const done = new Set<Node | Group>()

  const emitGroup = (group: Group) => {
    done.add(group)
    const members = new Set(group.nodes)
    group.nodes.sort((a, b) => a.id - b.id)
    const inputs: Tensor[] = []
    const constants: number[] = []
    const constantKey = new Map<number, number>()
    const inputAt = new Map<Tensor, number>()
    for (const node of group.nodes) {
      for (const t of node.inputs) {
        if (members.has(t.node)) continue
        const value = constantOf(t)
        if (value !== undefined) {
          if (!constantKey.has(value)) constantKey.set(value, constants.push(value) - 1)
        } else if (!inputAt.has(t)) {
          inputAt.set(t, inputs.push(t) - 1)
        }
      }
    }
    const stepAt = new Map<Node, number>()
    group.nodes.forEach((n, i) => stepAt.set(n, inputs.length + constants.length + i))
    const register = (t: Tensor): number => {
      const step = members.has(t.node) ? stepAt.get(t.node) : undefined
      if (step !== undefined) return step
      const value = constantOf(t)
      return value === undefined ? inputAt.get(t)! : inputs.length + constantKey.get(value)!
    }
    const code: number[] = []
    for (const node of group.nodes) {
      const out = node.outputs[0].dtype
      const compute = node.inputs.length > 0 ? widest(node) : out
      const sources = node.inputs.map(register)
      while (sources.length < 3) sources.push(-1)
      code.push(codeOf.get(node.op.name)!, dtypeCode(compute), dtypeCode(out), ...sources)
    }
    const kept = group.nodes.filter(
      (n) => results.has(n.outputs[0]) || (readers.get(n.outputs[0]) ?? []).some((r) => !members.has(r)),
    )
    for (const t of inputs) emit(t.node)
    const last = group.nodes[group.nodes.length - 1]
    const outputs = withNodeScope(last, () =>
      makeNode(opNamed('elementwise'), inputs.map(get), {
        constants,
        code,
        outputs: kept.map((n) => stepAt.get(n)!),
        shape: [...last.outputs[0].shape],
      }),
    )
    kept.forEach((n, i) => map.set(n.outputs[0], outputs[i]))
  }

  const emit = (start: Node): void => {
    // Depth first by an explicit stack: graphs of training steps are thousands of nodes long.
    const stack: Node[] = [start]
    while (stack.length > 0) {
      const node = stack[stack.length - 1]
      if (isLeaf(node) || done.has(node)) {
        stack.pop()
        continue
      }
      const group = groups.has(node) ? rootOf(groups.get(node)!) : undefined
      const needs = group
        ? group.nodes
            .flatMap((n) => n.inputs)
            .filter((t) => !groups.has(t.node) || rootOf(groups.get(t.node)!) !== group)
        : node.inputs
      const missing = needs.filter((t) => !isLeaf(t.node) && !done.has(t.node) && constantOf(t) === undefined)
      if (missing.length > 0) {
        for (const t of missing) stack.push(t.node)
        continue
      }
      stack.pop()
      if (group) {
        for (const n of group.nodes) done.add(n)
        if (!done.has(group)) emitGroup(group)
      } else {
        done.add(node)
        const outputs = withNodeScope(node, () => makeNode(node.op, node.inputs.map(get), node.attrs, node.outputs))
        node.outputs.forEach((t, i) => map.set(t, outputs[i]))
      }
    }
  }

  // A group is computed where the first of its readers needs it, not before.
  for (const node of nodes) {
    const group = groups.has(node) ? rootOf(groups.get(node)!) : undefined
    if (!group || group.nodes[group.nodes.length - 1] === node) emit(node)
  }
  return { inputs: graph.inputs, outputs: graph.outputs.map(get) }
}

/**
 * A group that only one later group reads joins it (the sign that a derivative of ReLU is made from), where what it reads is in memory as
 * late anyway. The later one cannot be waited for: what waits for it lies deeper than it does.
 */
function joinLate(
  nodes: readonly Node[],
  results: ReadonlySet<Tensor>,
  readers: ReadonlyMap<Tensor, readonly Node[]>,
  groups: ReadonlyMap<Node, Group>,
  depth: ReadonlyMap<Node, number>,
): void {
  for (const node of nodes) {
    const group = groups.has(node) ? rootOf(groups.get(node)!) : undefined
    if (!group || group.nodes[group.nodes.length - 1] !== node) continue
    const outside = (t: Tensor) => (readers.get(t) ?? []).filter((r) => !group.nodes.includes(r))
    const later = group.nodes.flatMap((n) => outside(n.outputs[0]))
    const [target] = later.map((r) => groups.get(r)).filter((g) => g !== undefined)
    const whole = target && rootOf(target)
    if (!whole || !later.every((r) => groups.has(r) && rootOf(groups.get(r)!) === whole)) continue
    const joined = [...group.nodes, ...whole.nodes]
    const shape = whole.nodes[0].outputs[0].shape
    if (group.nodes.some((n) => results.has(n.outputs[0])) || !sameShape(node.outputs[0].shape, shape) || !fits(joined))
      continue
    const at = Math.max(...whole.nodes.map((n) => depth.get(n)!))
    const readLate = (t: Tensor): boolean =>
      outside(t).some((r) => (r.op.kind === 'view' ? r.outputs.some(readLate) : depth.get(r)! >= at - 1))
    const stays = (t: Tensor) => t.node.op.kind === 'leaf' || constantOf(t) !== undefined || readLate(t)
    if (!group.nodes.flatMap((n) => n.inputs).every((t) => group.nodes.includes(t.node) || stays(t))) continue
    whole.nodes = joined
    group.parent = whole
  }
}

const fits = (nodes: readonly Node[]): boolean => nodes.length <= MAX_STEPS && operandCount(nodes) <= MAX_OPERANDS

function operandCount(nodes: readonly Node[]): number {
  const members = new Set(nodes)
  const inputs = new Set<Tensor>()
  for (const n of nodes) for (const t of n.inputs) if (!members.has(t.node)) inputs.add(t)
  return inputs.size + 2
}

/** The dtype that a step computes in: that of its operands, the condition of `where` aside. */
function widest(node: Node): Tensor['dtype'] {
  const operands = node.op.name === 'where' ? node.inputs.slice(1) : node.inputs
  return operands[0].dtype
}
