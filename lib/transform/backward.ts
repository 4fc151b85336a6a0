import { SteepestError } from '../errors.js'
import { dependents, isLeaf, schedule } from '../graph/graph.js'
import { add } from '../ops/elementwise.js'
import { alias, zerosLike } from '../ops/shape.js'
import { isFloat } from '../tensor/dtype.js'
import { type Node, type Tensor, withNodeScope } from '../tensor/tensor.js'

/** The derivative of a node: by its row, or through its definition. */
function nodeVjp(node: Node, grads: readonly (Tensor | null)[], needs: readonly boolean[]): readonly (Tensor | null)[] {
  const { op, inputs, outputs, attrs } = node
  if (typeof op.vjp === 'function') return op.vjp({ inputs, outputs, attrs, grads, needs })
  if (op.define) {
    const fresh = inputs.map(alias)
    return backward(op.define(fresh, attrs), grads, fresh)
  }
  throw new SteepestError('NO_DERIVATIVE', { who: node.scope ? `${node.scope}: ${op.name}` : op.name, rule: op.vjp })
}

/**
 * Reverse mode: the gradients of `inputs` for the given cotangents of `outputs`, as new nodes. Null where an output does not depend on an
 * input, or nothing was asked. Walks the nodes from the last to the first, so that gradients come to be in the order in which they are used.
 */
export function backward(
  outputs: readonly Tensor[],
  cotangents: readonly (Tensor | null)[],
  inputs: readonly Tensor[],
): (Tensor | null)[] {
  const nodes = schedule(outputs)
  const on = dependents(nodes, inputs)
  const asked = new Set(inputs)
  const gradOf = new Map<Tensor, Tensor>()
  const give = (t: Tensor, g: Tensor | null | undefined) => {
    if (!g) return
    const before = gradOf.get(t)
    gradOf.set(t, before ? add(before, g) : g)
  }
  outputs.forEach((t, i) => {
    if (on.has(t.node)) give(t, cotangents[i])
  })
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]
    if (!on.has(node) || isLeaf(node)) continue
    const grads = node.outputs.map((t) => gradOf.get(t) ?? null)
    if (grads.every((g) => g === null)) continue
    const needs = node.inputs.map((t) => on.has(t.node) && isFloat(t.dtype))
    if (!needs.includes(true)) continue
    const given = withNodeScope(node, () => nodeVjp(node, grads, needs))
    node.inputs.forEach((t, j) => {
      if (needs[j]) give(t, given[j])
    })
    for (const t of node.outputs) if (!asked.has(t)) gradOf.delete(t)
  }
  return inputs.map((t) => gradOf.get(t) ?? null)
}

/** As `backward`, with zeros where there is no dependence. */
export const backwardOrZeros = (
  outputs: readonly Tensor[],
  cotangents: readonly (Tensor | null)[],
  inputs: readonly Tensor[],
): Tensor[] => backward(outputs, cotangents, inputs).map((g, i) => g ?? zerosLike(inputs[i]))
