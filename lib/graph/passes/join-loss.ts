import { type LinearBackwardAttrs, linearWithGradientsRow } from '../../ops/loss-linear.js'
import type { Node, Tensor } from '../../tensor/tensor.js'
import { type Graph, schedule } from '../graph.js'
import { rebuild } from '../rebuild.js'

const GRADIENTS = ['dx', 'dweight', 'dbias'] as const

/** The gradients of a loss that are found together with it. */
interface Joint {
  /** The gradients of the losses of rows. */
  readonly given: Tensor
  readonly backward: Node[]
}

const asked = (node: Node) => GRADIENTS.filter((name) => node.attrs[name])

/** By the op that gives the losses, the ops that give gradients of it, where what these are multiplied by is known before the losses. */
function joints(nodes: readonly Node[]): Map<Node, Joint> {
  const found = new Map<Node, Joint>()
  /** Whether `given` waits for a node, losses that are found with their gradients for what these are given. */
  const waits = (given: Tensor, target: Node): boolean => {
    const seen = new Set<Node>()
    const stack = [given]
    while (stack.length > 0) {
      const { node } = stack.pop()!
      if (node === target) return true
      if (seen.has(node)) continue
      seen.add(node)
      const joint = found.get(node)
      stack.push(...node.inputs, ...(joint ? [joint.given] : []))
    }
    return false
  }
  for (const node of nodes) {
    if (node.op.name !== 'linearCrossEntropyBackward') continue
    const [x, weight, labels, lse, given, ...bias] = node.inputs
    const forward = lse.node
    if (forward.op.name !== 'linearCrossEntropy' || lse.index !== 1) continue
    if (![x, weight, labels, ...bias].every((t, i) => t === forward.inputs[i])) continue
    const joint = found.get(forward)
    if (joint?.given === given) joint.backward.push(node)
    else if (!joint && !waits(given, forward)) found.set(forward, { given, backward: [node] })
  }
  return found
}

/**
 * The cross-entropy of a linear layer and its gradients become one op where the gradients of the losses do not depend on the losses, as those of
 * a mean do not: logits are computed once, not for the losses and again for the gradients, so that of four products three are left.
 */
export function joinLoss(graph: Graph): Graph {
  const found = joints(schedule(graph.outputs))
  if (found.size === 0) return graph
  const map = new Map<Tensor, Tensor>()
  const get = (t: Tensor) => map.get(t) ?? t
  const rewrite = (node: Node, inputs: readonly Tensor[]): readonly Tensor[] | undefined => {
    // What the gradients wait for was made before its turn.
    if (node.outputs.every((t) => map.has(t))) return node.outputs.map(get)
    const joint = found.get(node)
    if (!joint) return undefined
    const { given, backward } = joint
    rebuild({ inputs: [], outputs: [given] }, rewrite, map)
    const names = GRADIENTS.filter((name) => backward.some((b) => b.attrs[name]))
    const attrs = {
      ...backward[0].attrs,
      ...Object.fromEntries(GRADIENTS.map((name) => [name, names.includes(name)])),
    } as LinearBackwardAttrs
    const [x, weight, labels, ...bias] = inputs
    const [losses, lse, ...gradients] = linearWithGradientsRow([x, weight, labels, get(given), ...bias], attrs)
    for (const b of backward) asked(b).forEach((name, i) => map.set(b.outputs[i], gradients[names.indexOf(name)]))
    return [losses, lse]
  }
  return rebuild(graph, rewrite, map)
}
