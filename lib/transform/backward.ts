import { SteepestError } from '../errors.js'
import { isLeaf, schedule } from '../graph/graph.js'
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

/** A graph as it was when it was recorded: reading a handle cuts what hangs behind it, but not here. */
export interface Tape {
  readonly outputs: readonly Tensor[]
  readonly inputs: readonly Tensor[]
  readonly nodes: readonly Node[]
  /** What depends on the inputs. */
  readonly on: ReadonlySet<Tensor>
}

/** Keeps what `pull` needs, for as often as it is called. */
export function record(outputs: readonly Tensor[], inputs: readonly Tensor[]): Tape {
  const nodes = schedule(outputs)
  const on = new Set(inputs)
  for (const node of nodes) if (node.inputs.some((t) => on.has(t))) for (const t of node.outputs) on.add(t)
  return { outputs, inputs, nodes, on }
}

/** The gradients of a tape's inputs for cotangents of its outputs: see `backward`. */
export function pull({ outputs, inputs, nodes, on }: Tape, cotangents: readonly (Tensor | null)[]): (Tensor | null)[] {
  const asked = new Set(inputs)
  const gradOf = new Map<Tensor, Tensor>()
  const give = (t: Tensor, g: Tensor | null | undefined) => {
    if (!g) return
    const before = gradOf.get(t)
    gradOf.set(t, before ? add(before, g) : g)
  }
  outputs.forEach((t, i) => {
    if (on.has(t)) give(t, cotangents[i])
  })
  for (let i = nodes.length - 1; i >= 0; i--) {
    const node = nodes[i]
    if (isLeaf(node)) continue
    const grads = node.outputs.map((t) => gradOf.get(t) ?? null)
    if (grads.every((g) => g === null)) continue
    const needs = node.inputs.map((t) => on.has(t) && isFloat(t.dtype))
    if (!needs.includes(true)) continue
    const given = withNodeScope(node, () => nodeVjp(node, grads, needs))
    node.inputs.forEach((t, j) => {
      if (needs[j]) give(t, given[j])
    })
    for (const t of node.outputs) if (!asked.has(t)) gradOf.delete(t)
  }
  return inputs.map((t) => gradOf.get(t) ?? null)
}

/**
 * Reverse mode: the gradients of `inputs` for the given cotangents of `outputs`, as new nodes. Null where an output does not depend on an
 * input, or nothing was asked. Walks the nodes from the last to the first, so that gradients come to be in the order in which they are used.
 */
export const backward = (
  outputs: readonly Tensor[],
  cotangents: readonly (Tensor | null)[],
  inputs: readonly Tensor[],
): (Tensor | null)[] => pull(record(outputs, inputs), cotangents)

/** As `pull`, with zeros where there is no dependence. */
export const pullOrZeros = (tape: Tape, cotangents: readonly (Tensor | null)[]): Tensor[] =>
  pull(tape, cotangents).map((g, i) => g ?? zerosLike(tape.inputs[i]))

/** As `backward`, with zeros where there is no dependence. */
export const backwardOrZeros = (
  outputs: readonly Tensor[],
  cotangents: readonly (Tensor | null)[],
  inputs: readonly Tensor[],
): Tensor[] => pullOrZeros(record(outputs, inputs), cotangents)
